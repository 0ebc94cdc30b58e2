"""Scenes whose decoded values cannot be meant: bytes taken for reflectance, or all rounded to one."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import pandas as pd

from a2mae.sensors import Sensor, Units
from a2mae.words import plural

logger = logging.getLogger(__name__)

BRIGHTEST_TOO_DARK = 0.05
"""One hundredth of the pixels of the brightest band is brighter than this wherever there is land."""
_DARKEST_TOO_BRIGHT = 1.0
"""Even snow and cloud are darker than this in the darkest of red, near and short-wave infrared."""
_BRIGHTEST_TOO_BRIGHT = 3.0
"""Sunlit snow on a slope and glint stay below it."""
_FEWEST_STEPS = 4
"""Of the store's encoding, between a scene's darkest and its brightest percent."""
TOO_DARK = (
    "reflectance is 0 to 1, and land reaches 0.1 and more (bytes, percent and counts look like this; scenes of nothing"
    " but deep water, too)"
)
ADVICE = f"{TOO_DARK}: check scale, offset and units of the rule or item"
FLAT_ADVICE = (
    "the store tells hardly any of these values apart: check the rule's scale and offset against the scale of the"
    " sensor's encoding (nothing but open water or cloud looks like this, too)"
)


def implausible_ranges(images: pd.DataFrame, sensors: Iterable[Sensor]) -> pd.DataFrame:
    """Scenes that cannot be the reflectance they are called, or that the store holds as next to one value.

    Args:
        images: Image table.
        sensors: Those of the images; others are passed over.

    Returns:
        One row per scene: `scene_id`, `sensor`, `dark_value` (least of its images), `bright_value` (largest) and
        `advice`: what to check.
    """
    known = {sensor.id: sensor.encoding for sensor in sensors}
    reflecting = [name for name, encoding in known.items() if encoding.units is Units.REFLECTANCE]
    looked = images[images["sensor"].isin(list(known))]
    scenes = looked.groupby("scene_id", sort=True, as_index=False).agg(
        sensor=("sensor", "first"), dark_value=("dark_value", "min"), bright_value=("bright_value", "max")
    )
    steps = scenes["sensor"].map({name: abs(encoding.scale) for name, encoding in known.items()}).astype(float)
    flat = scenes["bright_value"] - scenes["dark_value"] < _FEWEST_STEPS * steps
    wrong = (scenes["bright_value"] < BRIGHTEST_TOO_DARK) | (scenes["dark_value"] > _DARKEST_TOO_BRIGHT)
    wrong |= scenes["bright_value"] > _BRIGHTEST_TOO_BRIGHT
    wrong &= scenes["sensor"].isin(reflecting)
    scenes["advice"] = np.where(flat, FLAT_ADVICE, ADVICE)
    return scenes[wrong | flat].reset_index(drop=True)


def warn_of_ranges(images: pd.DataFrame, sensors: Iterable[Sensor]) -> None:
    """One warning per sensor and kind: a rule that is wrong is wrong for all of its files."""
    for (sensor, advice), scenes in implausible_ranges(images, sensors).groupby(["sensor", "advice"], sort=True):
        logger.warning(
            "%s of %s, the first %s, with values from %.4g to %.4g; %s",
            plural(len(scenes), "scene"),
            sensor,
            scenes["scene_id"].iloc[0],
            scenes["dark_value"].min(),
            scenes["bright_value"].max(),
            advice,
        )
