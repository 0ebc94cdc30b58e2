"""Values that cannot be meant: offsets and ranges checked against what a sensor can deliver.

Sentinel-2's offset, decided by the processing baseline, is checked on the dark pixels of what was read.

Scenes whose decoded values cannot be meant: bytes taken for reflectance, or all rounded to one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from a2mae.errors import plural
from a2mae.sensors import Sensor, Units

logger = logging.getLogger(__name__)

_OFFSET_RANGE = (0.08, 0.12)  # around the 0.1 that baseline 04.00 moved counts by
_DARKEST_REFLECTANCE = -0.05  # atmospheric correction of deep shadow goes a little below zero, not this far
OFFSET_ADVICE = (
    "an offset of 0.1 applied twice or not at all looks like this: check scale and offset in the scene table, and"
    " ingest.sentinel2_offset"
)


def warn_of_offsets(images: pd.DataFrame) -> None:
    """One warning per scene whose dark pixels contradict its offset."""
    for scene in suspicious_offsets(images).itertuples():
        logger.warning(
            "Scene %s (%s, baseline %s): its dark pixels lie %.3f from those of the other scenes of the sensor at the"
            " same places, or from zero; %s",
            scene.scene_id,
            scene.sensor,
            scene.processing_baseline,
            scene.away,
            OFFSET_ADVICE,
        )


def suspicious_offsets(images: pd.DataFrame) -> pd.DataFrame:
    """Sentinel-2 scenes whose dark pixels are off by about the 0.1 that processing baseline 04.00 moved counts by.

    Args:
        images: Image table.

    Returns:
        One row per scene: `scene_id`, `sensor`, `processing_baseline`, `dark_value` (median of its images,
        reflectance) and `away`: median difference of its dark values to the median of the sensor's other scenes at the
        same places; for scenes that are darker than surfaces can be, whatever the others, their dark value itself.
    """
    columns = ["scene_id", "location_id", "sensor", "processing_baseline", "dark_value"]
    looked = images.loc[images["sensor"].str.startswith("sentinel-2"), columns]
    looked = looked.drop_duplicates(["scene_id", "location_id"]).dropna(subset="dark_value")
    groups = np.asarray(looked.groupby(["sensor", "location_id"], sort=False).ngroup(), np.int64)
    looked = looked.assign(away=_from_others(looked["dark_value"].to_numpy(np.float64), groups))
    scenes = looked.groupby("scene_id", sort=True, as_index=False).agg(
        sensor=("sensor", "first"),
        processing_baseline=("processing_baseline", "first"),
        dark_value=("dark_value", "median"),
        away=("away", "median"),
    )
    differs = scenes["away"].abs().between(*_OFFSET_RANGE)
    impossible = (scenes["dark_value"] < _DARKEST_REFLECTANCE) & ~differs
    away = scenes["away"].mask(impossible, scenes["dark_value"])
    return scenes.assign(away=away)[differs | impossible].reset_index(drop=True)


def _from_others(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Every value less the median of the others of its group; NaN where it is alone."""
    order = np.lexsort((values, groups))
    sorted_values, sorted_groups = values[order], groups[order]
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    count = np.diff(starts, append=len(values))
    first, others = np.repeat(starts, count), np.repeat(count - 1, count)
    rank = np.arange(len(values)) - first

    def without_itself(place: NDArray[np.int64]) -> NDArray[np.float64]:
        place = place + (place >= rank)  # of the group in order, itself left out
        return np.asarray(sorted_values[np.minimum(first + place, len(values) - 1)])

    middle = (without_itself(np.maximum(others - 1, 0) // 2) + without_itself(others // 2)) / 2
    result = np.full(len(values), np.nan)
    result[order] = np.where(others > 0, sorted_values - middle, np.nan)
    return result


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
RANGE_ADVICE = f"{TOO_DARK}: check scale, offset and units of the rule or item"
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
    scenes["advice"] = np.where(flat, FLAT_ADVICE, RANGE_ADVICE)
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
