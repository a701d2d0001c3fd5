"""How strategies move: each file is one published update, made of mirror steps."""
