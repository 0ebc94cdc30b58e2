"""`python -m a2mae.commands`: the command `a2mae` where its script is not on PATH."""

import sys

from a2mae.commands import main

if __name__ == "__main__":
    sys.exit(main())
