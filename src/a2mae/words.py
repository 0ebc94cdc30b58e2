"""Words of messages, logs and reports."""

from __future__ import annotations


def plural(quantity: int, noun: str, nouns: str = "") -> str:
    """A number and what it counts: `1 place`, `1,200 places`."""
    return f"{quantity:,} {noun if quantity == 1 else nouns or noun + 's'}"
