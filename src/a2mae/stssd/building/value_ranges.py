"""Scenes whose decoded values are no reflectance: bytes, percent or counts that were taken for it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

import pandas as pd

from a2mae.sensors import Sensor, Units
from a2mae.words import plural

logger = logging.getLogger(__name__)

BRIGHTEST_TOO_DARK = 0.05
"""One hundredth of the pixels of the brightest band is brighter than this wherever there is land."""
_DARKEST_TOO_BRIGHT = 1.0
"""Even snow and cloud are darker than this in the darkest of red, near and short-wave infrared."""
ADVICE = (
    "reflectance is 0 to 1, and land reaches 0.1 and more: check scale, offset and units of the rule or item (bytes,"
    " percent and counts look like this; scenes of nothing but deep water, too)"
)


def reflecting(sensors: Iterable[Sensor]) -> set[str]:
    """Ids of the sensors whose values are reflectance."""
    return {sensor.id for sensor in sensors if sensor.encoding.units is Units.REFLECTANCE}


def implausible_ranges(images: pd.DataFrame, reflecting: Collection[str]) -> pd.DataFrame:
    """Scenes that are too dark everywhere, or too bright anywhere, to be reflectance.

    Args:
        images: Image table.
        reflecting: Ids of the sensors whose values are reflectance.

    Returns:
        One row per scene: `scene_id`, `sensor`, `dark_value` (least of its images) and `bright_value` (largest).
    """
    looked = images[images["sensor"].isin(list(reflecting))]
    scenes = looked.groupby("scene_id", sort=True, as_index=False).agg(
        sensor=("sensor", "first"), dark_value=("dark_value", "min"), bright_value=("bright_value", "max")
    )
    wrong = (scenes["bright_value"] < BRIGHTEST_TOO_DARK) | (scenes["dark_value"] > _DARKEST_TOO_BRIGHT)
    return scenes[wrong].reset_index(drop=True)


def warn_of_ranges(images: pd.DataFrame, sensors: Iterable[Sensor]) -> None:
    """One warning per sensor with such scenes: a rule that is wrong is wrong for all of its files."""
    for sensor, scenes in implausible_ranges(images, reflecting(sensors)).groupby("sensor", sort=True):
        logger.warning(
            "%s of %s, the first %s, with values from %.4g to %.4g; %s",
            plural(len(scenes), "scene"),
            sensor,
            scenes["scene_id"].iloc[0],
            scenes["dark_value"].min(),
            scenes["bright_value"].max(),
            ADVICE,
        )
