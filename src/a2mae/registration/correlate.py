"""Estimate the shift between two images: masked, sub-pixel, across sensors, resolutions and seasons.

Fields change colour between sensors and dates, and a bright field beside a dark one may swap with it, but the edge
between them stays. Images are therefore compared by the *orientation* of their structure: the gradient of every band
is squared as a complex number (the double-angle form of the structure tensor). A dark-to-bright and a bright-to-dark
edge are then the same, and bands of any kind can be added. The masked normalised cross-correlation of two such fields
is computed for all lags at once by Fourier transform (Padfield 2012) and refined by evaluating it between the lags.
Its error is estimated by the jackknife: one of 16 tiles is left out at a time, and the spread of the peak is measured.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray
from scipy import sparse

from a2mae.errors import InputError
from a2mae.products import weigh

_KNOWN_SHARE = 0.9  # a work pixel needs this share of its kernel valid
_TILES = 4  # per axis, for the jackknife
_NOISE_MARGIN_PX = 8  # lags beyond the search range that show how high chance peaks are
_FINE_STEP_PX = 0.1
_FINE_REACH_PX = 1.5
_FINE_PX = np.arange(-_FINE_REACH_PX, _FINE_REACH_PX + _FINE_STEP_PX / 2, _FINE_STEP_PX)
_MIN_WORK_PX, _MAX_WORK_PX = 32, 256


class _Energies(NamedTuple):
    """Spectra of a structure's squared magnitude and of its known pixels, and the padded shape."""

    power: NDArray[np.complex64]
    known: NDArray[np.complex64]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Structure:
    """The orientation field of an image, which is what is compared.

    Attributes:
        field: `(n, n)` complex64: squared gradient, magnitude compressed to 0-1; 0 where unknown.
        known: `(n, n)` bool.
        gsd_m: Size of a work pixel, metres.
    """

    field: NDArray[np.complex64]
    known: NDArray[np.bool_]
    gsd_m: float
    _spectra: dict[tuple[int, int], NDArray[np.complex64]] = dataclasses.field(default_factory=dict, repr=False)
    _energies: dict[int, _Energies] = dataclasses.field(default_factory=dict, repr=False)

    @functools.cached_property
    def power(self) -> NDArray[np.float32]:
        """Squared magnitude of the field, `(n, n)`."""
        return np.asarray(self.field.real**2 + self.field.imag**2)

    def energies(self, reach: int) -> _Energies:
        """Return the spectra of power and known pixels; they are computed once."""
        if reach not in self._energies:
            shape = tuple(int(scipy.fft.next_fast_len(side + reach, real=True)) for side in self.field.shape)
            power, known = (scipy.fft.rfft2(part, shape) for part in (self.power, self.known.astype(np.float32)))
            self._energies[reach] = _Energies(power, known, shape)
        return self._energies[reach]

    def tile_spectra(self, reach: int, size: int) -> NDArray[np.complex64]:
        """Return the spectra of the tiles, `(tiles, size, size)`; they are computed once for several moving images."""
        if (reach, size) not in self._spectra:
            tiles = np.zeros((_TILES * _TILES, size, size), np.complex64)
            for tile, (y0, y1, x0, x1) in zip(tiles, _tile_edges(self.field.shape), strict=True):
                tile[reach : reach + y1 - y0, reach : reach + x1 - x0] = self.field[y0:y1, x0:x1]
            self._spectra[reach, size] = _spectrum(tiles)
        return self._spectra[reach, size]


@dataclass(frozen=True)
class Match:
    """The lag at which two structures agree best.

    Attributes:
        shift_x_m: Move of the moving image to the east, metres.
        shift_y_m: Move to the north, metres.
        error_m: Jackknife standard error of the shift, both axes together.
        significance: Height of the peak above the other lags, in their standard deviations.
        ratio: Highest correlation away from the peak over the peak's own; 1 means "could be anywhere".
        correlation: Normalised correlation at the peak.
        gain: Correlation at the peak minus that at no shift.
        known_fraction: Share of the work grid that both show.
        at_edge: The peak lies at or beyond the edge of the search range.
    """

    shift_x_m: float
    shift_y_m: float
    error_m: float
    significance: float
    ratio: float
    correlation: float
    gain: float
    known_fraction: float
    at_edge: bool


