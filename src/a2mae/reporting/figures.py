"""Figures of a stage's JSON report as text, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from a2mae.reporting import text

_MAX_LIST = 12


def flat(report: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every figure of a report as a row: its key in words, those it stands under before it; its value."""
    for key, value in report.items():
        name = f"{prefix}{words(str(key))}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}: ")
        else:
            yield name, value_of(value, str(key))


def words(key: str) -> str:
    """A key as words."""
    return key.replace("_", " ")


def value_of(value: object, key: str = "") -> str:
    """A figure as text: years and seeds without thousands, lists cut.

    Args:
        value: As JSON has it.
        key: That it stands under.
    """
    if value is None:
        return text.ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if key.endswith(("year", "years", "seed")) else text.count(value)
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(value_of(item, key) for item in value[:_MAX_LIST])
        return shown + (f" … ({len(value)})" if len(value) > _MAX_LIST else "")
    return str(value)
