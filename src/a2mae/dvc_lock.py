"""Say of each stage whether its outputs are those of the committed `dvc.lock`, or write the lock anew.

`dvc repro` writes the workspace's lock, so it is the committed one that is asked. It does not matter whether `dvc
repro`, `kedro run` or `dvc pull` made the outputs. Of a stage that differs, it is said whether its code or its
parameters are other than when the lock was made, and at the end whether the machine is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from a2mae.provenance.code import environment
from a2mae.provenance.lock import LOCK_FILE, committed, made_on, verdicts, write
from a2mae.provenance.record import LineageError


def main(arguments: list[str] | None = None) -> int:
    """Compare the outputs in the current folder with the lock, or write the lock.

    Returns:
        0 if they are the same, 1 if any differs, 2 if there is no lock.
    """
    parser = argparse.ArgumentParser(prog="python -m a2mae.dvc_lock", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {LOCK_FILE} by a whole run in a fresh clone")
    root = Path.cwd()
    try:
        if parser.parse_args(arguments).write:
            write(root)
            return 0
        lock = committed(root)
    except LineageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    found = []
    for verdict in verdicts(root, lock):
        found.append(verdict)
        sys.stdout.write(f"{verdict}\n")
    if all(verdict.same for verdict in found):
        sys.stdout.write(f"{sum(verdict.outputs for verdict in found)} outputs are those of {LOCK_FILE}\n")
        return 0
    theirs, ours = made_on(lock), environment(with_torch=True)
    other = [f"{key} {ours.get(key)} (the lock: {value})" for key, value in theirs.items() if ours.get(key) != value]
    if theirs:
        sys.stdout.write(f"this machine: {', '.join(other) or 'like the one that made the lock'}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