def work_gsd_m(coarser_gsd_m: float, size_m: float) -> float:
    """Choose the work pixel for a pair: half the coarser sensor's pixel, as long as that makes at most 256 per side.

    Args:
        coarser_gsd_m: GSD of the coarser sensor, metres.
        size_m: Side of the square, metres.
    """
    finest = size_m / _MAX_WORK_PX
    half = coarser_gsd_m / 2
    pixels = size_m / (half if size_m / half <= _MAX_WORK_PX else max(coarser_gsd_m, finest))
    return size_m / max(_MIN_WORK_PX, min(_MAX_WORK_PX, math.floor(pixels + 1e-6)))


def structure(
    bands: NDArray[np.float32],
    valid: NDArray[np.bool_],
    *,
    gsd_m: float,
    work_gsd: float,
    blur_gsd_m: float,
) -> Structure:
    """Compute the orientation field of an image on the work grid, at the sharpness of the coarser sensor.

    Args:
        bands: `(B, H, W)` in any units.
        valid: `(H, W)` bool; other pixels are not used.
        gsd_m: GSD of the image, metres.
        work_gsd: GSD of the work grid, which covers the same square, metres.
        blur_gsd_m: GSD of the pair's coarser sensor, metres.
    """
    height, width = valid.shape
    n_y, n_x = (round(side * gsd_m / work_gsd) for side in (height, width))
    # A Gaussian of half a coarse pixel, plus what the finer sensor's square pixel lacks to the coarser one.
    target = max(blur_gsd_m, work_gsd)
    sigma = math.sqrt((0.5 * target) ** 2 + max(0.0, target**2 - gsd_m**2) / 12) / gsd_m
    rows, columns = _kernel(n_y, height, sigma), _kernel(n_x, width, sigma)

    def blurred(image: NDArray[np.float32]) -> NDArray[np.float32]:
        if (n_y, n_x) != (height, width):
            return weigh(rows, image, columns)
        # Between grids of one pixel size the kernel is a few weights, the same everywhere.
        taps = _taps(sigma)
        down = scipy.ndimage.correlate1d(image, taps, axis=0, mode="constant")
        return np.asarray(scipy.ndimage.correlate1d(down, taps, axis=1, mode="constant"))

    everything = np.outer(rows.sum(axis=1), columns.sum(axis=1))
    whole = bool(valid.all())
    weight = everything if whole else blurred(valid.astype(np.float32))
    share = weight / everything
    known = share > _KNOWN_SHARE
    inner = _inner(known)
    orientation = np.zeros((n_y, n_x), dtype=np.complex64)
    if inner.sum() >= 64:
        for band in bands:
            centre = np.float32((band if whole else band[valid]).mean())  # keeps the mask's edge out of rounding
            centred = band - centre if whole else np.where(valid, band - centre, np.float32(0))
            smooth = blurred(centred) / np.maximum(weight, 1e-6)
            east, south = np.zeros_like(smooth), np.zeros_like(smooth)
            east[:, 1:-1] = (smooth[:, 2:] - smooth[:, :-2]) / 2
            south[1:-1] = (smooth[2:] - smooth[:-2]) / 2
            squares = east * east, south * south
            energy = np.float32((squares[0] + squares[1])[inner].mean())
            if energy > 0:  # the square of the complex gradient
                orientation.real += (squares[0] - squares[1]) / energy
                orientation.imag += 2 * east * south / energy
        magnitude = np.abs(orientation)
        middle = float(np.median(magnitude[inner]))
        if middle > 0:
            orientation /= magnitude + np.float32(middle)
        else:
            orientation[:] = 0
    orientation[~inner] = 0
    return Structure(orientation, inner, work_gsd)


