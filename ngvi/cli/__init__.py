"""The `ngvi` command: fit a model, list the zoo, write a report."""
