"""`python -m longstate` is the command `longstate`."""

import sys

from longstate.cli import main

if __name__ == "__main__":
    sys.exit(main())