def _inner(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Known pixels whose eight neighbours are known as well."""
    down = known[:-2] & known[1:-1] & known[2:]
    inner = np.zeros_like(known)
    inner[1:-1, 1:-1] = down[:, :-2] & down[:, 1:-1] & down[:, 2:]
    return inner


def match(reference: Structure, moving: Structure, *, max_shift_m: float) -> Match | None:
    """Find the shift between two structures on the same work grid.

    Args:
        reference: Stays where it is.
        moving: Is moved.
        max_shift_m: Search range, metres.

    Returns:
        The best match, or None if there is nothing to correlate.

    Raises:
        InputError: If the grids differ.
    """
    if reference.field.shape != moving.field.shape or reference.gsd_m != moving.gsd_m:
        raise InputError(f"structures on different grids: {reference.field.shape} and {moving.field.shape}")
    gsd_m = reference.gsd_m
    search = max(2, math.ceil(max_shift_m / gsd_m) + 1)  # one more, so that a peak at the limit is seen whole
    reach = search + _NOISE_MARGIN_PX
    both = reference.known & moving.known
    known_fraction = float(both.mean())
    if known_fraction == 0 or not reference.field.any() or not moving.field.any():
        return None
    cross, used = _cross_spectra(reference, moving, reach)
    size = cross.shape[-1]
    first, second = reference.energies(reach), moving.energies(reach)
    energy_1 = _Correlation(first.power * np.conj(second.known), first.shape)
    energy_2 = _Correlation(first.known * np.conj(second.power), first.shape)

    lags = np.arange(-reach, reach + 1)
    around = np.ix_(lags, lags)
    total = scipy.fft.ifft2(cross.sum(axis=0)).real[around]
    floor = 1e-3 * float(np.sqrt(reference.power).sum())
    scale = np.sqrt(np.maximum(energy_1.at_lags(lags), floor) * np.maximum(energy_2.at_lags(lags), floor))
    surface = total / scale
    inside = slice(reach - search, reach + search + 1)
    peak = np.unravel_index(int(surface[inside, inside].argmax()), (2 * search + 1, 2 * search + 1))
    row, column = int(peak[0]) - search, int(peak[1]) - search

    # Between the lags: the same Fourier series, evaluated on a fine grid around the peak.
    at_rows, at_columns = _fourier_rows(row, size), _fourier_rows(column, size)
    tiles = weigh(at_rows, cross, at_columns).real
    fine_scale = np.sqrt(
        np.maximum(energy_1.between(row, column), floor) * np.maximum(energy_2.between(row, column), floor)
    )
    whole = tiles.sum(axis=0)
    correlation = whole / fine_scale
    best = _peaks(correlation[None])[0]
    left_out = _peaks((whole - tiles[used]) / fine_scale)
    count = int(used.sum())
    spread = ((left_out - left_out.mean(axis=0)) ** 2).sum()
    error = math.sqrt((count - 1) / count * float(spread)) * _FINE_STEP_PX if count > 1 else 1e6

    shift_row, shift_column = (
        lag + _FINE_PX[0] + steps * _FINE_STEP_PX for lag, steps in zip((row, column), best, strict=True)
    )
    far = np.ones(surface.shape, dtype=np.bool_)
    far[
        max(0, row + reach - 4) : row + reach + 5,
        max(0, column + reach - 4) : column + reach + 5,
    ] = False
    height = float(correlation.max())
    others = surface[far]
    return Match(
        shift_x_m=float(shift_column) * gsd_m,
        shift_y_m=-float(shift_row) * gsd_m,
        error_m=error * gsd_m,
        significance=float((height - others.mean()) / max(float(others.std()), 1e-9)),
        ratio=float(np.clip(others.max() / max(height, 1e-9), 0, 1)),
        correlation=height,
        gain=height - float(surface[reach, reach]),
        known_fraction=known_fraction,
        at_edge=max(abs(row), abs(column)) >= search
        or max(abs(shift_row), abs(shift_column)) * gsd_m > max_shift_m + gsd_m / 4,
    )


@functools.lru_cache(maxsize=128)
def _kernel(n_out: int, n_in: int, sigma_px: float) -> sparse.csr_array:
    """`(n_out, n_in)` Gaussian weights between two grids over the same length; rows are not normalised."""
    centres = (np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5
    distance = (centres[:, None] - np.arange(n_in)) / sigma_px
    weights = np.exp(-0.5 * distance**2)
    weights[np.abs(distance) > 4] = 0
    return sparse.csr_array(weights.astype(np.float32))


@functools.lru_cache(maxsize=128)
def _taps(sigma_px: float) -> NDArray[np.float64]:
    """The row of `_kernel` between equal grids."""
    distance = np.arange(-math.floor(4 * sigma_px), math.floor(4 * sigma_px) + 1) / sigma_px
    return np.asarray(np.exp(-0.5 * distance**2))


def _tile_edges(shape: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Yield first and last row and column of every tile; the tiles partition the image."""
    rows, columns = (np.linspace(0, side, _TILES + 1).round().astype(int).tolist() for side in shape)
    for k in range(_TILES * _TILES):
        i, j = divmod(k, _TILES)
        yield rows[i], rows[i + 1], columns[j], columns[j + 1]


def _cross_spectra(
    reference: Structure, moving: Structure, reach: int
) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """Cross spectra of the reference's tiles with the moving image around them, and which tiles are not empty.

    The tiles partition the reference exactly, so their correlations add up to the whole image's.
    """
    edges = list(_tile_edges(reference.field.shape))
    side = max(max(y1 - y0, x1 - x0) for y0, y1, x0, x1 in edges) + 2 * reach
    size = int(scipy.fft.next_fast_len(side))
    around = np.zeros((len(edges), size, size), np.complex64)
    padded = np.pad(moving.field, reach)
    used = np.zeros(len(edges), dtype=np.bool_)
    known = np.pad(moving.known, reach)
    for k, (y0, y1, x0, x1) in enumerate(edges):
        part = np.s_[y0 : y1 + 2 * reach, x0 : x1 + 2 * reach]
        around[k, : y1 - y0 + 2 * reach, : x1 - x0 + 2 * reach] = padded[part]
        used[k] = reference.field[y0:y1, x0:x1].any() and known[part].any()
    spectra = _spectrum(around)
    np.conj(spectra, out=spectra)
    spectra *= reference.tile_spectra(reach, size)
    return spectra, used


def _spectrum(values: NDArray[np.complex64]) -> NDArray[np.complex64]:
    return np.asarray(scipy.fft.fft2(values, overwrite_x=True), dtype=np.complex64)


class _Correlation:
    """Correlation of two real images by their cross spectrum, at all lags that the padding has room for."""

    def __init__(self, spectrum: NDArray[np.complex64], shape: tuple[int, ...]) -> None:
        self._spectrum, self._shape = spectrum, shape

    def at_lags(self, lags: NDArray[np.int64]) -> NDArray[np.float32]:
        """`(n, n)` at whole lags of rows and columns."""
        return np.asarray(scipy.fft.irfft2(self._spectrum, self._shape)[np.ix_(lags, lags)])

    def between(self, row: int, column: int) -> NDArray[np.float32]:
        """`(rows, columns)` of the fine grid around a lag: the Fourier series evaluated there."""
        height, width = self._shape
        return weigh(_fourier_rows(row, height), self._spectrum, _fourier_rows(column, width, half=True)).real


@functools.lru_cache(maxsize=256)
def _fourier_rows(lag: int, size: int, *, half: bool = False) -> sparse.csr_array:
    """`(positions, size)`: rows that evaluate an inverse discrete Fourier series at the fine grid around a lag.

    With `half` they are `(positions, size // 2 + 1)`, for a real image's spectrum, which repeats the other half.
    """
    at = lag + _FINE_PX
    waves = np.exp(2j * np.pi * at[:, None] * scipy.fft.fftfreq(size)) / size
    if half:
        waves = waves[:, : size // 2 + 1]
        waves[:, 1 : (size + 1) // 2] *= 2
    return sparse.csr_array(waves.astype(np.complex64))


def _peaks(surfaces: NDArray[np.floating]) -> NDArray[np.float64]:
    """`(N, 2)` row and column of the maximum of each `(N, h, w)` surface, refined by a parabola per axis."""
    count, height, width = surfaces.shape
    index = surfaces.reshape(count, -1).argmax(axis=1)
    rows, columns = np.divmod(index, width)
    rows_in, columns_in = np.clip(rows, 1, height - 2), np.clip(columns, 1, width - 2)
    each = np.arange(count)
    result = np.stack([rows, columns], axis=1).astype(np.float64)
    for axis, (inner, before, after) in enumerate(
        (
            (rows == rows_in, surfaces[each, rows_in - 1, columns_in], surfaces[each, rows_in + 1, columns_in]),
            (columns == columns_in, surfaces[each, rows_in, columns_in - 1], surfaces[each, rows_in, columns_in + 1]),
        )
    ):
        middle = surfaces[each, rows_in, columns_in]
        curvature = before - 2 * middle + after
        ok = inner & (curvature < 0)
        result[ok, axis] += (0.5 * (before - after)[ok]) / curvature[ok]
    return result
