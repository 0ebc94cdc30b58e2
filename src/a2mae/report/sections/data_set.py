"""Image sets as pictures, and the four properties of the data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Arrow, Gallery, Picture, Section, Strip, Table
from a2mae.report.inputs import ReportInputs, StoreReader, records
from a2mae.report.pictures import display_bands, stretch, to_data_uri

if TYPE_CHECKING:
    import pandas as pd


def image_sets(inputs: ReportInputs) -> Section | None:
    """Show sets of every kind as pictures, with date, sensor, registration and anchor of every image."""
    if inputs.store is None or inputs.images is None or inputs.sets is None or not len(inputs.sets):
        return None
    chosen = choose_sets(inputs.sets, inputs.limits.sets)
    strips = tuple(_strip(inputs, row) for row in records(chosen))
    return Section(
        "image-sets",
        "Image sets side by side",
        f"{plural(len(strips), 'set')} of {text.count(len(inputs.sets))}, spread over the kinds. All pictures of"
        " a row cover the same footprint. The arrow shows in which direction an image was moved onto the reference of"
        " its location (how far stands in the caption); invalid pixels are grey.",
        (
            Gallery(
                "Colours: red, green and blue where the sensor has them, stretched between the 2nd and the 98th"
                " percentile of each image.",
                strips,
            ),
        ),
    )


def picture_sheet(inputs: ReportInputs) -> Section | None:
    """Show some of the pictures that the model learns from, spread over the folder."""
    table, store = inputs.pictures, inputs.store
    if table is None or store is None or not len(table):
        return None
    training = table[table["split"] == "train"]
    at = np.unique(np.linspace(0, len(training) - 1, min(len(training), inputs.limits.sets)).astype(int))
    shown = records(training.iloc[at])
    return Section(
        "pictures",
        "Some of the pictures",
        f"{len(shown)} of the {text.count(len(training))} that are learned from, spread over the folder.",
        (
            Gallery(
                "Stretched between the 2nd and the 98th percentile of each picture.",
                (Strip("", tuple(_of_folder(store, row, inputs.limits.picture_px) for row in shown)),),
            ),
        ),
    )


def _of_folder(store: StoreReader, row: Mapping[str, object], picture_px: int) -> Picture:
    sensor = store.sensor(str(row["sensor"]))
    pixels, valid = store.read_physical(sensor.id, np.array([row["row"]], np.int64), list(display_bands(sensor)))
    name = str(row["image_id"])
    return Picture(to_data_uri(stretch(pixels[0], valid[0]), max_px=picture_px), name, (name,))


def choose_sets(sets: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Choose sets to show: each kind in turn, those with most sensors and images first, kept ones before others."""
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
            f"{_clouds(_float(image['cloud_fraction']))}, valid {text.percent(_float(image['valid_fraction']), 0)}",
        ),
        badge="anchor" if image["is_anchor"] else "",
        arrow=arrow,
    )


def _registration(image: dict[str, object]) -> tuple[str, Arrow | None]:
    state = str(image["registration"])
    if state == "reference":
        return "reference of the location", None
    if state != "registered":
        return "not registered (no shift could be estimated)", None
    east, north = _float(image["shift_x_m"]), _float(image["shift_y_m"])
    residual = text.number(_float(image["residual_px"]), 2, "px residual")
    words = f"moved {text.signed(east, 1, 'm')} east, {text.signed(north, 1, 'm')} north ({residual})"
    return words, Arrow(east, north)


def _clouds(fraction: float) -> str:
    """Say 0 % only where a mask or a test has seen the image."""
    return "no cloud mask" if math.isnan(fraction) else f"cloud {text.percent(fraction, 0)}"


def _float(value: object) -> float:
    return float("nan") if value is None else float(str(value))


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def four_properties(inputs: ReportInputs) -> Section | None:
    """Show several sources, diverse coverage, unified locations and heterogeneity, as measured."""
    measured = inputs.four_properties
    if measured is None:
        return None
    order = [name for name in PROPERTIES if name in measured] + [name for name in measured if name not in PROPERTIES]
    return Section(
        "four-properties",
        "The four properties",
        "What makes a spatial-temporal-spectral structured data set, measured on this one: several sources, diverse"
        " coverage, unified locations within a set, and heterogeneity within the images.",
        tuple(_table(name, measured[name]) for name in order),
    )


@dataclass(frozen=True)
class _Property:
    """A property: the caption of its table, and what is measured, in this order."""

    caption: str
    measures: Mapping[str, text.Measure] = field(default_factory=dict)


def _table(name: str, figures: object) -> Table:
    known = PROPERTIES.get(name, _Property(name.replace("_", " ")))
    assert isinstance(figures, Mapping)
    return Table(known.caption, ("measure", "value"), tuple(text.measured(known.measures, figures)), numeric=(1,))


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
        "Several sources: a set shows its footprint in several bands, resolutions and dates",
        {
            "sets": text.Measure("image sets"),
            "sets_per_kind": text.Measure("sets of the kind {}"),
            "sensors": text.Measure("sensors"),
            "images_per_sensor": text.Measure("images of {}"),
            "images_per_set_mean": text.Measure("images in a set, mean", text.as_number(1)),
            "dates_per_set_mean": text.Measure("dates in a set, mean", text.as_number(1)),
            "sets_with_two_sources_share": text.Measure("sets with two sensors or more", text.as_share),
            "gsd_ratio_within_sets_median": text.Measure(
                "coarsest GSD of a set over its finest, median", text.as_number(1)
            ),
        },
    ),
    "coverage": _Property(
        "Diverse coverage: where and when",
        {
            "locations": text.Measure("locations"),
            "one_degree_cells": text.Measure("one-degree cells (GeoSOT) with locations"),
            "utm_zones": text.Measure("UTM zones"),
            "latitude_range_deg": text.Measure("from south to north", _degrees("N", "S")),
            "longitude_range_deg": text.Measure("from west to east", _degrees("E", "W")),
            "southern_hemisphere_share": text.Measure("sets south of the equator", text.as_share),
            "years": text.Measure("years", _years),
            "months": text.Measure("months", _months),
            "growing_season_share": text.Measure(
                "images of April to September (south: October to March)", text.as_share
            ),
        },
    ),
    "unified_locations": _Property(
        "Unified locations: the same pixel of a set's images is the same ground",
        {
            "registration": text.Measure("images, {}"),
            "shift_applied_m_median": text.Measure("shift applied, median", text.as_number(1, "m")),
            "shift_applied_m_95": text.Measure("shift applied, 95th percentile", text.as_number(1, "m")),
            "residual_px_median": text.Measure(
                "residual, pixels of the coarser sensor, median", text.as_number(3, "px")
            ),
            "residual_px_95": text.Measure("residual, 95th percentile", text.as_number(3, "px")),
            "residual_measured_share": text.Measure("registered images with a measured residual", text.as_share),
        },
    ),
    "heterogeneity": _Property(
        "Heterogeneity: variation within an image; 0 is uniform, 0.5 is the variation of all images together",
        {
            "mean": text.Measure("mean over sets", text.as_number(2)),
            "median": text.Measure("median", text.as_number(2)),
            "quantile_05": text.Measure("5th percentile", text.as_number(2)),
            "quantile_95": text.Measure("95th percentile", text.as_number(2)),
            "nearly_uniform_share": text.Measure("sets that are nearly uniform (below 0.05)", text.as_share),
        },
    ),
}
"""What `a2mae.stssd.tag.properties` measures."""
