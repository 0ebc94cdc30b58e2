"""Say of each output whether it has the bytes of the committed `dvc.lock`, values within their tolerance, or neither.

`dvc repro` writes the workspace's lock, so it is the committed one that is asked. It does not matter whether `dvc
repro`, `kedro run` or `dvc pull` made the outputs. What has other bytes is compared with the values of
`dvc.reference.json` (docs/reproduction.md). Of a stage that differs, it is said whether its code or its parameters are
other than when the lock was made, and at the end whether the machine is. `--write` makes both files anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from a2mae.provenance.code import environment
from a2mae.provenance.lock import LOCK_FILE, committed, made_on, verdicts, write
from a2mae.provenance.record import LineageError
from a2mae.provenance.reference import REFERENCE_FILE, read_reference


def main(arguments: list[str] | None = None) -> int:
    """Compare the outputs in the current folder with the lock, or write the lock.

    Returns:
        0 if all have its bytes or values within their tolerance, 1 if any has not, 2 if there is no lock.
    """
    parser = argparse.ArgumentParser(prog="python -m a2mae.dvc_lock", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {LOCK_FILE} by a whole run in a fresh clone")
    root = Path.cwd()
    try:
        if parser.parse_args(arguments).write:
            write(root)
            return 0
        lock = committed(root)
        reference, why = _reference(root)
    except LineageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    found = []
    for verdict in verdicts(root, lock, reference):
        found.append(verdict)
        sys.stdout.write(f"{verdict}\n")
    holds, outputs = all(verdict.holds for verdict in found), sum(verdict.outputs for verdict in found)
    within = sum(len(verdict.within) for verdict in found)
    if holds and not within:
        sys.stdout.write(f"{outputs} outputs are those of {LOCK_FILE}\n")
        return 0
    if holds:
        sys.stdout.write(
            f"{outputs - within} outputs are those of {LOCK_FILE}, {within} have other bytes and values within the"
            " tolerance of docs/reproduction.md\n"
        )
    elif why:
        sys.stdout.write(f"bytes alone are compared: {why}\n")
    theirs, ours = made_on(lock), environment(with_torch=True)
    other = [f"{key} {ours.get(key)} (the lock: {value})" for key, value in theirs.items() if ours.get(key) != value]
    if theirs:
        sys.stdout.write(f"this machine: {', '.join(other) or 'like the one that made the lock'}\n")
    return 0 if holds else 1


def _reference(root: Path) -> tuple[Mapping[str, Any] | None, str]:
    """The committed values of the outputs; None and why, where the commit has none."""
    try:
        return read_reference(committed(root, REFERENCE_FILE)), ""
    except LineageError as error:
        return None, str(error)


if __name__ == "__main__":
    sys.exit(main())
