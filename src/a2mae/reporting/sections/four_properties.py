"""The data set's four properties, each figure in words and with its unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from a2mae.reporting import text
from a2mae.reporting.blocks import Section, Table
from a2mae.reporting.figures import flat, value_of
from a2mae.reporting.inputs import ReportInputs

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def four_properties(inputs: ReportInputs) -> Section | None:
    """Several sources, diverse coverage, unified locations, heterogeneity: as measured."""
    measured = inputs.four_properties
    if measured is None:
        return None
    order = [name for name in PROPERTIES if name in measured] + [name for name in measured if name not in PROPERTIES]
    return Section(
        "four-properties",
        "The four properties",
        "What a spatial-temporal-spectral structured data set claims to be, measured on this one: several sources,"
        " diverse coverage, unified locations within a set, and heterogeneity within the images.",
        tuple(_table(name, measured[name]) for name in order),
    )


@dataclass(frozen=True)
class _Measure:
    """How a figure is told: its words (`{}` is the key of a count of its own), and its value as text."""

    words: str
    told: Callable[[object], str] = value_of


@dataclass(frozen=True)
class _Property:
    """A property: what its table is called, and what is measured of it, in this order."""

    caption: str
    measures: Mapping[str, _Measure] = field(default_factory=dict)


def _table(name: str, figures: object) -> Table:
    known = PROPERTIES.get(name, _Property(name.replace("_", " ")))
    assert isinstance(figures, Mapping)
    rows = [row for key, measure in known.measures.items() if key in figures for row in _rows(measure, figures[key])]
    rows += flat({key: value for key, value in figures.items() if key not in known.measures})
    return Table(known.caption, ("measure", "value"), tuple(rows), numeric=(1,))


def _rows(measure: _Measure, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        yield from ((measure.words.format(key), measure.told(count)) for key, count in value.items())
    else:
        yield measure.words, measure.told(value)


def _share(value: object) -> str:
    return text.percent(cast("float | None", value), 0)


def _number(digits: int, unit: str = "") -> Callable[[object], str]:
    return lambda value: text.number(cast("float | None", value), digits, unit)


def _degrees(positive: str, negative: str) -> Callable[[object], str]:
    def told(value: object) -> str:
        ends = cast("Sequence[float]", value)
        return " to ".join(f"{abs(end):.2f}° {positive if end >= 0 else negative}" for end in ends)

    return told


def _months(value: object) -> str:
    return ", ".join(_MONTHS[month - 1] for month in cast("Sequence[int]", value))


def _years(value: object) -> str:
    return ", ".join(map(str, cast("Sequence[int]", value)))


PROPERTIES = {
    "sources": _Property(
        "Several sources: a set shows its ground through other bands, sizes of pixel and dates",
        {
            "sets": _Measure("image sets"),
            "sets_per_kind": _Measure("sets of the kind {}"),
            "sensors": _Measure("sensors"),
            "images_per_sensor": _Measure("images of {}"),
            "images_per_set_mean": _Measure("images in a set, mean", _number(1)),
            "dates_per_set_mean": _Measure("dates in a set, mean", _number(1)),
            "sets_with_two_sources_share": _Measure("sets with two sensors or more", _share),
            "gsd_ratio_within_sets_median": _Measure("largest pixel of a set over its smallest, median", _number(1)),
        },
    ),
    "coverage": _Property(
        "Diverse coverage: where and when",
        {
            "locations": _Measure("places"),
            "one_degree_cells": _Measure("cells of one degree (GeoSOT) with places"),
            "utm_zones": _Measure("UTM zones"),
            "latitude_range_deg": _Measure("from south to north", _degrees("N", "S")),
            "longitude_range_deg": _Measure("from west to east", _degrees("E", "W")),
            "southern_hemisphere_share": _Measure("sets south of the equator", _share),
            "years": _Measure("years", _years),
            "months": _Measure("months", _months),
            "growing_season_share": _Measure("images of April to September (south: October to March)", _share),
        },
    ),
    "unified_locations": _Property(
        "Unified locations: the same pixel of a set's images is the same ground",
        {
            "registration": _Measure("images, {}"),
            "shift_applied_m_median": _Measure("how far images were moved, median", _number(1, "m")),
            "shift_applied_m_95": _Measure("95 % were moved by less than", _number(1, "m")),
            "residual_px_median": _Measure("left over, pixels of the coarser sensor, median", _number(3, "px")),
            "residual_px_95": _Measure("95 % have less left over than", _number(3, "px")),
            "residual_measured_share": _Measure("moved images whose rest could be measured", _share),
        },
    ),
    "heterogeneity": _Property(
        "Heterogeneity: how varied images are in themselves; 0 is uniform, 0.5 as varied as all images together",
        {
            "mean": _Measure("mean of the sets", _number(2)),
            "median": _Measure("median", _number(2)),
            "quantile_05": _Measure("5 % of the sets are below", _number(2)),
            "quantile_95": _Measure("5 % of the sets are above", _number(2)),
            "nearly_uniform_share": _Measure("sets that are nearly uniform (below 0.05)", _share),
        },
    ),
}
"""What `stssd.tagging.properties` measures."""
