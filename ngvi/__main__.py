"""`python -m ngvi` is the `ngvi` command."""

from ngvi.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
