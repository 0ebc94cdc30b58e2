"""Cut rasters of any size into windows, join predictions without seams, and write them strip by strip.

Memory is one strip of windows, whatever the height of the raster. A raster that was not finished is continued.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window
from tqdm import tqdm

from a2mae.errors import InputError
from a2mae.files import flush, make_folder, telling_where, whole_file, write_json
from a2mae.models.precision import ComputePrecision, precision_kept, precision_of
from a2mae.raster.files import WRITE_ERRORS
from a2mae.raster.opening import GDAL_OPTIONS

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
BLOCK = 256
"""Side of a block of the written files, pixels."""


@dataclass(frozen=True)
class Windows:
    """How a raster is cut into windows.

    Attributes:
        tile_px: Side of a window, pixels.
        overlap_px: Pixels shared by neighbours and blended.
        batch_size: Windows per forward pass.
    """

    tile_px: int
    overlap_px: int
    batch_size: int

    def in_patches(self, patch: int) -> tuple[int, int]:
        """Return side and overlap in whole patches of this many pixels."""
        size = max(self.tile_px // patch, 1)
        return size, min(self.overlap_px // patch, size - 1)


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Place windows along a length: equally strided, the last one moved back to end at the edge.

    Args:
        length: Length to cover, pixels.
        size: Side of a window, pixels.
        overlap: Pixels shared by neighbours.

    Returns:
        First pixel of each window.

    Raises:
        InputError: If the overlap is not smaller than the window.
    """
    if not 0 <= overlap < size:
        raise InputError(f"overlap must be 0 to {size - 1} pixels for windows of {size}, found {overlap}")
    if length <= size:
        return [0]
    positions = list(range(0, length - size, size - overlap))
    return [*positions, length - size]


def blend_weight(size: int, overlap: int) -> Floats:
    """Return weights `(size, size)`: 1 inside, falling linearly to the edge over the overlap, never 0."""
    ramp = np.minimum(np.arange(size) + 1, np.arange(size, 0, -1)).astype(np.float32)
    line = np.minimum(ramp / np.float32(overlap + 1), np.float32(1))
    return np.outer(line, line).astype(np.float32)


def blended_strips(
    height: int,
    width: int,
    classes: int,
    *,
    size: int,
    overlap: int,
    predict: Callable[[int, list[int]], Floats],
    batch: int = 8,
    first_row: int = 0,
    last_row: int | None = None,
    name: str = "raster",
) -> Iterator[tuple[int, Floats]]:
    """Predict a raster window by window and yield finished rows, top to bottom.

    How long it will take is logged after the first batch, and how far it is every minute.

    Args:
        height: Rows of the raster.
        width: Columns of the raster.
        classes: Channels K that `predict` returns.
        size: Side of a window, pixels.
        overlap: Pixels shared by neighbouring windows, blended linearly.
        predict: From the first row and the first columns of windows beside one another to `(windows, K, size, size)`
            float32; it pads what lies beyond a raster that is smaller than a window.
        batch: Windows per call.
        first_row: Rows before this one were finished by an earlier run; they are not yielded, and predicted only where
            windows overlap them.
        last_row: This row and later ones are of no interest, a first row of windows; None: all are.
        name: What is made, for the log.

    Yields:
        First row, and blended predictions `(K, rows, width)` of finished rows.
    """
    weight = blend_weight(size, overlap)
    rows = starts(height, size, overlap)
    padded = max(width, size)
    columns = starts(width, size, overlap)
    last_row = height if last_row is None else last_row
    progress = _Progress(name, len(columns) * sum(row + size > first_row and row < last_row for row in rows))
    total = np.zeros((classes, size, padded), np.float32)
    weights = np.zeros((size, padded), np.float32)
    for number, row in enumerate(rows):
        if row >= last_row:
            return
        end = rows[number + 1] if number + 1 < len(rows) else height
        if row + size > first_row:
            for start in range(0, len(columns), batch):
                some = columns[start : start + batch]
                found = predict(row, some)
                found *= weight
                for column, scores in zip(some, found, strict=True):
                    total[:, :, column : column + size] += scores
                    weights[:, column : column + size] += weight
                progress.add(len(some))
        done = end - row
        if end > first_row:
            skip = max(first_row - row, 0)
            yield row + skip, (total[:, skip:done] / weights[skip:done])[:, :, :width]
        total = _scrolled(total, done)
        weights = _scrolled(weights, done)


class _Progress:
    """A bar on a terminal; in a log one line when the duration is known, and one every minute."""

    def __init__(self, name: str, windows: int) -> None:
        self._name, self._windows, self._done = name, windows, 0
        self._began = self._told = time.monotonic()
        self._bar = tqdm(total=windows, desc=name, unit="window", leave=False, disable=not sys.stderr.isatty())

    def add(self, windows: int) -> None:
        """Count windows that are done."""
        is_first, now = not self._done, time.monotonic()
        self._done += windows
        self._bar.update(windows)
        left_s = (now - self._began) / self._done * (self._windows - self._done)
        if (is_first and left_s > _TOLD_EVERY_S) or now - self._told >= _TOLD_EVERY_S:
            self._told = now
            logger.info(
                "%s: %s of %s windows, about %s left",
                self._name,
                f"{self._done:,}",
                f"{self._windows:,}",
                _long(left_s),
            )
        if self._done == self._windows:
            self._bar.close()


_TOLD_EVERY_S = 60.0


def _long(seconds: float) -> str:
    """Write a duration as people say it."""
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(seconds / 60, 1):.0f} min"


