"""Sentinel-2 scenes whose dark pixels contradict the offset that was applied to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2mae.reporting import text
from a2mae.reporting.blocks import Section, Table
from a2mae.reporting.frames import records
from a2mae.reporting.inputs import ReportInputs
from a2mae.stssd.building.dark_pixels import ADVICE, suspicious_offsets

if TYPE_CHECKING:
    import pandas as pd


def contradicted_offsets(inputs: ReportInputs) -> pd.DataFrame | None:
    """Suspicious scenes; None without images, or where an earlier version wrote their table."""
    if inputs.images is None or "dark_value" not in inputs.images:
        return None
    return suspicious_offsets(inputs.images)


def dark_pixels(inputs: ReportInputs) -> Section | None:
    """Each suspicious scene; nothing where there is none."""
    scenes = contradicted_offsets(inputs)
    if scenes is None or not len(scenes):
        return None
    table = Table(
        "Scenes with suspicious dark pixels",
        ("scene", "sensor", "baseline", "dark value, reflectance", "away by"),
        tuple(
            (
                str(row["scene_id"]),
                str(row["sensor"]),
                str(row["processing_baseline"]),
                text.number(row["dark_value"], 3),
                text.number(row["away"], 3),
            )
            for row in records(scenes)
        ),
        numeric=(3, 4),
    )
    lead = (
        f"{text.plural(len(scenes), 'scene')}: the dark pixels lie about 0.1 from those of the sensor's other scenes at"
        f" the same places, or below what any surface reflects; {ADVICE}."
    )
    return Section("dark-pixels", "Offsets that dark pixels contradict", lead, (table,))
