"""`python -m nncore`: the command line."""

import sys

from nncore.cli import main

if __name__ == "__main__":
    sys.exit(main())
