"""Sentinel-2's offset, decided by the processing baseline, is checked on the dark pixels of what was read."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_OFFSET_RANGE = (0.08, 0.12)  # around the 0.1 that baseline 04.00 moved counts by
_DARKEST_REFLECTANCE = -0.05  # atmospheric correction of deep shadow goes a little below zero, not this far
ADVICE = (
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
            ADVICE,
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
