"""Exceptions that carry a reason: one unusable scene or file must not stop the others."""

from __future__ import annotations


class RefusedError(ValueError):
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
