"""Whether a raster's values can be those that an encoder was taught; a wrong scale or offset shows here first."""

from __future__ import annotations

import logging

import numpy as np

from a2mae.scenes import BandAsset
from a2mae.sensors import Units
from a2mae.tasks.datasets.inputs import InputPlan
from a2mae.tasks.inference.rasters import Floats, Raster, sample_of

logger = logging.getLogger(__name__)

FARTHEST_MEDIAN = 4.0
"""Deviations from the taught mean: half of the pixels of a place lie beyond it for no land cover."""
DARKEST_REFLECTANCE = -0.02
"""Atmospheric correction leaves water and shadows a little below zero, not below this."""
MOST_BELOW = 0.1
"""Share of a band's pixels that may be darker than that."""


def warn_of_values(raster: Raster, plan: InputPlan, advice: str) -> None:
    """One warning where what an encoder would be fed is not what it was taught, with the bands and what was seen.

    Looks at one window in which something was seen; a raster of which nothing is seen there is passed over.

    Args:
        raster: With the plan's bands in its order.
        plan: Bands and normalisation; it knows the raster's sensor.
        advice: What to change, the end of a sentence.
    """
    seen = sample_of(raster)
    if not seen.size:
        return
    found = strange_bands(raster, plan, seen)
    if found:
        logger.warning(
            "%s: %s. Decoded by scale and offset %s; %s",
            raster.name,
            "; ".join(found),
            ", ".join(f"{asset.scale:g} and {asset.offset:g}" for asset in _distinct(raster)),
            advice,
        )


def strange_bands(raster: Raster, plan: InputPlan, seen: Floats) -> list[str]:
    """What is wrong with each band, in words; empty where nothing is.

    Args:
        raster: Whose values they are.
        plan: Bands and normalisation.
        seen: `(C, N)` physical values of seen pixels, N at least 1.
    """
    index = plan.sensors.index(raster.sensor)
    found = []
    for values, asset, mean, std in zip(seen, raster.layers[0].assets, plan.mean[index], plan.std[index], strict=True):
        median = float(np.median(values))
        deviations = (median - mean) / std
        below = float(np.mean(values < DARKEST_REFLECTANCE))
        if asset.units is Units.REFLECTANCE and below > MOST_BELOW:
            found.append(f"{below:.0%} of {asset.band} is below {DARKEST_REFLECTANCE}, where no reflectance is")
        elif abs(deviations) > FARTHEST_MEDIAN:
            found.append(
                f"the median of {asset.band} is {median:.4g}, {deviations:+.1f} deviations from the mean {mean:.4g}"
                " that the encoder was taught"
            )
    return found


def _distinct(raster: Raster) -> list[BandAsset]:
    """One asset of each scale and offset, in their order."""
    return list({(asset.scale, asset.offset): asset for layer in raster.layers for asset in layer.assets}.values())
