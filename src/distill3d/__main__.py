"""`python -m distill3d` is the `distill3d` command."""

from distill3d.cli import main

if __name__ == "__main__":
    main()
