"""Materials as reflectance over wavelength, and the covers that are made of them, with their seasons.

A material's reflectance is given at a few wavelengths and joined by straight lines; a band sees its mean under a
Gaussian response of the band's centre and width. So every `Band`, built-in or the user's own, has its response without
a table of its own. The figures are rounded by us to the shapes that any spectral library shows: the chlorophyll edge
near 700 nm, the water absorptions at 1,450 and 1,900 nm, iron's slope in red soils and tiles.

A cover is a mixture of materials whose green part follows the season; a land-cover class is made of several covers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """Compute the reflectance (0–1) of a material as a band sees it.

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
    """Compute the reflectance of each material in each band, `(materials, bands)`."""
    return np.array([[band_response(material, band) for band in bands] for material in materials])


@dataclass(frozen=True, slots=True)
class LandCoverClass:
    """One label of the land-cover truth; `value` is the stored integer, 0 means "not labelled"."""

    value: int
    name: str
    color: tuple[int, int, int]


CLASSES = (
    LandCoverClass(1, "water", (38, 92, 178)),
    LandCoverClass(2, "broadleaf_forest", (56, 142, 60)),
    LandCoverClass(3, "conifer_forest", (18, 82, 44)),
    LandCoverClass(4, "grassland", (170, 205, 100)),
    LandCoverClass(5, "cropland", (240, 214, 90)),
    LandCoverClass(6, "orchard", (196, 120, 170)),
    LandCoverClass(7, "wetland", (92, 178, 170)),
    LandCoverClass(8, "bare", (190, 170, 150)),
    LandCoverClass(9, "built_up", (214, 60, 50)),
    LandCoverClass(10, "road", (70, 70, 70)),
)
"""The labels of the truth, in stored order."""

_VALUE = {entry.name: entry.value for entry in CLASSES}


@dataclass(frozen=True, slots=True)
class Cover:
    """A kind of ground that looks alike everywhere at one date.

    Attributes:
        land_cover: Name of the class it is labelled as.
        ground: Material seen where nothing green grows; `soil` stands for the region's own soil.
        green: Material of the green part.
        low: Green fraction out of season.
        high: Green fraction in season.
        start_day: Day of the northern year when greening is half done.
        end_day: Day of the northern year when drying is half done.
        texture: Relative brightness amplitude of the fine texture.
        patchiness: Amplitude of the green fraction's variation from place to place.
        height_m: Height above ground, which casts a shadow.
    """

    land_cover: str
    ground: str
    green: str = "leaf"
    low: float = 0.0
    high: float = 0.0
    start_day: float = 0.0
    end_day: float = 0.0
    texture: float = 0.08
    patchiness: float = 0.0
    height_m: int = 0

    def green_fraction(self, northern_day: float) -> float:
        """Return the green fraction 0–1 at a day of the year as the northern hemisphere counts it (cyclic)."""
        if self.high == self.low:
            return self.high
        mid, half = (self.start_day + self.end_day) / 2, (self.end_day - self.start_day) / 2
        distance = abs((northern_day - mid + 182.5) % 365.0 - 182.5)
        rise = 1.0 / (1.0 + np.exp((distance - half) / 9.0))
        return float(self.low + (self.high - self.low) * rise)


