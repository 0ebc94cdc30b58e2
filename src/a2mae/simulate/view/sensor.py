"""See the ground through a sensor's optics, and draw the provider's masks with the provider's errors.

The masks miss thin cloud, widen its edges and mistake some ground, as real ones do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from a2mae.simulate.noise import Floats

PSF_SIGMA_PX = 0.42
"""Blur of optics and motion, in sensor pixels, beside the pixel's own square aperture; the modulation at the Nyquist
frequency is then 0.27, as these instruments have."""


def kernel(factor: int) -> NDArray[np.float32]:
    """Compute the weights of the fine pixels along one axis: the aperture (box) blurred by the optics (Gaussian).

    Args:
        factor: Fine pixels per sensor pixel.

    Returns:
        `factor + 2 * halo(factor)` weights, symmetric about the sensor pixel's centre, sum 1.
    """
    offsets = np.arange(factor + 2 * halo(factor)) - (factor - 1) / 2 - halo(factor)
    box = np.arange(factor) - (factor - 1) / 2
    weights = np.exp(-0.5 * ((offsets[:, None] - box[None, :]) / (PSF_SIGMA_PX * factor)) ** 2).sum(axis=1)
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def halo(factor: int) -> int:
    """Return how many fine pixels `reduce` needs beyond the sensor's grid on every side."""
    return math.ceil(2 * PSF_SIGMA_PX * factor)


def reduce(fine: Floats, factor: int) -> Floats:
    """See a fine image through a coarser sensor.

    Args:
        fine: `(factor * H + 2 * halo, factor * W + 2 * halo)`.
        factor: Fine pixels per sensor pixel.

    Returns:
        `(H, W)`.
    """
    weights, margin = kernel(factor), halo(factor)
    height, width = (fine.shape[0] - 2 * margin) // factor, (fine.shape[1] - 2 * margin) // factor
    rows = np.zeros((height, fine.shape[1]), dtype=np.float32)
    for index, weight in enumerate(weights):
        rows += weight * fine[index : index + factor * height : factor][:height]
    result = np.zeros((height, width), dtype=np.float32)
    for index, weight in enumerate(weights):
        result += weight * rows[:, index : index + factor * width : factor][:, :width]
    return result


_CLEARLY_CLOUD, _PROBABLY_CLOUD, _THIN_CLOUD, _SHADOW = 0.65, 0.35, 0.2, 0.35


def _widened(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_dilation(mask, iterations=pixels)) if mask.any() else mask


def _fumbled(field: Floats, rng: np.random.Generator) -> Floats:
    """Add the classifier's error of 0.06 to the true opacity."""
    return field + np.float32(0.06) * rng.standard_normal(field.shape, dtype=np.float32) * (field > 0)


def sentinel2_scl(
    red: Floats,
    nir: Floats,
    *,
    cloud: Floats,
    shadow: Floats,
    unseen: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Draw the Sentinel-2 scene classification.

    Values: 0 no data, 2 dark, 3 shadow, 4 vegetation, 5 bare, 6 water, 8 and 9 cloud, 10 cirrus.

    Args:
        red: Reflectance at 665 nm on the 20 m grid.
        nir: Reflectance at 865 nm.
        cloud: True opacity 0–1.
        shadow: True depth of shadow 0–1.
        unseen: Where there is no data.
        rng: Draws the classifier's errors.
    """
    ndvi = (nir - red) / np.maximum(nir + red, 1e-3)
    scl = np.where(ndvi > 0.4, 4, 5).astype(np.uint8)
    scl[(nir < 0.09) & (ndvi < 0.25)] = 6
    scl[(nir < 0.09) & (ndvi >= 0.25)] = 2
    opacity, depth = _fumbled(cloud, rng), _fumbled(shadow, rng)
    scl[_widened(depth > _SHADOW, 1)] = 3
    scl[opacity > _THIN_CLOUD] = 10
    scl[_widened(opacity > _PROBABLY_CLOUD, 1)] = 8
    scl[opacity > _CLEARLY_CLOUD] = 9
    scl[unseen] = 0
    return scl


def landsat_qa_pixel(
    red: Floats,
    nir: Floats,
    *,
    cloud: Floats,
    shadow: Floats,
    unseen: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.uint16]:
    """Draw the Landsat Collection 2 QA_PIXEL.

    Bits: 0 fill, 1 dilated cloud, 2 cirrus, 3 cloud, 4 shadow, 6 clear, 7 water, 8–15 confidences.

    Args:
        red: Reflectance at 655 nm on the 30 m grid.
        nir: Reflectance at 865 nm.
        cloud: True opacity 0–1.
        shadow: True depth of shadow 0–1.
        unseen: Where there is no data.
        rng: Draws the classifier's errors.
    """
    opacity, depth = _fumbled(cloud, rng), _fumbled(shadow, rng)
    is_cloud = opacity > _PROBABLY_CLOUD
    dilated = _widened(is_cloud, 2) & ~is_cloud
    cirrus = (opacity > _THIN_CLOUD) & ~is_cloud
    is_shadow = _widened(depth > _SHADOW, 1) & ~is_cloud
    water = (nir < 0.09) & (nir < red * 1.6)
    clear = ~(is_cloud | dilated)
    # Confidences are two bits: 1 low, 2 medium, 3 high; snow is always low.
    cloud_confidence = np.where(is_cloud, 3, np.where(opacity > 0.25, 2, 1))
    qa = (dilated << 1) | (cirrus << 2) | (is_cloud << 3) | (is_shadow << 4) | (clear << 6) | (water << 7)
    qa = qa | (cloud_confidence << 8) | (np.where(is_shadow, 3, 1) << 10) | (1 << 12) | (np.where(cirrus, 3, 1) << 14)
    return np.where(unseen, 1, qa).astype(np.uint16)
