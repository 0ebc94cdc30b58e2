"""Errors that people read, and the words that messages, logs and reports share."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath, PureWindowsPath

_START = (
    r"(?:[A-Za-z][A-Za-z0-9+.-]{1,30}:[/\\]+"
    r"|(?<![A-Za-z0-9])(?i:https?|s3a?|s?ftps?|gc?s|abfss?|az|adl|wasbs?|webdavs?|ssh):)"
)
"""Of an address, also where slashes are missing: a path of Python's holds one of two. `C:/` is none."""
_ADDRESS = re.compile(_START, re.ASCII)
_AUTHORITY = re.compile(rf"({_START})([^/?#]*)", re.ASCII)
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Signs that move a terminal's cursor, change its colours or turn its writing round, and halves of signs."""
_NO_TEXT = re.compile(r"[\ud800-\udfff]")
"""What Python makes of bytes in a name that are no UTF-8."""
_QUERY = re.compile(rf"({_START}[^\s?#'\"<>]*)(?:[?#][^\s'\"<>]*)?", re.ASCII)

_LONGEST_LINE = 1500
_SHOWN = 600
"""Characters that are shown of each end of a longer line: what was found stands first, what to change last."""


class A2maeError(Exception):
    """An error whose message says what was found, what was expected and what to change.

    The command line prints it as a sentence, without secrets of addresses; the calls that led to it are shown for every
    other error.
    """

    def __str__(self) -> str:
        return plain_text(bounded(without_secrets(super().__str__())))


class InputError(A2maeError, ValueError):
    """A parameter, file or table of the user's is not what is needed."""


class UnfinishedError(InputError):
    """A stage cannot go on, and what it has found so far says why.

    Attributes:
        outputs: Tables by dataset; they are saved although the stage has failed.
    """

    def __init__(self, message: str, outputs: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.outputs = outputs or {}

    def __reduce__(self) -> tuple[type[UnfinishedError], tuple[str, Mapping[str, object]]]:
        """Let it be raised in a worker and read here."""
        return type(self), (str(self), self.outputs)


class RejectedError(InputError):
    """A scene, item or file cannot be used.

    Attributes:
        reason: Short code that the report counts, for example "corrupt".
        detail: What was found, what was expected, where to change it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        detail = plain_text(bounded(without_secrets(detail)))
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[RejectedError], tuple[str, str]]:
        """Let it be raised in a worker and read here."""
        return type(self), (self.reason, self.detail)


class ReadError(A2maeError, RuntimeError):
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
    """Write a number and what it counts: `1 place`, `1,200 places`."""
    return f"{quantity:,} {noun if quantity == 1 else nouns or noun + 's'}"


def without_secrets(text: str) -> str:
    """Remove user, password, query and fragment from every address in a text: they may hold keys and signatures."""
    return _QUERY.sub(r"\1", without_users(text)) if ":" in text else text


def without_users(text: str, instead: str = "") -> str:
    """Remove user and password from every address in a text, also where slashes are missing or too many.

    Args:
        text: Any.
        instead: Stands where they stood.
    """
    return re.sub(r"\S+", lambda run: _without_users(run[0], instead), text) if "@" in text else text


def _without_users(run: str, instead: str) -> str:
    """Of signs without a space. A password may hold what ends a host: then it reaches to the last `@` of all."""
    last, done, kept = run.rfind("@"), 0, ""
    for found in _AUTHORITY.finditer(run, 0, last + 1):
        if found.start() >= done and ("@" in found[2] or ":" in found[2]):
            kept += run[done : found.start(2)] + instead
            done = 1 + (found.start(2) + found[2].rfind("@") if "@" in found[2] else last)
    return kept + run[done:]


def is_address(text: str) -> bool:
    """Whether a text begins as an address does, whichever slashes it has."""
    return _ADDRESS.match(text) is not None


def names_nothing(path: str) -> str:
    """Say why a text can be the path of no file, as the end of a sentence; empty where it can."""
    if not path.strip():
        return "is an empty path: write . for the folder that one stands in"
    if "\0" in path:
        return "has a zero byte, which no name of a file has: correct it"
    return "has bytes in its name that are no UTF-8: rename it, with letters" if _NO_TEXT.search(path) else ""


def plain_text(text: str) -> str:
    """Show signs that would steer a terminal, in a name of a file, an item or a tensor, as `?`; lines stay."""
    return _STEERING.sub("?", text)


def bounded(text: str) -> str:
    """Leave out the middle of every line of more than 1,500 characters: a name in a file may be of any length."""
    return "\n".join(
        line if len(line) <= _LONGEST_LINE else f"{line[:_SHOWN]} … {line[-_SHOWN:]}" for line in text.split("\n")
    )


def without_places(value: object) -> object:
    """Copy a configuration with only the last part of each absolute path, and without the secrets of addresses.

    Reports and W&B runs are passed on: they must not tell where somebody's folders lie, nor differ between machines.
    """
    if isinstance(value, Mapping):
        return {str(key): without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    if isinstance(value, str):
        for flavour in (PurePosixPath(value), PureWindowsPath(value)):
            if flavour.is_absolute():
                return f"…/{flavour.name}"
        return without_secrets(value)
    return value


def did_you_mean(name: object, known: Iterable[str], *, always: bool = False) -> str:
    """Name the nearest of the names there are: `did you mean 'mae'? `, to begin a sentence that lists them all.

    Args:
        name: As it was typed.
        known: What there is.
        always: Name one however far it is.

    Returns:
        The question with a space after it; empty where none is near.
    """
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0 if always else 0.6)
    return f"did you mean {near[0]!r}? " if near else ""
