"""Materials as reflectance over wavelength, and what a band sees of them.

A material's reflectance is given at a few wavelengths and joined by straight lines; a band's answer is its mean under a
Gaussian response of the band's centre and width. So every `Band`, built-in or the user's own, has its response without
a table of its own. The figures are rounded by us to the shapes that any spectral library shows: the chlorophyll edge
near 700 nm, the water absorptions at 1,450 and 1,900 nm, iron's slope in red soils and tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from a2mae.sensors import Band

KNOTS_NM = (
    *(400, 443, 490, 560, 610, 665, 705, 740, 783, 842),
    *(945, 1100, 1240, 1450, 1610, 1900, 2100, 2200, 2350, 2500),
)
"""Wavelengths in nanometres at which `MATERIALS` are given."""

_PERCENT = {
    "leaf": (2, 2.5, 3, 8, 5, 3.5, 12, 32, 42, 45, 46, 48, 44, 15, 22, 6, 9, 10, 8, 6),
    "needle": (1.5, 1.8, 2, 4.5, 3, 2.5, 7, 18, 24, 26, 26, 27, 24, 7, 12, 3, 5, 5, 4, 3),
    "crop_leaf": (2, 2.5, 3.2, 8.5, 5.5, 3.8, 13, 36, 48, 52, 53, 54, 50, 17, 24, 7, 10, 11, 9, 7),
    "reed": (2.5, 3, 3.5, 7, 5.5, 4.5, 10, 22, 28, 30, 29, 29, 24, 7, 12, 3, 5, 5, 4, 3),
    "flower": (3, 4, 5.5, 19, 18, 14, 20, 35, 43, 46, 46, 47, 43, 15, 23, 7, 10, 11, 9, 7),
    "straw": (5, 7, 9, 15, 18, 21, 24, 27, 29, 32, 34, 38, 39, 33, 38, 24, 28, 30, 27, 22),
    "branch": (3, 4, 5, 7, 8.5, 10, 12, 14, 15, 17, 18, 21, 22, 18, 20, 12, 14, 14, 12, 10),
    "loam": (5, 7, 10, 15, 18, 21, 23, 25, 27, 30, 32, 36, 39, 35, 42, 33, 38, 38, 35, 30),
    "dark_soil": (3, 4, 5, 7, 9, 10.5, 11.5, 12.5, 13.5, 15, 16, 19, 21, 19, 23, 18, 20, 20, 18, 15),
    "red_soil": (3, 4, 5, 9, 17, 22, 25, 27, 29, 31, 32, 36, 40, 38, 43, 36, 38, 38, 34, 30),
    "rock": (10, 12, 14, 17, 19, 20, 21, 22, 22, 23, 23, 25, 26, 25, 27, 25, 25, 24, 22, 20),
    "sand": (12, 15, 19, 25, 30, 33, 35, 36, 37, 39, 40, 43, 45, 41, 48, 37, 45, 45, 42, 37),
    "clear_water": (3, 3, 2.8, 2.2, 1.2, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0, 0, 0, 0, 0, 0, 0),
    "turbid_water": (4, 5, 6.5, 9, 8.5, 7.5, 6, 3.5, 3, 2, 1.2, 0.6, 0.4, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1),
    "asphalt": (7, 7.5, 8.5, 9.5, 10, 10.5, 11, 11.5, 12, 12.5, 13, 14, 14.5, 15, 15.5, 15, 15.5, 15.5, 15, 15),
    "concrete": (16, 19, 22, 26, 28, 29, 30, 31, 31.5, 32, 33, 34, 35, 33, 35, 32, 34, 33, 31, 30),
    "tile": (5, 6, 7, 11, 19, 24, 26, 28, 29, 30, 31, 34, 37, 38, 40, 38, 39, 39, 38, 36),
    "slate": (8, 9, 10, 11, 11.5, 12, 12, 12, 12.5, 13, 13.5, 14, 15, 15, 16, 15, 16, 16, 16, 16),
    "metal": (24, 27, 30, 33, 34, 34.5, 35, 35, 35, 35, 35, 35, 34, 33, 33, 31, 31, 30, 29, 28),
    "char": (3, 3.3, 3.7, 4.2, 4.7, 5, 5.5, 6, 6.5, 7, 8, 10, 11, 12, 14, 14, 15, 15, 14, 13),
    "cloud": (70, 72, 73, 72, 71, 70, 70, 69, 69, 68, 65, 66, 60, 35, 50, 20, 35, 38, 30, 20),
}

MATERIALS = MappingProxyType({name: tuple(value / 100 for value in values) for name, values in _PERCENT.items()})
"""Reflectance 0–1 of each material at `KNOTS_NM`."""

_FWHM_PER_SIGMA = 2.3548  # 2 sqrt(2 ln 2)


def band_response(material: str, band: Band) -> float:
    """Reflectance (0–1) of a material as a band sees it.

    Args:
        material: A key of `MATERIALS`.
        band: Its centre and full width at half maximum, nanometres, shape a Gaussian response.
    """
    sigma = max(band.full_width_half_max_nm / _FWHM_PER_SIGMA, 1.0)
    nodes = np.linspace(-3.0, 3.0, 61)
    weights = np.exp(-0.5 * nodes**2)
    spectrum = np.interp(band.center_wavelength_nm + nodes * sigma, KNOTS_NM, MATERIALS[material])
    return float(np.sum(spectrum * weights) / np.sum(weights))


def response_matrix(materials: Sequence[str], bands: Sequence[Band]) -> NDArray[np.float64]:
    """Reflectance of each material in each band, `(materials, bands)`."""
    return np.array([[band_response(material, band) for band in bands] for material in materials])
