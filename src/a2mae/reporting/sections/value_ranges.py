"""Scenes whose values cannot be meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2mae.reporting import text
from a2mae.reporting.blocks import Section, Table
from a2mae.reporting.frames import records
from a2mae.reporting.inputs import ReportInputs
from a2mae.stssd.building.value_ranges import implausible_ranges

if TYPE_CHECKING:
    import pandas as pd


def out_of_range(inputs: ReportInputs) -> pd.DataFrame | None:
    """Such scenes; None without images and their store, or where an earlier version wrote the table."""
    if inputs.images is None or inputs.store is None or not {"dark_value", "bright_value"} <= set(inputs.images):
        return None
    return implausible_ranges(inputs.images, map(inputs.store.sensor, inputs.store.sensors))


def value_ranges(inputs: ReportInputs) -> Section | None:
    """Each such scene; nothing where there is none."""
    scenes = out_of_range(inputs)
    if scenes is None or not len(scenes):
        return None
    table = Table(
        "Scenes with implausible values",
        ("scene", "sensor", "darkest", "brightest"),
        tuple(
            (
                str(row["scene_id"]),
                str(row["sensor"]),
                text.number(row["dark_value"], 4),
                text.number(row["bright_value"], 4),
            )
            for row in records(scenes)
        ),
        numeric=(2, 3),
    )
    advice = ". ".join(f"{one[0].upper()}{one[1:]}" for one in scenes["advice"].unique())
    lead = f"{text.plural(len(scenes), 'scene')} with values that cannot be meant. {advice}."
    return Section("value-ranges", "Values that cannot be meant", lead, (table,))
