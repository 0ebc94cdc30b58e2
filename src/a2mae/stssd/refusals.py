"""The exception that carries a reason: one unusable scene must not stop the others."""

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
