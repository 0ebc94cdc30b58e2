"""What can lie on the ground: land-cover classes, the finer covers they are made of, and their seasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from a2mae.sensors import Band
from a2mae.simulate.ground.spectra import response_matrix


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
        """Green fraction 0–1 at a day of the year as the northern hemisphere counts it (cyclic)."""
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

# A pixel's state in one integer: 5 bits cover, 3 bits green-fraction level, 5 bits brightness level. A whole scene's
# optics is then one table look-up per band.
GREEN_BITS, BRIGHTNESS_BITS = 3, 5
GREEN_LEVELS, BRIGHTNESS_LEVELS = 1 << GREEN_BITS, 1 << BRIGHTNESS_BITS
COVER_SHIFT = GREEN_BITS + BRIGHTNESS_BITS
SHADOW_LEVEL = 0
"""Brightness level of a cast shadow; levels 1–31 are texture, 16 is the mean."""
_MEAN_LEVEL = 16
_SHADOW_BRIGHTNESS = 0.30

_MIXTURES = {
    "soil_and_straw": (("soil", 0.5), ("straw", 0.5)),
    "marsh": (("dark_soil", 0.35), ("clear_water", 0.4), ("straw", 0.25)),
    "brash": (("branch", 0.45), ("soil", 0.35), ("straw", 0.2)),
}


def _ground(name: str, soil: str) -> list[tuple[str, float]]:
    return [(soil if part == "soil" else part, weight) for part, weight in _MIXTURES.get(name, ((name, 1.0),))]


@dataclass(frozen=True, slots=True)
class Character:
    """How a region differs from others of its kind: no forest is quite like another.

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

    @classmethod
    def usual(cls) -> Character:
        """No difference."""
        return cls(np.zeros(len(COVERS)), np.zeros(len(COVERS)), 0.0)

    def gains(self, bands: Sequence[Band]) -> NDArray[np.float64]:
        """Factor on reflectance, `(covers, bands)`."""
        along = np.array([(band.center_wavelength_nm - 1400.0) / 1000.0 for band in bands])
        return np.asarray(np.exp(self.level[:, None] + self.slope[:, None] * along))


def reflectance_table(
    bands: Sequence[Band], *, soil: str, northern_day: float, character: Character
) -> NDArray[np.float32]:
    """Reflectance of every pixel state at one date.

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
