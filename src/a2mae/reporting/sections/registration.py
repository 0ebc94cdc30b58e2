"""How well the images lie on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from a2mae.reporting import text
from a2mae.reporting.blocks import Block, Section, Table
from a2mae.reporting.charts import chart
from a2mae.reporting.frames import records
from a2mae.reporting.inputs import ReportInputs

if TYPE_CHECKING:
    import pandas as pd


def registration(inputs: ReportInputs) -> Section | None:
    """Shifts per sensor: a chart of every shift and a table of medians."""
    images = inputs.images
    if images is None or not len(images):
        return None
    moved = images[images["registration"] == "registered"]
    figure = go.Figure()
    for sensor, of_sensor in moved.groupby("sensor", sort=True):
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
            "as delivered",
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
                caption="Every registered image by how far it was moved. Zero would be a perfect georeference.",
                alt=f"{len(moved)} shifts; the table below has their medians by sensor.",
                height_px=420,
            ),
        )
    return Section(
        "registration",
        "Registration",
        f"{text.plural(len(moved), 'image')} moved onto the reference of the place at sub-pixel precision, in the same"
        " warp that brings them to their grid: pixels are resampled once.",
        tuple(blocks),
    )


def _median(values: pd.Series[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    numbers = np.asarray(values, float)
    numbers = numbers[np.isfinite(numbers)]
    return float(np.median(numbers)) if numbers.size else None