COVERS: Mapping[str, Cover] = MappingProxyType(
    {
        "river": Cover("water", "turbid_water", texture=0.04),
        "lake": Cover("water", "clear_water", texture=0.04),
        "broadleaf": Cover("broadleaf_forest", "branch", "leaf", 0.08, 0.92, 112, 300, 0.30, 0.12, 16),
        "conifer": Cover("conifer_forest", "branch", "needle", 0.86, 0.92, 100, 300, 0.32, 0.08, 18),
        "meadow": Cover("grassland", "straw", "leaf", 0.40, 0.85, 88, 315, 0.07, 0.30),
        "range": Cover("grassland", "soil_and_straw", "leaf", 0.18, 0.60, 70, 190, 0.10, 0.40),
        "winter_cereal": Cover("cropland", "soil_and_straw", "crop_leaf", 0.12, 0.92, 72, 178, 0.06, 0.18),
        "maize": Cover("cropland", "soil", "crop_leaf", 0.03, 0.93, 160, 262, 0.06, 0.15),
        "rapeseed": Cover("cropland", "soil_and_straw", "flower", 0.35, 0.92, 75, 172, 0.06, 0.15),
        "roots": Cover("cropland", "soil", "crop_leaf", 0.04, 0.90, 145, 280, 0.06, 0.15),
        "fallow": Cover("cropland", "soil", "leaf", 0.05, 0.22, 110, 290, 0.08, 0.20),
        "orchard_tree": Cover("orchard", "branch", "leaf", 0.15, 0.88, 100, 305, 0.22, 0.10, 4),
        "orchard_floor": Cover("orchard", "soil_and_straw", "leaf", 0.15, 0.45, 80, 200, 0.08, 0.25),
        "reed": Cover("wetland", "marsh", "reed", 0.20, 0.80, 125, 285, 0.14, 0.45),
        "rock": Cover("bare", "rock", "leaf", 0.03, 0.10, 100, 280, 0.22, 1.0),
        "sand": Cover("bare", "sand", "leaf", 0.02, 0.12, 80, 240, 0.14, 1.0),
        "tile_roof": Cover("built_up", "tile", texture=0.12, height_m=7),
        "slate_roof": Cover("built_up", "slate", texture=0.12, height_m=9),
        "metal_roof": Cover("built_up", "metal", texture=0.15, height_m=9),
        "yard": Cover("built_up", "concrete", texture=0.16),
        "lawn": Cover("built_up", "straw", "leaf", 0.45, 0.85, 88, 315, 0.10, 0.30),
        "garden_tree": Cover("built_up", "branch", "leaf", 0.20, 0.88, 112, 300, 0.25, 0.10, 6),
        "road": Cover("road", "asphalt", texture=0.08),
        "burned": Cover("bare", "char", "leaf", 0.0, 0.10, 110, 290, 0.18, 0.08),
        "clear_cut": Cover("bare", "brash", "leaf", 0.02, 0.14, 120, 280, 0.18, 0.15),
        "track": Cover("cropland", "soil_and_straw", "leaf", 0.15, 0.35, 90, 300, 0.08, 0.2),
        "hedge": Cover("cropland", "branch", "leaf", 0.12, 0.90, 112, 300, 0.25, 0.1, 4),
    }
)
"""Every cover by name; its position is its code."""

CODE = MappingProxyType({name: code for code, name in enumerate(COVERS)})
"""Code of each cover."""

CLASS_OF_COVER: NDArray[np.uint8] = np.array([_VALUE[cover.land_cover] for cover in COVERS.values()], dtype=np.uint8)
"""Land-cover value of each cover code."""

HEIGHT_OF_COVER: NDArray[np.uint8] = np.array([cover.height_m for cover in COVERS.values()], dtype=np.uint8)
"""Height in whole metres of each cover code."""

_TREES = ("broadleaf", "conifer", "orchard_tree", "garden_tree", "hedge")
_TREE_HEIGHT_M: NDArray[np.float32] = np.array(
    [cover.height_m if name in _TREES else 0 for name, cover in COVERS.items()], dtype=np.float32
)
_SHADED_SHARE = 0.4  # by which a stand is taller where it is darkest, and lower where it is brightest


# A pixel's state in one integer: 5 bits cover, 3 bits green-fraction level, 5 bits brightness level. A whole scene's
# optics is then one table look-up per band.
GREEN_BITS, BRIGHTNESS_BITS = 3, 5
GREEN_LEVELS, BRIGHTNESS_LEVELS = 1 << GREEN_BITS, 1 << BRIGHTNESS_BITS
COVER_SHIFT = GREEN_BITS + BRIGHTNESS_BITS
SHADOW_LEVEL = 0
"""Brightness level of a cast shadow; levels 1–31 are texture, 16 is the mean."""
_MEAN_LEVEL = 16
_SHADOW_BRIGHTNESS = 0.30


