"""Resample a window of a scene onto a footprint's grid: what GDAL's cubic does, without its fixed costs.

Where source and target share a reference system, the weights of rows and columns are separate, and an image is two
sparse products. Across UTM zones the map from target to source pixels is a quadratic over a footprint to less
than a hundredth of a pixel. Anything else is left to GDAL (`find_map` returns None). Near missing pixels the kernel
shrinks to a linear one whose weights are shared by the pixels that are there. A target pixel whose nearest source
pixel is missing is missing.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine
from scipy import sparse

from a2mae.products import weigh
from a2mae.raster.footprints import transformer

TOLERANCE_PX = 0.01
_NODES = 5  # per axis, where the way to the source is computed exactly
_WHOLE = 1 - 1e-4
_LEAST = 1e-6
_KEPT_SIZE = 2**17  # pixels


class Kernel(Enum):
    """Weights of source pixels."""

    CUBIC = "cubic"
    """Keys' cubic convolution with a = -1/2, as GDAL's."""
    LINEAR = "linear"
    REACH = "reach"
    """The cubic's absolute weights: below 1 where a pixel that it needs is missing."""


_RADIUS = {Kernel.CUBIC: 2, Kernel.LINEAR: 1, Kernel.REACH: 2}


@dataclass(frozen=True, eq=False)
class SourceMap:
    """The map from target pixels to source pixels, whose first has its centre at 0.5.

    Attributes:
        x: Six coefficients over 1, u, v, u², uv, v² of (column, row) + 0.5 in units of the grid's sides.
        y: The same for source rows.
        shape: (rows, columns) of the target.
        separate: Source columns depend on target columns only, and rows on rows.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    shape: tuple[int, int]
    separate: bool

    def bounds(self) -> tuple[float, float, float, float]:
        """Return smallest and largest source column, then smallest and largest source row, of the target."""
        if self.separate:
            return float(self.x[0]), float(self.x[0] + self.x[1]), float(self.y[0]), float(self.y[0] + self.y[2])
        x, y = (_node_terms() * self.x).sum(axis=1), (_node_terms() * self.y).sum(axis=1)
        return float(x.min()), float(x.max()), float(y.min()), float(y.max())

    def scale(self) -> tuple[float, float]:
        """Return source pixels per target pixel, across and down."""
        left, right, top, bottom = self.bounds()
        return (right - left) / self.shape[1], (bottom - top) / self.shape[0]


def near_longitude(lon: NDArray[np.float64], middle_lon: float | None) -> NDArray[np.float64]:
    """Turn longitudes, degrees, to within half a globe of a place; None leaves coordinates that are no degrees."""
    return lon if middle_lon is None else middle_lon + (lon - middle_lon + 180.0) % 360.0 - 180.0


@functools.lru_cache(maxsize=256)
def find_map(
    source: Affine,
    source_crs: str,
    target: Affine,
    target_crs: str,
    shape: tuple[int, int],
    *,
    middle_lon: float | None = None,
) -> SourceMap | None:
    """Find the map from target pixels to source pixels; cached.

    Args:
        source: Source pixel to coordinates.
        source_crs: "EPSG:…" or WKT.
        target: Target pixel to coordinates.
        target_crs: "EPSG:…" or WKT.
        shape: (rows, columns) of the target.
        middle_lon: Of a source in degrees, the longitude of its middle: coordinates are brought to its side of the
            date line.

    Returns:
        The map; None if it is not a quadratic within `TOLERANCE_PX`.

    Raises:
        ValueError: If PROJ knows no way between the two.
    """
    height, width = shape
    if source_crs == target_crs and source.b == source.d == target.b == target.d == 0:
        # The common case in plain numbers: an affine product takes as long as resampling a small image.
        x = np.array([(target.c - source.c) / source.a, target.a * width / source.a, 0, 0, 0, 0])
        y = np.array([(target.f - source.f) / source.e, 0, target.e * height / source.e, 0, 0, 0])
        return SourceMap(x, y, shape, separate=bool(x[1] > 0 and y[2] > 0))
    back = ~source
    if source_crs == target_crs:
        way = back @ target @ Affine.scale(width, height)
        x = np.array([way.c, way.a, way.b, 0, 0, 0])
        y = np.array([way.f, way.d, way.e, 0, 0, 0])
        separate = abs(way.b) < 1e-9 and abs(way.d) < 1e-9 and way.a > 0 and way.e > 0
        return SourceMap(x, y, shape, separate)
    u, v = _nodes()
    east, north = transformer(target_crs, source_crs).transform(*(target @ (u * width, v * height)))
    x, y = back @ (near_longitude(np.asarray(east), middle_lon), np.asarray(north))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    exact = np.stack([x, y], axis=1)
    fitted = (_node_fit()[:, :, None] * exact).sum(axis=1)  # not `@`: see `a2mae.products`
    if np.abs((_node_terms()[:, :, None] * fitted).sum(axis=1) - exact).max() > TOLERANCE_PX:
        return None
    return SourceMap(fitted[:, 0], fitted[:, 1], shape, separate=False)


@functools.cache
def _nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows, 0 to 1, of the nodes where the map is computed exactly."""
    nodes = np.linspace(0, 1, 2 * _NODES - 1)
    u, v = np.meshgrid(nodes, nodes)
    return u.ravel(), v.ravel()


