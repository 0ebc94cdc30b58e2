"""`python -m a2mae.lineage MODEL_DIR`: the chain from the scores back to the source scenes, each hash verified."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from a2mae.provenance.check import Chain, Link, check
from a2mae.provenance.record import LineageError

SIGNS = {"ok": "ok", "changed": "CHANGED", "missing": "MISSING", "elsewhere": "elsewhere"}


def lines(chain: Chain) -> list[str]:
    """The chain as text."""
    text = [f"{SIGNS[finding.state]:9} {finding.what}: {finding.detail}" for finding in chain.broken]
    for link in chain.links:
        text += _lines(link)
    counts: Counter[str] = Counter(finding.state for finding in chain.findings())
    text += [f"note: {note}" for note in chain.notes]
    text.append(", ".join(f"{counts[state]} {state}" for state in SIGNS if counts[state]) or "nothing to check")
    return text


def _lines(link: Link) -> list[str]:
    record = link.record
    text = []
    for entry, finding in zip(record.outputs.values(), link.outputs, strict=True):
        digest = (entry.sha256 or "")[:12]
        text.append(f"{SIGNS[finding.state]:9} {entry.path}  sha256 {digest}" + _because(finding.detail))
    groups = ", ".join(sorted(record.parameters)) or "none"
    commit = str(record.code["commit"])
    text.append(
        f"          made by {record.node} (code {commit[:12]}{'+changes' if commit.endswith('+changes') else ''},"
        f" parameters {groups}) from {', '.join(sorted(record.inputs)) or 'parameters alone'}"
    )
    text += [f"  {SIGNS[f.state]:9} {f.what}{_because(f.detail)}" for f in link.inputs]
    changed = [f for f in link.code if f.state != "ok"]
    text += [f"  {SIGNS[f.state]:9} {f.what}{_because(f.detail)}" for f in changed]
    if link.sources:
        counts = Counter(f.state for f in link.sources)
        text.append(f"  source scenes: {', '.join(f'{n} files {state}' for state, n in sorted(counts.items()))}")
        text += [
            f"  {SIGNS[f.state]:9} {f.what}{_because(f.detail)}"
            for f in link.sources
            if f.state in ("changed", "missing")
        ]
    return text


def _because(detail: str) -> str:
    return f": {detail}" if detail else ""


def main(arguments: list[str] | None = None) -> int:
    """Print and verify a chain.

    Returns:
        0 if every byte is what it was, 1 if something changed or is missing, 2 if nothing is known of the path.
    """
    parser = argparse.ArgumentParser(prog="python -m a2mae.lineage", description=__doc__)
    parser.add_argument("target", type=Path, metavar="MODEL_DIR", help="a model directory, or any output of the chain")
    options = parser.parse_args(arguments)
    try:
        chain = check(options.target, quiet=not sys.stderr.isatty())
    except LineageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("\n".join(lines(chain)) + "\n")
    return 1 if chain.changed else 0


if __name__ == "__main__":
    sys.exit(main())
