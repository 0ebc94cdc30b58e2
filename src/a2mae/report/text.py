"""Numbers, dates and positions as text, and the figures of a stage's JSON report in words."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pandas as pd

ABSENT = "–"


def count(value: float) -> str:
    """Format a whole number with thousands separators: `1,234`."""
    return f"{int(value):,}"


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """Format a number with fixed digits and its unit; a dash where it was not measured.

    Args:
        value: None and NaN mean "not measured".
        digits: After the point.
        unit: Written behind, with a space.
    """
    if value is None or math.isnan(value):
        return ABSENT
    return f"{value:,.{digits}f}{' ' + unit if unit else ''}"


def signed(value: float | None, digits: int = 2, unit: str = "") -> str:
    """Format as `number` does, with the sign always written."""
    if value is None or math.isnan(value):
        return ABSENT
    return f"{value:+,.{digits}f}{' ' + unit if unit else ''}"


def percent(share: float | None, digits: int = 1) -> str:
    """Format a share of 0 to 1 as percent."""
    return number(None if share is None else 100 * share, digits, "%")


def day(value: object) -> str:
    """Format a UTC date: `2021-06-04`; a dash where there is none (`None`, pandas' `NaT`)."""
    if not isinstance(value, dt.datetime) or pd.isna(value):  # pandas counts NaT as a datetime
        return ABSENT
    return value.date().isoformat()


def epoch_day(value: float) -> str:
    """Format days since 1970-01-01 as a date; a dash where not finite."""
    if not math.isfinite(value):
        return ABSENT
    return (dt.date(1970, 1, 1) + dt.timedelta(days=int(value))).isoformat()


def position(lon: float, lat: float) -> str:
    """Format degrees with hemispheres: `8.512° E, 47.331° N`."""
    east_west = "E" if lon >= 0 else "W"
    north_south = "N" if lat >= 0 else "S"
    return f"{abs(lon):.3f}° {east_west}, {abs(lat):.3f}° {north_south}"


def listed(names: list[str] | tuple[str, ...]) -> str:
    """Join names: `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


_LONGEST_LIST = 12


def value(figure: object) -> str:
    """Format any JSON value: whole numbers with thousands separators, others with four digits, lists cut."""
    if figure is None:
        return ABSENT
    if isinstance(figure, bool):
        return "yes" if figure else "no"
    if isinstance(figure, int):
        return count(figure)
    if isinstance(figure, float):
        return f"{figure:,.4g}"
    if isinstance(figure, Sequence) and not isinstance(figure, str):
        shown = ", ".join(map(value, figure[:_LONGEST_LIST]))
        return shown + (f" … ({len(figure)})" if len(figure) > _LONGEST_LIST else "")
    return str(figure)


@dataclass(frozen=True)
class Measure:
    """How a figure of a stage's JSON report is shown.

    Attributes:
        words: What it is; `{}` stands for the key of each of several counts.
        format: Its value as text.
    """

    words: str
    format: Callable[[object], str] = value


def measured(measures: Mapping[str, Measure], figures: Mapping[str, object]) -> list[tuple[str, str]]:
    """Make a row of words and value per figure, in the order of the measures; figures without one come last.

    Args:
        measures: By the figures' keys.
        figures: As JSON holds them.
    """
    rows = [row for key, measure in measures.items() if key in figures for row in _rows(measure, figures[key])]
    return rows + list(_flat({key: figure for key, figure in figures.items() if key not in measures}))


def as_share(figure: object) -> str:
    """Format a share of 0 to 1 as whole percent."""
    return percent(cast("float | None", figure), 0)


def as_number(digits: int, unit: str = "") -> Callable[[object], str]:
    """Make a function that formats a number with fixed digits and its unit."""
    return lambda figure: number(cast("float | None", figure), digits, unit)


def _rows(measure: Measure, figure: object) -> Iterator[tuple[str, str]]:
    if isinstance(figure, Mapping):
        yield from ((measure.words.format(key), measure.format(part)) for key, part in figure.items())
    else:
        yield measure.words, measure.format(figure)


def _flat(report: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, figure in report.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(figure, Mapping):
            yield from _flat(figure, f"{name}: ")
        else:
            yield name, value(figure)
