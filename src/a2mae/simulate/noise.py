"""Seeded noise: smooth fields on a lattice, and textures that repeat far apart.

Every generator is keyed by the seed and by names, so that adding a region or a scene never changes another one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2mae.errors import InputError

Floats = NDArray[np.float32]


def generator(seed: int, *keys: str) -> np.random.Generator:
    """Make a random generator that depends on the seed and the names only."""
    return np.random.default_rng([seed, *(zlib.crc32(key.encode()) for key in keys)])


def smooth_field(rng: np.random.Generator, size: int, wavelength: float, *, roughness: float = 0.0) -> Floats:
    """Draw periodic Gaussian noise of zero mean and unit variance.

    Args:
        rng: Source of randomness.
        size: Cells per side.
        wavelength: Typical distance between hills, in cells.
        roughness: Share 0–1 of power in a tail of finer structure, which makes coast lines ragged.

    Returns:
        `(size, size)` float32.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    fy = np.fft.fftfreq(size)[:, None]
    fx = np.fft.rfftfreq(size)[None, :]
    frequency = np.hypot(fy, fx) * wavelength
    gain = np.exp(-0.5 * (frequency / 0.55) ** 2)
    if roughness > 0:
        gain = gain + roughness / (1.0 + frequency**2)
    gain[0, 0] = 0.0
    field = np.fft.irfft2(spectrum * gain, s=(size, size))
    return np.asarray(field / field.std(), dtype=np.float32)


@dataclass(frozen=True)
class Points:
    """Places at which the ground is sampled, local metres (x east, y north of the region's centre).

    Attributes:
        x_m: `(W,)` for an axis-aligned grid, else `(H, W)`.
        y_m: `(H,)` for an axis-aligned grid, else `(H, W)`.
    """

    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]

    @property
    def separable(self) -> bool:
        """Whether the places are an axis-aligned grid given by its two axes."""
        return self.x_m.ndim == 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        if self.separable:
            return len(self.y_m), len(self.x_m)
        return self.x_m.shape[0], self.x_m.shape[1]

    def rows(self, first: int, last: int) -> Points:
        """Return the places of a strip of rows."""
        return Points(self.x_m if self.separable else self.x_m[first:last], self.y_m[first:last])

    def planes(self) -> tuple[Floats, Floats]:
        """Return x and y as float32 arrays that broadcast to `shape`."""
        x, y = self.x_m.astype(np.float32), self.y_m.astype(np.float32)
        return (x[None, :], y[:, None]) if self.separable else (x, y)


@dataclass(frozen=True)
class Lattice:
    """Fields known at the nodes of a square lattice around the region's centre, linear between them.

    Attributes:
        fields: `(fields, n, n)` float32, row 0 in the south.
        step_m: Distance of nodes.
    """

    fields: Floats
    step_m: float

    @property
    def origin_m(self) -> float:
        """Local x and y of node 0."""
        return -(int(self.fields.shape[1]) - 1) / 2 * self.step_m

    @property
    def axis_m(self) -> NDArray[np.float64]:
        """Local x (or y) of the nodes."""
        return self.origin_m + self.step_m * np.arange(self.fields.shape[1], dtype=np.float64)

    def _split(self, values: NDArray[np.float64]) -> tuple[NDArray[np.intp], Floats]:
        position = (values - self.origin_m) / self.step_m
        if position.size and (position.min() < 0 or position.max() > self.fields.shape[1] - 1):
            raise InputError(f"place outside the lattice: it reaches {-self.origin_m:.0f} m from the region's centre")
        index = np.minimum(position.astype(np.intp), self.fields.shape[1] - 2)
        return index, (position - index).astype(np.float32)

    def sample(self, points: Points) -> Floats:
        """Interpolate all fields at the places, `(fields, H, W)`."""
        ix, wx = self._split(points.x_m)
        iy, wy = self._split(points.y_m)
        if points.separable:
            low, high = self.fields[:, iy], self.fields[:, iy + 1]
            rows = low + (high - low) * wy[None, :, None]
            left = np.take(rows, ix, axis=2)
            left += np.take(np.diff(rows, axis=2), ix, axis=2) * wx
            return left
        south = self.fields[:, iy, ix] * (1 - wx) + self.fields[:, iy, ix + 1] * wx
        north = self.fields[:, iy + 1, ix] * (1 - wx) + self.fields[:, iy + 1, ix + 1] * wx
        return np.asarray(south + (north - south) * wy, dtype=np.float32)


@dataclass(frozen=True)
class Texture:
    """A periodic tile of values about -1..1 at nodes `cell_m` metres apart, linear between them."""

    tile: Floats
    cell_m: float

    def _split(self, values: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
        size = self.tile.shape[0]
        position = values / self.cell_m
        floor = np.floor(position)
        low = floor.astype(np.intp) % size
        return low, (low + 1) % size, (position - floor).astype(np.float32)

    def sample(self, points: Points) -> Floats:
        """Interpolate the texture at the places, `(H, W)`."""
        x0, x1, wx = self._split(points.x_m)
        y0, y1, wy = self._split(points.y_m)
        if points.separable:
            rows = self.tile[y0] * (1 - wy)[:, None] + self.tile[y1] * wy[:, None]
            values = np.take(rows, x0, axis=1)
            values += np.take(np.roll(rows, -1, axis=1) - rows, x0, axis=1) * wx
            return values
        south = self.tile[y0, x0] * (1 - wx) + self.tile[y0, x1] * wx
        north = self.tile[y1, x0] * (1 - wx) + self.tile[y1, x1] * wx
        return np.asarray(south + (north - south) * wy, dtype=np.float32)


def texture(rng: np.random.Generator, *, wavelength_m: float, cell_m: float, size: int = 1024) -> Texture:
    """Draw a texture of hills about `wavelength_m` apart, scaled so that ±1 is two standard deviations."""
    tile = smooth_field(rng, size, wavelength_m / cell_m, roughness=0.12)
    return Texture(np.clip(tile / 2, -1, 1), cell_m)
