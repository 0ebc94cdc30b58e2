"""Registration: how far images were moved, and on a simulated Earth how large the error is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Block, Section, Table, chart
from a2mae.report.inputs import ReportInputs, drawn, how_many, records


def registration(inputs: ReportInputs) -> Section | None:
    """Show every shift in a chart, and medians per sensor in a table."""
    images = inputs.images
    if images is None or not len(images):
        return None
    moved = images[images["registration"] == "registered"]
    figure = go.Figure()
    for sensor, of_sensor in drawn(moved).groupby("sensor", sort=True):
        figure.add_scatter(
            x=of_sensor["shift_x_m"],
            y=of_sensor["shift_y_m"],
            mode="markers",
            name=str(sensor),
            text=[f"{row['image_id']}<br>{text.day(row['datetime'])}" for row in records(of_sensor)],
        )
    figure.update_layout(
        xaxis={"title": "moved east, m", "zeroline": True},
        yaxis={"title": "moved north, m", "scaleanchor": "x", "zeroline": True},
    )
    rows = []
    for sensor, of_sensor in images.groupby("sensor", sort=True):
        states = of_sensor["registration"].value_counts()
        of_moved = of_sensor[of_sensor["registration"] == "registered"]
        lengths = np.hypot(of_moved["shift_x_m"].astype(float), of_moved["shift_y_m"].astype(float))
        rows.append(
            (
                str(sensor),
                text.count(len(of_sensor)),
                text.count(states.get("reference", 0)),
                text.count(states.get("registered", 0)),
                text.count(states.get("nominal", 0)),
                text.number(_median(lengths), 2),
                text.number(_median(of_moved["residual_px"]), 3),
                text.number(_median(of_moved["registration_quality"]), 2),
            )
        )
    table = Table(
        "Registration by sensor",
        (
            "sensor",
            "images",
            "reference",
            "registered",
            "not registered",
            "median shift, m",
            "median residual, px",
            "median quality",
        ),
        tuple(rows),
        numeric=(1, 2, 3, 4, 5, 6, 7),
    )
    blocks: list[Block] = [table]
    if len(moved):
        blocks.insert(
            0,
            chart(
                "shifts",
                figure,
                caption="Every registered image by how far it was moved; 0 would be a perfect georeference."
                + how_many(moved),
                alt=f"{len(moved)} shifts; the table below has their medians by sensor.",
                height_px=420,
            ),
        )
    return Section(
        "registration",
        "Registration",
        f"{plural(len(moved), 'image')} registered to the reference of the location at sub-pixel precision, in the"
        " same warp that brings them to their grid: pixels are resampled once.",
        tuple(blocks),
    )


def _median(values: pd.Series[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    numbers = np.asarray(values, float)
    numbers = numbers[np.isfinite(numbers)]
    return float(np.median(numbers)) if numbers.size else None


def registration_errors(images: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Compute the error of every image's position relative to the reference of its location.

    A scene that is off by `true_shift` must be moved by minus that; relative to a reference that is off itself, by the
    difference of the two.

    Args:
        images: Image table.
        truth: `scene_id`, `true_shift_x_m`, `true_shift_y_m` per scene.

    Returns:
        The images of known scenes, without references, with `before_m` (error as delivered) and `after_m` (error as
        registered), both in metres.
    """
    known = images.merge(truth[["scene_id", "true_shift_x_m", "true_shift_y_m"]], on="scene_id", how="inner")
    is_reference = known["is_reference"].astype(bool)
    # All sets of a location share one reference.
    reference = known[is_reference].drop_duplicates("location_id").set_index("location_id")
    others = known[~is_reference & known["location_id"].isin(reference.index)]
    wanted = {}
    for axis in ("x", "y"):
        column = f"true_shift_{axis}_m"
        wanted[axis] = others["location_id"].map(reference[column]).to_numpy(float) - others[column].to_numpy(float)
    found = {axis: others[f"shift_{axis}_m"].fillna(0).to_numpy(float) for axis in ("x", "y")}
    return others.assign(
        before_m=np.hypot(wanted["x"], wanted["y"]),
        after_m=np.hypot(found["x"] - wanted["x"], found["y"] - wanted["y"]),
    )


def registration_truth(inputs: ReportInputs) -> Section | None:
    """Show the errors against the simulated truth, by sensor, before and after registration."""
    if inputs.true_shifts is None or inputs.images is None:
        return None
    errors = registration_errors(inputs.images, inputs.true_shifts)
    moved = errors[errors["registration"] == "registered"]
    if not len(moved):
        return None
    figure = go.Figure()
    for sensor, rows in drawn(moved).groupby("sensor", sort=True):
        figure.add_scatter(
            x=rows["before_m"] / rows["gsd_m"],
            y=rows["after_m"] / rows["gsd_m"],
            mode="markers",
            name=str(sensor),
            text=rows["image_id"],
        )
    figure.update_layout(
        xaxis={"title": "error before registration, pixels of the sensor", "rangemode": "tozero"},
        yaxis={"title": "error after registration, pixels of the sensor", "rangemode": "tozero"},
    )
    summary = [
        {
            "sensor": sensor,
            "count": len(rows),
            "before": float(rows["before_m"].median()),
            "after": float(rows["after_m"].median()),
            "after_px": float((rows["after_m"] / rows["gsd_m"]).median()),
            "worst_px": float((rows["after_m"] / rows["gsd_m"]).quantile(0.95)),
        }
        for sensor, rows in moved.groupby("sensor", sort=True)
    ]
    table = Table(
        "Error against the true shifts, of registered images",
        ("sensor", "images", "median before, m", "median after, m", "median after, px", "95th percentile after, px"),
        tuple(
            (
                str(row["sensor"]),
                text.count(row["count"]),
                text.number(row["before"], 2),
                text.number(row["after"], 2),
                text.number(row["after_px"], 3),
                text.number(row["worst_px"], 3),
            )
            for row in records(pd.DataFrame(summary))
        ),
        numeric=(1, 2, 3, 4, 5),
    )
    before, after = float(moved["before_m"].median()), float(moved["after_m"].median())
    return Section(
        "registration-truth",
        "Registration against the truth",
        f"The true shift of each scene is known. Relative to the reference of its location, the median error of an"
        f" image was {text.number(before, 2, 'm')} before registration and is {text.number(after, 2, 'm')} after it.",
        (
            chart(
                "registration-truth",
                figure,
                caption="One point per registered image: the lower, the better." + how_many(moved),
                alt=f"Median error {text.number(before, 2)} m before and {text.number(after, 2)} m after registration.",
            ),
            table,
        ),
    )
