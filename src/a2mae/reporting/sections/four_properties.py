"""The data set's four properties, each figure in words and with its unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from a2mae.reporting.blocks import Section, Table
from a2mae.reporting.figures import Measure, number, share, told
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
class _Property:
    """A property: what its table is called, and what is measured of it, in this order."""

    caption: str
    measures: Mapping[str, Measure] = field(default_factory=dict)


def _table(name: str, figures: object) -> Table:
    known = PROPERTIES.get(name, _Property(name.replace("_", " ")))
    assert isinstance(figures, Mapping)
    return Table(known.caption, ("measure", "value"), tuple(told(known.measures, figures)), numeric=(1,))


def _degrees(positive: str, negative: str) -> Callable[[object], str]:
    def ends(value: object) -> str:
        both = cast("Sequence[float]", value)
        return " to ".join(f"{abs(end):.2f}° {positive if end >= 0 else negative}" for end in both)

    return ends


def _months(value: object) -> str:
    return ", ".join(_MONTHS[month - 1] for month in cast("Sequence[int]", value))


def _years(value: object) -> str:
    return ", ".join(map(str, cast("Sequence[int]", value)))


PROPERTIES = {
    "sources": _Property(
        "Several sources: a set shows its ground through other bands, sizes of pixel and dates",
        {
            "sets": Measure("image sets"),
            "sets_per_kind": Measure("sets of the kind {}"),
            "sensors": Measure("sensors"),
            "images_per_sensor": Measure("images of {}"),
            "images_per_set_mean": Measure("images in a set, mean", number(1)),
            "dates_per_set_mean": Measure("dates in a set, mean", number(1)),
            "sets_with_two_sources_share": Measure("sets with two sensors or more", share),
            "gsd_ratio_within_sets_median": Measure("largest pixel of a set over its smallest, median", number(1)),
        },
    ),
    "coverage": _Property(
        "Diverse coverage: where and when",
        {
            "locations": Measure("places"),
            "one_degree_cells": Measure("cells of one degree (GeoSOT) with places"),
            "utm_zones": Measure("UTM zones"),
            "latitude_range_deg": Measure("from south to north", _degrees("N", "S")),
            "longitude_range_deg": Measure("from west to east", _degrees("E", "W")),
            "southern_hemisphere_share": Measure("sets south of the equator", share),
            "years": Measure("years", _years),
            "months": Measure("months", _months),
            "growing_season_share": Measure("images of April to September (south: October to March)", share),
        },
    ),
    "unified_locations": _Property(
        "Unified locations: the same pixel of a set's images is the same ground",
        {
            "registration": Measure("images, {}"),
            "shift_applied_m_median": Measure("how far images were moved, median", number(1, "m")),
            "shift_applied_m_95": Measure("95 % were moved by less than", number(1, "m")),
            "residual_px_median": Measure("left over, pixels of the coarser sensor, median", number(3, "px")),
            "residual_px_95": Measure("95 % have less left over than", number(3, "px")),
            "residual_measured_share": Measure("moved images whose rest could be measured", share),
        },
    ),
    "heterogeneity": _Property(
        "Heterogeneity: how varied images are in themselves; 0 is uniform, 0.5 as varied as all images together",
        {
            "mean": Measure("mean of the sets", number(2)),
            "median": Measure("median", number(2)),
            "quantile_05": Measure("5 % of the sets are below", number(2)),
            "quantile_95": Measure("5 % of the sets are above", number(2)),
            "nearly_uniform_share": Measure("sets that are nearly uniform (below 0.05)", share),
        },
    ),
}
"""What `stssd.tagging.properties` measures."""
