"""Measure the moments of every band of every image in one pass over the store, and merge them into statistics.

Moments are merged by the pairwise formula of Chan, Golub and LeVeque, in the order of rows. So the result is the same
for any number of workers, and agrees with NumPy's over all pixels at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from a2mae.parallel import run_all
from a2mae.sensors import Encoding
from a2mae.stssd.store.store import ImageSetStore

if TYPE_CHECKING:
    import pandas as pd

_ROWS_PER_TASK = 64
_READ_BYTES = 16 * 2**20

BandStatistics = dict[str, dict[str, dict[str, float]]]
"""`{sensor: {band: {mean, std, minimum, maximum, count}}}` in physical units."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of the valid pixels of N images with C bands, in physical units.

    Attributes:
        count: `(N,)` number of valid pixels.
        mean: `(N, C)` mean; 0 without valid pixels.
        squares: `(N, C)` sum of squared differences from the mean.
        minimum: `(N, C)` minimum; +inf without valid pixels.
        maximum: `(N, C)` maximum; -inf without valid pixels.
        texture: `(N, C)` mean absolute difference of neighbouring valid pixels.
        pixels: Pixels per image, valid or not.
    """

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    texture: NDArray[np.float64]
    pixels: int

    @property
    def std(self) -> NDArray[np.float64]:
        """`(N, C)` standard deviation within each image."""
        return np.asarray(np.sqrt(self.squares / np.maximum(self.count, 1)[:, None]))

    @property
    def valid_fraction(self) -> NDArray[np.float64]:
        """`(N,)` share of valid pixels of each image."""
        return np.asarray(self.count / self.pixels)


@dataclass(frozen=True)
class _Task:
    store: ImageSetStore
    sensor: str
    part: int
    rows: tuple[int, ...]


def measure(
    store: ImageSetStore, images: pd.DataFrame, *, workers: int = 1, dask_scheduler: str | None = None
) -> dict[str, tuple[NDArray[np.int64], Moments]]:
    """Measure every image that the table names; each is read once.

    Args:
        store: The image-set store.
        images: Image table; several rows may name one image.
        workers: Local processes.
        dask_scheduler: Address of a Dask cluster to use instead.

    Returns:
        By sensor id: rows of the store, ascending, and their moments.
    """
    rows = {
        str(sensor): np.unique(group["row"].to_numpy(np.int64)) for sensor, group in images.groupby("sensor", sort=True)
    }
    tasks = [
        _Task(store, sensor, start // _ROWS_PER_TASK, tuple(wanted[start : start + _ROWS_PER_TASK].tolist()))
        for sensor, wanted in rows.items()
        for start in range(0, len(wanted), _ROWS_PER_TASK)
    ]
    parts: dict[tuple[str, int], Moments] = {}
    finished = run_all(_measure_part, tasks, workers=workers, dask_scheduler=dask_scheduler)
    for sensor, part, moments in tqdm(finished, total=len(tasks), desc="statistics", unit="part"):
        parts[sensor, part] = moments
    return {
        sensor: (wanted, _joined([parts[key] for key in sorted(parts) if key[0] == sensor]))
        for sensor, wanted in rows.items()
    }


def moments_of(pixels: NDArray[np.generic], valid: NDArray[np.bool_], encoding: Encoding) -> Moments:
    """Measure the moments of images.

    Args:
        pixels: `(N, C, H, W)` stored integers.
        valid: `(N, H, W)` which pixels count.
        encoding: How stored integers become physical values.
    """
    images, bands = pixels.shape[:2]
    count = valid.sum(axis=(1, 2)).astype(np.int64)
    mean, squares, texture = (np.zeros((images, bands)) for _ in range(3))
    minimum, maximum = np.full((images, bands), np.inf), np.full((images, bands), -np.inf)
    for n in range(images):
        if not count[n]:
            continue
        full = bool(count[n] == valid[n].size)
        across, down = valid[n, :, 1:] & valid[n, :, :-1], valid[n, 1:] & valid[n, :-1]
        pairs = max(int(across.sum() + down.sum()), 1)
        for c in range(bands):
            band = pixels[n, c]
            values = band.ravel() if full else band[valid[n]]
            minimum[n, c], maximum[n, c] = values.min(), values.max()
            mean[n, c] = values.mean(dtype=np.float64)
            away = values - mean[n, c]
            squares[n, c] = np.square(away).sum()  # not `np.dot`: see `a2mae.products`
            texture[n, c] = sum(_steps(band, axis, None if full else both) for axis, both in ((1, across), (0, down)))
        texture[n] /= pairs
    scale, offset = encoding.scale, encoding.offset
    low, high = minimum * scale + offset, maximum * scale + offset
    return Moments(
        count,
        np.where(count[:, None] > 0, mean * scale + offset, 0.0),
        squares * scale**2,
        np.minimum(low, high) if scale < 0 else low,
        np.maximum(low, high) if scale < 0 else high,
        texture * abs(scale),
        valid.shape[1] * valid.shape[2],
    )


def _steps(band: NDArray[np.generic], axis: int, both: NDArray[np.bool_] | None) -> float:
    """Sum the absolute differences of neighbours along an axis, of those pairs only that are both valid."""
    before, after = (band[:, :-1], band[:, 1:]) if axis == 1 else (band[:-1], band[1:])
    # The larger minus the smaller: no wider type is needed for stored integers that may be unsigned.
    step = np.maximum(before, after) - np.minimum(before, after)
    if both is not None:
        step = step[both]
    kind = np.dtype(f"u{step.dtype.itemsize}") if step.dtype.kind == "i" else step.dtype
    return float(step.view(kind).sum(dtype=np.float64 if kind.kind == "f" else np.uint64))


def merged(moments: Moments, chosen: NDArray[np.bool_], band_names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Merge moments into statistics over all valid pixels of the chosen images.

    Args:
        moments: Moments of N images with C bands.
        chosen: `(N,)` which images count.
        band_names: C names.

    Returns:
        `{band: {mean, std, minimum, maximum, count}}` in physical units; empty without valid pixels.
    """
    count = moments.count[chosen].astype(np.float64)
    total = count.sum()
    if total == 0:
        return {}
    mean = (moments.mean[chosen] * count[:, None]).sum(axis=0) / total
    between = np.square(moments.mean[chosen] - mean) * count[:, None]
    variance = (moments.squares[chosen] + between).sum(axis=0) / total
    return {
        name: {
            "mean": float(mean[c]),
            "std": float(np.sqrt(variance[c])),
            "minimum": float(moments.minimum[chosen, c].min()),
            "maximum": float(moments.maximum[chosen, c].max()),
            "count": int(total),
        }
        for c, name in enumerate(band_names)
    }


