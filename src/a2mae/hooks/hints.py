"""The nearest of the names there are, for whoever has mistyped one on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The beginning of a sentence that lists them; empty where none is near.

    Args:
        name: As it was typed.
        known: What there is.
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'? " if near else ""
