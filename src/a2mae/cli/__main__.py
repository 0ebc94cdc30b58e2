"""`python -m a2mae.cli`: the command `a2mae` where its script is not on PATH."""

import sys

from a2mae.cli import main

if __name__ == "__main__":
    sys.exit(main())