def tree_heights_m(states: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Compute the height of the trees at each place, metres; 0 where none stand.

    What a satellite sees of a stand's height is shade: crowns of a taller one shade each other and the ground between
    them more, so it is darker at the same leaf area, in the near infrared above all (the geometric-optical model of Li
    and Strahler, 1986, doi 10.1109/TGRS.1986.289706). So a tree has its cover's usual height, and up to 40 % more where
    the stand is darkest or less where it is brightest; to a pixel of several metres comes the share of it under trees.

    Args:
        states: Of `Landscape.states`.
    """
    level = (states & (BRIGHTNESS_LEVELS - 1)).astype(np.float32)
    bright = (level - _MEAN_LEVEL) / (BRIGHTNESS_LEVELS - 1 - _MEAN_LEVEL)
    heights = np.take(_TREE_HEIGHT_M, states >> COVER_SHIFT) * (1 - np.float32(_SHADED_SHARE) * bright)
    return np.asarray(heights, dtype=np.float32)


_MIXTURES = {
    "soil_and_straw": (("soil", 0.5), ("straw", 0.5)),
    "marsh": (("dark_soil", 0.35), ("clear_water", 0.4), ("straw", 0.25)),
    "brash": (("branch", 0.45), ("soil", 0.35), ("straw", 0.2)),
}


def _ground(name: str, soil: str) -> list[tuple[str, float]]:
    return [(soil if part == "soil" else part, weight) for part, weight in _MIXTURES.get(name, ((name, 1.0),))]


@dataclass(frozen=True, slots=True)
class Character:
    """How a region differs from others of its biome.

    Attributes:
        level: `(covers,)` natural logarithm of each cover's brightness relative to the usual.
        slope: `(covers,)` how that changes from 400 nm to 2,400 nm.
        days: How much later than usual its seasons are.
    """

    level: NDArray[np.float64]
    slope: NDArray[np.float64]
    days: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Character:
        """Draw a region's character: about 9 % in brightness, 6 % across the spectrum, 5 days."""
        return cls(
            level=0.09 * rng.standard_normal(len(COVERS)),
            slope=0.06 * rng.standard_normal(len(COVERS)),
            days=float(5 * rng.standard_normal()),
        )

    def gains(self, bands: Sequence[Band]) -> NDArray[np.float64]:
        """Compute the factor on reflectance, `(covers, bands)`."""
        along = np.array([(band.center_wavelength_nm - 1400.0) / 1000.0 for band in bands])
        return np.asarray(np.exp(self.level[:, None] + self.slope[:, None] * along))


def reflectance_table(
    bands: Sequence[Band], *, soil: str, northern_day: float, character: Character
) -> NDArray[np.float32]:
    """Compute the reflectance of every pixel state at one date.

    Args:
        bands: The sensor's bands.
        soil: The region's soil, a key of `MATERIALS`.
        northern_day: Day of the year as the northern hemisphere counts it (add 182.5 south of the equator).
        character: How the region differs from others.

    Returns:
        `(bands, states)` float32 reflectance.
    """
    materials = sorted(
        {part for cover in COVERS.values() for part, _ in _ground(cover.ground, soil)}
        | {cover.green for cover in COVERS.values()}
    )
    matrix = dict(zip(materials, response_matrix(materials, bands), strict=True))
    level = np.arange(BRIGHTNESS_LEVELS)
    # Levels are amplitudes of -1..1 in units of the cover's texture.
    amplitude = (level - _MEAN_LEVEL) / (BRIGHTNESS_LEVELS - 1 - _MEAN_LEVEL)
    spread = np.linspace(-1.0, 1.0, GREEN_LEVELS)
    gains = character.gains(bands)
    table = np.zeros((len(bands), 1 << 13), dtype=np.float32)
    for code, cover in enumerate(COVERS.values()):
        ground = sum(weight * matrix[part] for part, weight in _ground(cover.ground, soil))
        fraction = cover.green_fraction(northern_day - character.days)
        green = np.clip(fraction * (1 + cover.patchiness * spread), 0.0, 1.0)
        mixed = ((1 - green)[:, None] * ground + green[:, None] * matrix[cover.green]) * gains[code]
        brightness = 1 + cover.texture * amplitude
        brightness[SHADOW_LEVEL] = _SHADOW_BRIGHTNESS
        states = mixed[:, None, :] * brightness[None, :, None]
        first = code << COVER_SHIFT
        table[:, first : first + GREEN_LEVELS * BRIGHTNESS_LEVELS] = states.reshape(-1, len(bands)).T
    return table
