"""Sentinel-2's offset, decided by the processing baseline, is checked on the dark pixels of what was read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from a2mae.stssd.building.survey import Surveyed
from a2mae.stssd.scenes import Scene

logger = logging.getLogger(__name__)

_OFFSET_RANGE = (0.08, 0.12)  # around the 0.1 that baseline 04.00 moved counts by
_DARKEST_REFLECTANCE = -0.05  # atmospheric correction of deep shadow goes a little below zero, not this far


def warn_of_offsets(surveyed: Sequence[Surveyed], scenes: Mapping[str, Scene]) -> None:
    """One warning per scene whose dark pixels contradict its offset."""
    for scene_id, difference in suspicious_offsets(surveyed, scenes).items():
        logger.warning(
            "Scene %s (%s, baseline %s): its dark pixels lie %.3f from those of the other scenes of the sensor at the"
            " same places, or from zero; an offset of 0.1 applied twice or not at all looks like this: check scale and"
            " offset in the scene table, and ingest.sentinel2_offset",
            scene_id,
            scenes[scene_id].sensor,
            scenes[scene_id].processing_baseline,
            difference,
        )


def suspicious_offsets(surveyed: Sequence[Surveyed], scenes: Mapping[str, Scene]) -> dict[str, float]:
    """Sentinel-2 scenes whose dark pixels are off by about the 0.1 that processing baseline 04.00 moved counts by.

    Returns:
        Scene id → median difference of its dark values to the median of the sensor's other scenes at the same places;
        for scenes that are darker than surfaces can be, whatever the others, their median dark value itself.
    """
    differences: dict[str, list[float]] = {}
    for place in surveyed:
        dark = {i.scene_id: i.dark_value for i in place.images if scenes[i.scene_id].sensor.startswith("sentinel-2")}
        for scene_id, value in dark.items():
            others = [other for key, other in dark.items() if key != scene_id]
            if others:
                differences.setdefault(scene_id, []).append(value - float(np.median(others)))
    darkest: dict[str, list[float]] = {}
    for place in surveyed:
        for image in place.images:
            if scenes[image.scene_id].sensor.startswith("sentinel-2"):
                darkest.setdefault(image.scene_id, []).append(image.dark_value)
    impossible = {key: float(np.median(values)) for key, values in sorted(darkest.items())}
    impossible = {key: value for key, value in impossible.items() if value < _DARKEST_REFLECTANCE}
    found = {scene_id: float(np.median(values)) for scene_id, values in sorted(differences.items())}
    found = {scene_id: value for scene_id, value in found.items() if _OFFSET_RANGE[0] <= abs(value) <= _OFFSET_RANGE[1]}
    return found | {scene_id: value for scene_id, value in impossible.items() if scene_id not in found}