@functools.cache
def _node_terms() -> NDArray[np.float64]:
    return _terms(*_nodes())


@functools.cache
def _node_fit() -> NDArray[np.float64]:
    """Least squares: `(6, nodes)` coefficients from the values at the nodes, exact but for the last rounding."""
    terms = [[Fraction(term) for term in row] for row in _node_terms().tolist()]
    count = len(terms[0])
    # Normal equations beside their right side, reduced by Gauss and Jordan; the nodes are fractions of 2.
    table = [
        [*(sum((row[i] * row[j] for row in terms), Fraction()) for j in range(count)), *(row[i] for row in terms)]
        for i in range(count)
    ]
    for pivot in range(count):
        table[pivot] = [value / table[pivot][pivot] for value in table[pivot]]
        for other in range(count):
            if other != pivot:
                share = table[other][pivot]
                table[other] = [a - share * b for a, b in zip(table[other], table[pivot], strict=True)]
    return np.array([[float(value) for value in row[count:]] for row in table])


def can_resample(way: SourceMap, *, categorical: bool) -> bool:
    """Return whether `resample` can: across reference systems only if the target is not coarser than the source."""
    return way.separate or categorical or max(way.scale()) <= 1.1


def resample(
    source: NDArray[np.float32], way: SourceMap, origin: tuple[int, int], *, categorical: bool
) -> NDArray[np.float32]:
    """Resample a window onto the target's grid.

    Args:
        source: Window of the source, `(B, h, w)`, NaN where missing.
        way: Map from target to source pixels, for which `can_resample` is true.
        origin: (column, row) of the window in the source.
        categorical: Nearest neighbour instead of cubic.

    Returns:
        `(B, H, W)`, NaN where missing.
    """
    size = (source.shape[1], source.shape[2])
    kernels = _Separate(way, origin, size) if way.separate else _scattered(way, origin, size)
    if categorical:
        return kernels.nearest(source)
    missing = np.isnan(source)
    if not missing.any():
        whole = kernels.total(Kernel.REACH) > _WHOLE
        if whole.all():
            return kernels.apply(source, Kernel.CUBIC)
    else:
        if (missing == missing[:1]).all():  # at a scene's edge: what holds for one band holds for all
            missing = missing[:1]
        there = (~missing).astype(np.float32)
        whole = kernels.apply(there, Kernel.REACH) > _WHOLE
        filled = np.where(missing, np.float32(0), source)
        shared = np.maximum(kernels.apply(there, Kernel.LINEAR), _LEAST)
        result = np.where(whole, kernels.apply(filled, Kernel.CUBIC), kernels.apply(filled, Kernel.LINEAR) / shared)
        unseen = np.isnan(kernels.nearest(source[: len(missing)]))
        result[np.broadcast_to(unseen, result.shape)] = np.nan
        return np.asarray(result, dtype=np.float32)
    shared = np.maximum(kernels.total(Kernel.LINEAR), _LEAST)
    result = np.where(whole, kernels.apply(source, Kernel.CUBIC), kernels.apply(source, Kernel.LINEAR) / shared)
    result[np.isnan(kernels.nearest(source))] = np.nan
    return np.asarray(result, dtype=np.float32)


