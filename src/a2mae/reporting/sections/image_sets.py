"""Image sets side by side: what each sensor saw, when, and how far it was moved to lie on the reference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from a2mae.reporting import text
from a2mae.reporting.blocks import Arrow, Gallery, Picture, Section, Strip
from a2mae.reporting.frames import records
from a2mae.reporting.inputs import ReportInputs, StoreReader
from a2mae.reporting.pictures import display_bands, stretch, to_data_uri

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
        f"{text.plural(len(strips), 'set')} of {text.count(len(inputs.sets))}, spread over the kinds. Every picture of"
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