def _scrolled(strip: Floats, rows: int) -> Floats:
    """Move a strip up by some rows, zeros below."""
    moved = np.zeros_like(strip)
    kept = strip.shape[-2] - rows
    if kept > 0:
        moved[..., :kept, :] = strip[..., rows:, :]
    return moved


def settled(
    path: Path, settings: Sequence[object], precision: str, device: torch.device
) -> tuple[ComputePrecision, str]:
    """Decide the precision of a raster that is computed strip by strip.

    Args:
        path: Path of the finished raster.
        settings: All else that decides its content.
        precision: `32-true`, `bf16-mixed`, or `auto`: that of the unfinished file beside the path, if it is of these
            settings, else what is faster on the device.
        device: Where the model runs.

    Returns:
        The precision, and the fingerprint for `StripWriter`.
    """

    def fingerprint(one: ComputePrecision) -> str:
        return hashlib.sha256(json.dumps([*settings, one], sort_keys=True, default=str).encode()).hexdigest()

    if precision == "auto":
        begun, _ = _begun(_unfinished(path)[0])
        found = precision_kept(fingerprint, begun, device)
    else:
        found = precision_of(precision, device)
    return found, fingerprint(found)


def _unfinished(path: Path) -> tuple[Path, Path]:
    """The file that becomes a raster, and how far it is."""
    return path.with_name(f".{path.stem}.partial.json"), path.with_name(f".{path.stem}.partial.tif")


def _begun(state: Path) -> tuple[str, int]:
    """Fingerprint and finished rows of an unfinished raster; nothing where there is none."""
    try:
        found = json.loads(state.read_text("utf-8"))
        return str(found["fingerprint"]), int(found["rows"])
    except FileNotFoundError:
        return "", 0
    except (ValueError, KeyError) as error:
        logger.warning("%s is torn (%s): the raster is begun again", state, error)
        return "", 0


class StripWriter:
    """Writes a raster from top to bottom, and continues where an interrupted run stopped.

    Attributes:
        first_row: Rows before this one are already written.
    """

    def __init__(
        self,
        path: Path,
        *,
        bands: int,
        dtype: str,
        grid: GeoBox,
        nodata: float,
        fingerprint: str,
        names: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
        colors: Mapping[int, tuple[int, int, int]] | None = None,
        scales: Sequence[float] = (),
        units: str = "",
    ) -> None:
        """Start or continue a raster.

        Args:
            path: Path of the finished COG; the unfinished file lies beside it.
            bands: Number of bands.
            dtype: NumPy name.
            grid: Grid of the output.
            nodata: Value of what was not seen.
            fingerprint: Hash of everything that decides the content; an unfinished file of another one is replaced.
            names: Band descriptions.
            tags: Dataset tags.
            colors: Colour table of a class map.
            scales: Per band, physical units per count.
            units: Of all bands.
        """
        self._path = path
        self._state, self._partial = _unfinished(path)
        self._fingerprint = fingerprint
        with telling_where(path):
            make_folder(path.parent)
        self.first_row = self._resume_row()
        if self.first_row:
            return
        rows, columns = grid.shape
        profile = {
            "driver": "GTiff",
            "height": rows,
            "width": columns,
            "count": bands,
            "dtype": dtype,
            "crs": str(grid.crs),
            "transform": grid.affine,
            "nodata": nodata,
            "tiled": True,
            "blockxsize": BLOCK,
            "blockysize": BLOCK,
            "interleave": "band",
            "bigtiff": "IF_SAFER",
            "sparse_ok": True,
        }
        with telling_where(path, *WRITE_ERRORS), rasterio.open(self._partial, "w", **profile) as target:
            for number, name in enumerate(names, start=1):
                target.set_band_description(number, name)
            target.update_tags(**(tags or {}))
            if colors:
                target.write_colormap(1, dict(colors))
            if scales:
                target.scales = tuple(scales)
            if units:
                target.units = (units,) * bands
        write_json(self._state, {"fingerprint": fingerprint, "rows": 0})

    def write(self, row: int, strip: npt.NDArray[np.generic]) -> None:
        """Write rows `(bands, rows, columns)` from a first row on, and remember that they are done."""
        with telling_where(self._partial, *WRITE_ERRORS):
            with rasterio.Env(**GDAL_OPTIONS), rasterio.open(self._partial, "r+") as target:
                target.write(strip, window=Window(0, row, strip.shape[-1], strip.shape[-2]))
            flush(self._partial)  # a power cut leaves no row that is called done and is not there
        write_json(self._state, {"fingerprint": self._fingerprint, "rows": row + strip.shape[-2]})

    def finish(self) -> Path:
        """Turn what was written into the finished COG and return its path."""
        with (
            telling_where(self._path, *WRITE_ERRORS),
            whole_file(self._path) as temporary,
            rasterio.Env(**GDAL_OPTIONS),  # GDAL's own cache would be 5 % of the machine
        ):
            copy_raster(
                self._partial,
                temporary,
                driver="COG",
                compress="DEFLATE",
                blocksize=BLOCK,
                overview_resampling="NEAREST",
                bigtiff="IF_SAFER",
            )
        self._partial.unlink()
        self._state.unlink(missing_ok=True)
        return self._path

    def _resume_row(self) -> int:
        fingerprint, rows = _begun(self._state)
        if fingerprint != self._fingerprint or not self._partial.is_file():
            return 0
        try:
            with rasterio.open(self._partial):
                return rows
        except RasterioError as error:
            logger.warning("%s is torn (%s): it is begun again", self._partial, error)
            return 0
