"""On a simulated Earth the true shifts are known: how far off is what was found?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from a2mae.reporting import text
from a2mae.reporting.blocks import Section, Table
from a2mae.reporting.charts import chart
from a2mae.reporting.frames import records
from a2mae.reporting.inputs import ReportInputs


def registration_errors(images: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Error of every image's position relative to its place's reference.

    A scene whose content lies `true_shift` off its georeference must be moved by minus that; relative to a reference
    that is off itself, by the difference of the two.

    Args:
        images: Image table.
        truth: `scene_id`, `true_shift_x_m`, `true_shift_y_m` per scene.

    Returns:
        The images of known scenes, without references, with `before_m` (error as delivered) and `after_m` (error as
        registered), both in metres.
    """
    known = images.merge(truth[["scene_id", "true_shift_x_m", "true_shift_y_m"]], on="scene_id", how="inner")
    is_reference = known["is_reference"].astype(bool)
    # All sets of a place share one reference.
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
    """Errors against the truth, by sensor, before and after registration."""
    if inputs.true_shifts is None or inputs.images is None:
        return None
    errors = registration_errors(inputs.images, inputs.true_shifts)
    moved = errors[errors["registration"] == "registered"]
    if not len(moved):
        return None
    figure = go.Figure()
    for sensor, rows in moved.groupby("sensor", sort=True):
        figure.add_scatter(
            x=rows["before_m"] / rows["gsd_m"],
            y=rows["after_m"] / rows["gsd_m"],
            mode="markers",
            name=str(sensor),
            text=rows["image_id"],
        )
    figure.update_layout(
        xaxis={"title": "error as delivered, pixels of the sensor", "rangemode": "tozero"},
        yaxis={"title": "error as registered, pixels of the sensor", "rangemode": "tozero"},
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
        f"The simulation knows by how much each scene is off. Relative to the reference of its place, the median image"
        f" was {text.number(before, 2, 'm')} off as delivered and is {text.number(after, 2, 'm')} off as registered.",
        (
            chart(
                "registration-truth",
                figure,
                caption="One point per registered image; good registration lies near the bottom, however far right.",
                alt=f"Median error {text.number(before, 2)} m before and {text.number(after, 2)} m after registration.",
            ),
            table,
        ),
    )
