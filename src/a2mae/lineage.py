"""Print the chain from a model's scores back to the source scenes, and verify each hash on the way."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from a2mae.provenance.check import check
from a2mae.provenance.record import LineageError


def main(arguments: list[str] | None = None) -> int:
    """Print and verify a chain.

    Returns:
        0 if every byte is what it was, 1 if something changed or is missing, 2 if nothing is known of the path.
    """
    parser = argparse.ArgumentParser(prog="python -m a2mae.lineage", description=__doc__)
    parser.add_argument("target", type=Path, metavar="MODEL_DIR", help="a model directory, or any output of the chain")
    target = parser.parse_args(arguments).target
    try:
        found = check(target)
    except LineageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items()) or "nothing to check"
    sys.stdout.write("\n".join([*found.lines, counts]) + "\n")
    return int(found.changed)


if __name__ == "__main__":
    sys.exit(main())
