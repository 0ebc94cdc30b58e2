"""Figures of a stage's JSON report in words and with their units; what has no words of its own is shown by its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from a2mae.report import text

_MAX_LIST = 12


def as_it_is(value: object) -> str:
    """A figure as text: whole numbers with thousands, others with four digits, lists cut."""
    if value is None:
        return text.ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return text.count(value)
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(map(as_it_is, value[:_MAX_LIST]))
        return shown + (f" … ({len(value)})" if len(value) > _MAX_LIST else "")
    return str(value)


@dataclass(frozen=True)
class Measure:
    """How a figure is told.

    Attributes:
        words: What it is; `{}` stands for the key of each of several counts.
        told: Its value as text.
    """

    words: str
    told: Callable[[object], str] = as_it_is


def told(measures: Mapping[str, Measure], figures: Mapping[str, object]) -> list[tuple[str, str]]:
    """A row per figure: its words and its value, in the order of the measures; then what no measure knows.

    Args:
        measures: By the figures' keys.
        figures: As JSON has them.
    """
    rows = [row for key, measure in measures.items() if key in figures for row in _rows(measure, figures[key])]
    return rows + list(_flat({key: value for key, value in figures.items() if key not in measures}))


def share(value: object) -> str:
    """A share of 0 to 1 as whole percent."""
    return text.percent(cast("float | None", value), 0)


def number(digits: int, unit: str = "") -> Callable[[object], str]:
    """Tells a number with fixed digits and its unit."""
    return lambda value: text.number(cast("float | None", value), digits, unit)


def _rows(measure: Measure, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        yield from ((measure.words.format(key), measure.told(count)) for key, count in value.items())
    else:
        yield measure.words, measure.told(value)


def _flat(report: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in report.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        else:
            yield name, as_it_is(value)
