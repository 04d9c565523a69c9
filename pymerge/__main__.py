"""`python -m pymerge`: the command line."""

from pymerge.cli import main

if __name__ == "__main__":
    main()
