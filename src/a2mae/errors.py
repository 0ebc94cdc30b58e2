"""Errors that people read, and the words that their messages share.

Exceptions that carry a reason: one unusable scene or file must not stop the others.

Words of messages, logs and reports.

What is passed on (the report, W&B runs) tells nobody where somebody's folders lie.

The nearest of the names there are, for whoever has mistyped one on the command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath


class RejectedError(ValueError):
    """A scene, item or file cannot be used.

    Attributes:
        reason: Short code that the report counts, for example "corrupt".
        detail: What was found, what was expected, where to change it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ReadError(RuntimeError):
    """A file that cannot be read where pixels are needed.

    Attributes:
        reason: Short code for the rejection table.
        href: The file, where trying again may help.
    """

    def __init__(self, message: str, reason: str = "corrupt", *, href: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.href = href


def plural(quantity: int, noun: str, nouns: str = "") -> str:
    """A number and what it counts: `1 place`, `1,200 places`."""
    return f"{quantity:,} {noun if quantity == 1 else nouns or noun + 's'}"


def without_places(value: object) -> object:
    """The configuration without this machine's absolute paths: only their last part is kept.

    Where somebody's folders lie is nobody's business and would differ between machines.
    """
    if isinstance(value, Mapping):
        return {str(key): without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    if isinstance(value, str):
        for flavour in (PurePosixPath(value), PureWindowsPath(value)):
            if flavour.is_absolute():
                return f"…/{flavour.name}"
    return value


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The beginning of a sentence that lists them; empty where none is near.

    Args:
        name: As it was typed.
        known: What there is.
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'? " if near else ""
