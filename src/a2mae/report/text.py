"""Numbers and dates as a reader expects them."""

from __future__ import annotations

import datetime as dt
import math

import pandas as pd

ABSENT = "–"


def count(value: float) -> str:
    """A whole number with thin thousands separators: `1,234`."""
    return f"{int(value):,}"


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A number with fixed digits and its unit; a dash where it was not measured.

    Args:
        value: None and NaN mean "not measured".
        digits: After the point.
        unit: Written behind, with a space.
    """
    if value is None or math.isnan(value):
        return ABSENT
    return f"{value:,.{digits}f}{' ' + unit if unit else ''}"


def signed(value: float | None, digits: int = 2, unit: str = "") -> str:
    """As `number`, with its sign always written."""
    if value is None or math.isnan(value):
        return ABSENT
    return f"{value:+,.{digits}f}{' ' + unit if unit else ''}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 0..1 as percent."""
    return number(None if share is None else 100 * share, digits, "%")


def day(value: object) -> str:
    """A UTC date: `2021-06-04`; a dash where there is none (`None`, pandas' `NaT`)."""
    if not isinstance(value, dt.datetime) or pd.isna(value):  # pandas counts NaT as a datetime
        return ABSENT
    return value.date().isoformat()


def epoch_day(value: float) -> str:
    """Days since 1970-01-01 as a date; a dash where not finite."""
    if not math.isfinite(value):
        return ABSENT
    return (dt.date(1970, 1, 1) + dt.timedelta(days=int(value))).isoformat()


def position(lon: float, lat: float) -> str:
    """Degrees with hemispheres: `8.512° E, 47.331° N`."""
    east_west = "E" if lon >= 0 else "W"
    north_south = "N" if lat >= 0 else "S"
    return f"{abs(lon):.3f}° {east_west}, {abs(lat):.3f}° {north_south}"


def listed(names: list[str] | tuple[str, ...]) -> str:
    """`a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
