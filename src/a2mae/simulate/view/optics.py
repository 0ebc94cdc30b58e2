"""From the ground's fine grid to a sensor's pixels: point spread, then noise and rounding."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from a2mae.simulate.noise import Floats

PSF_SIGMA_PX = 0.42
"""Blur of optics and motion, in sensor pixels, beside the pixel's own square aperture; the modulation at the Nyquist
frequency is then 0.27, as these instruments have."""


def kernel(factor: int) -> NDArray[np.float32]:
    """Weights of the fine pixels along one axis: the aperture (box) blurred by the optics (Gaussian).

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
    """Fine pixels that `reduce` needs beyond the sensor's grid on every side."""
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
