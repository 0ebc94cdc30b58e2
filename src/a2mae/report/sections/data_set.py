"""Image sets side by side, and the data set's four properties.

Image sets side by side: what each sensor saw, when, and how far it was moved to lie on the reference.

The data set's four properties, each figure in words and with its unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Arrow, Gallery, Picture, Section, Strip, Table
from a2mae.report.figures import Measure, number, share, told
from a2mae.report.inputs import ReportInputs, StoreReader, records
from a2mae.report.pictures import display_bands, stretch, to_data_uri

if TYPE_CHECKING:
    import pandas as pd


def image_sets(inputs: ReportInputs) -> Section | None:
    """A gallery of sets, spread over the kinds, with date, sensor, registration and anchor of every image."""
    if inputs.store is None or inputs.images is None or inputs.sets is None or not len(inputs.sets):
        return None
    chosen = choose_sets(inputs.sets, inputs.limits.sets)
    strips = tuple(_strip(inputs, row) for row in records(chosen))
    return Section(
        "image-sets",
        "Image sets side by side",
        f"{plural(len(strips), 'set')} of {text.count(len(inputs.sets))}, spread over the kinds. Every picture of"
        " a strip covers the same square of ground. The arrow points the way an image was moved to lie on the place's"
        " reference (its length is the number, not the drawing); grey is where nothing usable was seen.",
        (
            Gallery(
                "Colours: red, green and blue where the sensor has them, stretched between the 2nd and the 98th"
                " percentile of each image.",
                strips,
            ),
        ),
    )


def choose_sets(sets: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Sets to show: one of each kind in turn, those with most sensors and images first, kept ones before others."""
    ordered = sets.assign(_sensors=sets["sensors"].map(len), _kept=sets["kept"].astype(bool)).sort_values(
        ["_kept", "_sensors", "image_count", "set_id"], ascending=[False, False, False, True], kind="stable"
    )
    ordered = ordered.assign(_turn=ordered.groupby("kind").cumcount())
    return ordered.sort_values(["_turn", "kind"], kind="stable").head(limit)


def _strip(inputs: ReportInputs, row: dict[str, object]) -> Strip:
    assert inputs.images is not None and inputs.store is not None
    images = inputs.images[inputs.images["set_id"] == row["set_id"]]
    images = images.sort_values(["is_anchor", "sensor", "datetime"], ascending=[False, True, True], kind="stable")
    kept = "kept" if row["kept"] else f"pruned: {row['keep_reason']}"
    return Strip(
        f"{row['set_id']}",
        tuple(_picture(inputs.store, image, inputs.limits.picture_px) for image in records(images)),
        f"kind {row['kind']}, {text.position(float(str(row['lon'])), float(str(row['lat'])))}, {row['split']}, {kept}",
    )


def _picture(store: StoreReader, image: dict[str, object], picture_px: int) -> Picture:
    sensor = store.sensor(str(image["sensor"]))
    bands = display_bands(sensor)
    pixels, valid = store.read_physical(sensor.id, np.array([image["row"]], np.int64), list(bands))
    shown = stretch(pixels[0], valid[0])
    date = text.day(image["datetime"])
    registration, arrow = _registration(image)
    height, width = valid.shape[1:]
    return Picture(
        to_data_uri(shown, max_px=picture_px),
        f"{sensor.title} on {date}, {registration}",
        (
            f"{sensor.title}",
            f"{date}, {sensor.gsd_m:g} m, {width} × {height} px",
            registration,
            f"{_clouds(_float(image['cloud_fraction']))}, usable {text.percent(_float(image['valid_fraction']), 0)}",
        ),
        badge="anchor" if image["is_anchor"] else "",
        arrow=arrow,
    )


def _registration(image: dict[str, object]) -> tuple[str, Arrow | None]:
    state = str(image["registration"])
    if state == "reference":
        return "reference of the place", None
    if state != "registered":
        return "position as delivered (no shift could be measured)", None
    east, north = _float(image["shift_x_m"]), _float(image["shift_y_m"])
    residual = text.number(_float(image["residual_px"]), 2, "px left")
    words = f"moved {text.signed(east, 1, 'm')} east, {text.signed(north, 1, 'm')} north ({residual})"
    return words, Arrow(east, north)


def _clouds(fraction: float) -> str:
    """Nought is said only where a mask or a test has looked."""
    return "clouds not looked for" if math.isnan(fraction) else f"cloud {text.percent(fraction, 0)}"


def _float(value: object) -> float:
    return float("nan") if value is None else float(str(value))


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