def heterogeneity(moments: Moments, statistics: Mapping[str, Mapping[str, float]]) -> NDArray[np.float64]:
    """Measure how varied each image is in itself, from 0 to 1 [ours].

    This is the variance within the image over the sum of it and the variance of the whole data set, averaged over
    bands: 0 is a uniform image, 0.5 one that varies as much in itself as all images together.

    Args:
        moments: Moments of N images.
        statistics: Statistics of the whole data set by band, in the moments' order of bands.

    Returns:
        `(N,)`.
    """
    everywhere = np.array([band["std"] for band in statistics.values()]) ** 2
    within = moments.std**2
    share = within / np.maximum(within + everywhere, 1e-30)
    return np.asarray(share.mean(axis=1))


def _measure_part(task: _Task) -> tuple[str, int, Moments]:
    bands, height, width = task.store.shape(task.sensor)
    sensor = task.store.sensor(task.sensor)
    at_once = max(1, _READ_BYTES // (bands * height * width * np.dtype(sensor.encoding.dtype).itemsize))
    parts = []
    for start in range(0, len(task.rows), at_once):
        pixels, valid = task.store.read(task.sensor, task.rows[start : start + at_once])
        parts.append(moments_of(pixels, valid, sensor.encoding))
    return task.sensor, task.part, _joined(parts)


def _joined(parts: list[Moments]) -> Moments:
    names = ("count", "mean", "squares", "minimum", "maximum", "texture")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Moments(pixels=parts[0].pixels, **arrays)