class _Separate:
    """Kernels of a map whose rows and columns are separate: one sparse matrix for each axis."""

    def __init__(self, way: SourceMap, origin: tuple[int, int], size: tuple[int, int]) -> None:
        height, width = way.shape
        self._down = (height, size[0], round(way.y[0] - origin[1], 6), round(way.y[2] / height, 9))
        self._across = (width, size[1], round(way.x[0] - origin[0], 6), round(way.x[1] / width, 9))

    def nearest(self, source: NDArray[np.float32]) -> NDArray[np.float32]:
        (rows, row_in), (columns, column_in) = _nearest(*self._down), _nearest(*self._across)
        found = source[:, rows[:, None], columns]
        if not (row_in.all() and column_in.all()):
            found[:, ~(row_in[:, None] & column_in)] = np.nan
        return found

    def apply(self, source: NDArray[np.float32], kernel: Kernel) -> NDArray[np.float32]:
        if self._same_pixels() and kernel is not Kernel.LINEAR:
            rows, columns = (_shifted(*axis, kernel) for axis in (self._down, self._across))
            if rows is not None and columns is not None:
                result = np.empty((len(source), self._down[0], self._across[0]), dtype=np.float32)
                for band, into in zip(source, result, strict=True):  # a band stays in the processor's cache
                    _slide(_slide(band, rows, axis=0), columns, axis=1, out=into)
                return result
        return weigh(_weights(*self._down, kernel), source, _weights(*self._across, kernel))

    def total(self, kernel: Kernel) -> NDArray[np.float32]:
        down, across = _totals(*self._down, kernel), _totals(*self._across, kernel)
        return np.asarray(np.outer(down, across))

    def _same_pixels(self) -> bool:
        return bool(self._down[3] == self._across[3] == 1.0)


class _Shift(NamedTuple):
    """A kernel between grids of one pixel size: the same few weights everywhere."""

    start: int
    stop: int
    weights: tuple[np.float32, ...]


@functools.lru_cache(maxsize=512)
def _shifted(n_out: int, n_in: int, first: float, step: float, kernel: Kernel) -> _Shift | None:
    """The weights of the first target pixel; None if any kernel reaches outside."""
    start = math.floor(first) - 1  # the cubic's first tap
    if start < 0 or start + n_out + 3 > n_in:
        return None
    taps = _weights(1, n_in, first, step, kernel).toarray()[0, start : start + 4]
    used = np.flatnonzero(taps)
    lowest, highest = int(used[0]), int(used[-1])
    return _Shift(start + lowest, start + lowest + n_out, tuple(taps[lowest : highest + 1]))


