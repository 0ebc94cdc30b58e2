"""The sky over a scene: the sun's position, clouds and their shadows, haze, and light on slopes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from a2mae.simulate.noise import Floats, Lattice, Points, generator, smooth_field

_STEP_M = 60.0  # of the cloud field
_HAZE_STEP_M = 240.0


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the sun stands.

    Attributes:
        zenith_deg: Angle from the vertical.
        azimuth_deg: Clockwise from north.
    """

    zenith_deg: float
    azimuth_deg: float

    @property
    def shadow_m(self) -> tuple[float, float]:
        """East and north extent of the shadow of something one metre high."""
        length = float(np.tan(np.radians(min(self.zenith_deg, 80.0))))
        azimuth = np.radians(self.azimuth_deg)
        return -length * float(np.sin(azimuth)), -length * float(np.cos(azimuth))


def sun_position(lat_deg: float, when: datetime, solar_hour: float) -> Sun:
    """Compute the sun's position by the standard formulas (error below 1 degree)."""
    day = when.timetuple().tm_yday
    declination = np.radians(23.44) * np.sin(2 * np.pi * (day - 81) / 365.0)
    lat = np.radians(lat_deg)
    hour = np.radians(15.0 * (solar_hour - 12.0))
    up = np.sin(lat) * np.sin(declination) + np.cos(lat) * np.cos(declination) * np.cos(hour)
    east = -np.cos(declination) * np.sin(hour)
    north = np.cos(lat) * np.sin(declination) - np.sin(lat) * np.cos(declination) * np.cos(hour)
    return Sun(float(np.degrees(np.arccos(up))), float(np.degrees(np.arctan2(east, north)) % 360.0))


def illumination(elevation_m: Floats, step_m: float, sun: Sun) -> Floats:
    """Compute the light on each lattice node relative to level ground, 0.45–1.4; row 0 lies in the south.

    Surface reflectance products keep part of the slopes' light and shade; the exponent stands for that part.
    """
    dy, dx = np.gradient(elevation_m, step_m)
    zenith, azimuth = np.radians(sun.zenith_deg), np.radians(sun.azimuth_deg)
    facing = np.cos(zenith) - np.sin(zenith) * (dx * np.sin(azimuth) + dy * np.cos(azimuth))
    ratio = np.maximum(facing / np.sqrt(1 + dx**2 + dy**2), 0.05) / np.cos(zenith)
    return np.asarray(np.clip(ratio**0.8, 0.45, 1.4), dtype=np.float32)


@dataclass(frozen=True)
class Sky:
    """One scene's clouds and haze.

    Attributes:
        clouds: Lattice of one field: positive where cloud is.
        haze: Lattice of one field of zero mean and unit variance.
        offset_m: East and north from a cloud to its shadow.
    """

    clouds: Lattice | None
    haze: Lattice
    offset_m: tuple[float, float]

    def cover(self, points: Points) -> tuple[Floats, Floats]:
        """Return opacity of cloud and depth of shadow at the places, both `(H, W)` 0–1."""
        if self.clouds is None:
            return np.zeros(points.shape, np.float32), np.zeros(points.shape, np.float32)
        cloud = _opacity(self.clouds.sample(points)[0])
        behind = Points(points.x_m - self.offset_m[0], points.y_m - self.offset_m[1])
        return cloud, _opacity(self.clouds.sample(behind)[0]) * (1 - cloud)


def _opacity(field: Floats) -> Floats:
    ramp = np.clip(field / 0.45, 0.0, 1.0)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), dtype=np.float32)


def make_sky(seed: int, scene_id: str, sun: Sun, *, cloud_share: float, half_side_m: float) -> Sky:
    """Draw a scene's sky.

    Args:
        seed: The world's seed.
        scene_id: Which with the seed decides the clouds.
        sun: For the shadows' direction.
        cloud_share: Share 0–1 of the scene under cloud.
        half_side_m: Half the side of the square seen, metres.
    """
    height_m = float(generator(seed, scene_id, "cloud height").uniform(700, 1600))
    offset = (sun.shadow_m[0] * height_m, sun.shadow_m[1] * height_m)
    reach = 1.25 * half_side_m + 800.0  # as far as any grid looks
    clouds = None
    if cloud_share > 0:
        nodes = 2 * int(np.ceil((reach + max(map(abs, offset))) / _STEP_M)) + 1
        field = smooth_field(generator(seed, scene_id, "clouds"), nodes, 1500 / _STEP_M, roughness=0.35)
        inner = int(np.ceil(half_side_m / _STEP_M))
        middle = slice(nodes // 2 - inner, nodes // 2 + inner + 1)
        # Half opacity, where the field is 0.22, counts as the cloud's edge.
        level = np.quantile(field[middle, middle], 1 - min(cloud_share, 1.0)) - 0.22
        if cloud_share >= 1.0:
            level = field.min() - 1.0
        clouds = Lattice((field - np.float32(level))[None], _STEP_M)
    nodes = 2 * int(np.ceil(reach / _HAZE_STEP_M)) + 1
    haze = smooth_field(generator(seed, scene_id, "haze"), nodes, 6000 / _HAZE_STEP_M)
    return Sky(clouds, Lattice(haze[None], _HAZE_STEP_M), offset)


def nodata_edge(points: Points, rng: np.random.Generator, *, half_side_m: float, share: float) -> NDArray[np.bool_]:
    """Find the places beyond a slanted swath edge.

    Args:
        points: The places.
        rng: Draws on which side the edge lies; its slant is that of a sun-synchronous orbit, about 12 degrees.
        half_side_m: Half the side of the square seen.
        share: Share of the square that lies beyond, about.

    Returns:
        `(H, W)` True where nothing was seen.
    """
    x, y = points.planes()
    slant = np.float32(np.tan(np.radians(float(rng.uniform(9, 15)))))
    side = 1.0 if rng.uniform() < 0.5 else -1.0
    limit = half_side_m * (1 - 2 * share)
    return np.asarray(np.broadcast_to(side * (x - slant * y) > limit, points.shape))