def _slide(
    band: NDArray[np.float32], shift: _Shift, *, axis: int, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Apply a kernel of a few weights to a band `(h, w)` along rows (0) or columns (1)."""
    parts = [
        band[shift.start + k : shift.stop + k] if axis == 0 else band[:, shift.start + k : shift.stop + k]
        for k in range(len(shift.weights))
    ]
    if len(parts) == 1 and shift.weights[0] == 1 and out is None:
        return parts[0]
    result = np.multiply(parts[0], shift.weights[0], out=out)
    weighed = np.empty_like(result)
    for part, weight in zip(parts[1:], shift.weights[1:], strict=True):
        result += np.multiply(part, weight, out=weighed)
    return result


class _Scattered:
    """Kernels of any other map: a sparse matrix from source to target pixels."""

    def __init__(self, way: SourceMap, origin: tuple[int, int], size: tuple[int, int]) -> None:
        (height, width), self._size, self._shape = way.shape, size, way.shape
        u, v = ((np.arange(n) + 0.5) / n for n in (width, height))
        self._x, self._y = (
            (
                ((c[0] - start) + c[2] * v + c[5] * v * v)[:, None] + (c[1] * u + c[3] * u * u) + c[4] * v[:, None] * u
            ).ravel()
            for c, start in ((way.x, origin[0]), (way.y, origin[1]))
        )
        self._matrices: dict[Kernel, sparse.csr_array] = {}

    def nearest(self, source: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = self._size
        column, row = np.floor(self._x).astype(np.int64), np.floor(self._y).astype(np.int64)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = source.reshape(len(source), -1)[:, np.where(inside, row * width + column, 0)]
        if not inside.all():
            found[:, ~inside] = np.nan
        return np.asarray(found.reshape(len(source), *self._shape))

    def apply(self, source: NDArray[np.float32], kernel: Kernel) -> NDArray[np.float32]:
        result = self._matrix(kernel) @ source.reshape(len(source), -1).T
        return np.ascontiguousarray(result.T, dtype=np.float32).reshape(len(source), *self._shape)

    def total(self, kernel: Kernel) -> NDArray[np.float32]:
        radius = _RADIUS[kernel]
        whole = [
            place.min() >= radius - 0.5 and place.max() < side - radius + 0.5
            for place, side in ((self._x, self._size[1]), (self._y, self._size[0]))
        ]
        if all(whole):  # no need of the matrix: no tap lies outside
            return np.ones(self._shape, dtype=np.float32)
        return np.asarray(self._matrix(kernel).sum(axis=1), dtype=np.float32).reshape(self._shape)

    def _matrix(self, kernel: Kernel) -> sparse.csr_array:
        if kernel not in self._matrices:
            (rows, down), (columns, across) = (
                _taps(place, side, kernel) for place, side in zip((self._y, self._x), self._size, strict=True)
            )
            rows *= np.int32(self._size[1])
            values, index = down[:, :, None] * across[:, None, :], rows[:, :, None] + columns[:, None, :]
            start = np.arange(0, values.size + 1, values[0].size, dtype=np.int32)
            size = (len(self._x), self._size[0] * self._size[1])
            self._matrices[kernel] = sparse.csr_array((values.ravel(), index.ravel(), start), shape=size)
        return self._matrices[kernel]


def _scattered(way: SourceMap, origin: tuple[int, int], size: tuple[int, int]) -> _Scattered:
    """The kernels of a map; those of the last small ones are kept: bands, mask and dates of a footprint share them."""
    small = way.shape[0] * way.shape[1] <= _KEPT_SIZE
    return _kept_scattered(way, origin, size) if small else _Scattered(way, origin, size)


_kept_scattered = functools.lru_cache(maxsize=4)(_Scattered)


def _taps(place: NDArray[np.float64], side: int, kernel: Kernel) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Source pixels along one axis that each place needs, and their weights: both `(N, taps)`; 0 beyond the side."""
    radius = _RADIUS[kernel]
    lower = np.floor(place - 0.5)
    t = (place - 0.5 - lower).astype(np.float32)
    reach = np.arange(1 - radius, radius + 1, dtype=np.int32)
    index = np.asarray(lower.astype(np.int32)[:, None] + reach, dtype=np.int32)
    if kernel is Kernel.LINEAR:
        weights = np.stack([1 - t, t], axis=1)
    else:  # `_kernel` at the distances 1 + t, t, 1 - t and 2 - t
        half = np.float32(0.5)
        weights = np.stack(
            [
                half * t * ((2 - t) * t - 1),
                half * ((3 * t - 5) * t * t + 2),
                half * t * ((4 - 3 * t) * t + 1),
                half * t * t * (t - 1),
            ],
            axis=1,
        )
    if kernel is Kernel.REACH:
        weights = np.abs(weights)
        weights /= weights.sum(axis=1, keepdims=True)
    outside = (index < 0) | (index >= side)
    if outside.any():
        weights[outside] = 0
        np.clip(index, 0, side - 1, out=index)
    return index, weights


def _kernel(distance: NDArray[np.float64], kernel: Kernel) -> NDArray[np.float64]:
    d = np.abs(distance)
    if kernel is Kernel.LINEAR:
        return np.asarray(np.maximum(0.0, 1 - d))
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    values = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return np.asarray(np.abs(values) if kernel is Kernel.REACH else values)


@functools.lru_cache(maxsize=128)
def _weights(n_out: int, n_in: int, first: float, step: float, kernel: Kernel) -> sparse.csr_array:
    """`(n_out, n_in)` weights along one axis; the kernel is as many times wider as the target is coarser."""
    wide = max(1.0, step)
    reach = np.arange(-math.ceil(2 * wide) - 1, math.ceil(2 * wide) + 2)
    centre = (first + step * (np.arange(n_out) + 0.5))[:, None]
    column = np.floor(centre).astype(np.int32) + reach.astype(np.int32)
    weights = _kernel((column + 0.5 - centre) / wide, kernel)
    # Over all pixels of the kernel, also those beyond the window: what is lost there shows in the sum.
    weights = np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
    used = (column >= 0) & (column < n_in) & (weights != 0)
    start = np.concatenate([[0], used.sum(axis=1).cumsum()]).astype(np.int32)
    return sparse.csr_array((weights[used], column[used], start), shape=(n_out, n_in))


@functools.lru_cache(maxsize=512)
def _totals(n_out: int, n_in: int, first: float, step: float, kernel: Kernel) -> NDArray[np.float32]:
    if step == 1.0 and _shifted(n_out, n_in, first, step, kernel) is not None:
        return np.ones(n_out, dtype=np.float32)  # no tap lies outside
    return np.asarray(_weights(n_out, n_in, first, step, kernel).sum(axis=1))


@functools.lru_cache(maxsize=512)
def _nearest(n_out: int, n_in: int, first: float, step: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The source pixel that each target centre lies in, clipped to the window, and whether it lies inside."""
    # A centre on the border of two pixels belongs to the second; rounding must not decide otherwise.
    index = np.floor(first + step * (np.arange(n_out) + 0.5) + 1e-6).astype(np.int64)
    return np.clip(index, 0, n_in - 1), (index >= 0) & (index < n_in)


def _terms(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)
