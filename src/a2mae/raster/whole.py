"""Read a whole raster as it is stored: training images and masks, with or without a place."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from a2mae.errors import InputError, ReadError, RejectedError
from a2mae.raster.files import OpenFile, filled_in_all
from a2mae.raster.footprints import ground_size_m
from a2mae.raster.header import MOST_BYTES, MOST_PACKED, FileBands, claimed_bytes, crs_text
from a2mae.raster.opening import first_line, gdal_env, open_raster
from a2mae.raster.statements import implied_fill
from a2mae.remote.policy import RemoteAccess
from a2mae.sensors import Encoding


@dataclass(frozen=True, eq=False)
class WholeRaster:
    """A raster as it is stored.

    Attributes:
        bands: What the file says of its bands.
        stored: Numbers `(C, H, W)`, without an alpha band that is no data.
        seen: `(H, W)` bool: every band holds a number that is not nodata, and no mask hides it.
        grid: Where the pixels lie; None where the file does not say.
        gsd_m: Size of a pixel on the ground, metres; None where the file does not say.
    """

    bands: FileBands
    stored: NDArray[Any]
    seen: NDArray[np.bool_]
    grid: GeoBox | None
    gsd_m: float | None


def header_of(path: Path) -> tuple[FileBands, float | None]:
    """Read what a file says of its bands and of the size of its pixels on the ground, metres (None: nothing).

    Raises:
        ReadError: If the file cannot be opened.
        RejectedError: If it is of a kind that is not read, or claims a size beyond bounds.
    """
    with _opened(path) as file:
        return file.bands, _place(file)[1]


def read_whole(path: Path, expected: int, encoding: Encoding | None = None) -> WholeRaster:
    """Read every band of a raster.

    Args:
        path: Of a local file in one of the formats that are read.
        expected: How many bands hold data. One more that is flagged as alpha says where the others were seen; among
            them, it is data like the others.
        encoding: Of the format, whose nodata stands for fill where the file declares none; None: nothing does.

    Raises:
        ReadError: If the file cannot be opened or decoded.
        RejectedError: If it is of a kind that is not read, or claims a size beyond bounds.
    """
    with _opened(path) as file:
        bands = file.bands
        _check_memory(path, file)
        masking = bands.alpha if bands.count == expected + 1 else None
        seen = np.ones(bands.shape, np.bool_)
        numbers, fills = [], []
        for index in range(1, bands.count + 1):
            if index == masking:
                continue
            stored, unseen = file.read(index, bands.nodata[index - 1], alpha_is_data=masking is None)
            fill = None if encoding is None else implied_fill(bands, index, encoding)
            fills.append(None if fill is None else stored == fill)
            numbers.append(stored)
            if unseen is not None:
                seen &= ~unseen
        empty = filled_in_all(fills)
        if empty is not None:
            seen &= ~empty
        grid, gsd_m = _place(file)
    return WholeRaster(bands, np.stack(numbers), seen, grid, gsd_m)


def _check_memory(path: Path, file: OpenFile) -> None:
    """Refuse a header that claims more than is read at once, or than a file of its length can hold."""
    rows, columns = file.bands.shape
    needed = claimed_bytes(file.dataset)
    if needed > MOST_BYTES:
        raise RejectedError(
            "too_large",
            f"{path}: {file.bands.count} bands of {columns} x {rows} px are {needed / 2**30:.1f} GiB, and up to"
            f" {MOST_BYTES / 2**30:g} GiB are read at once: cut it into parts",
        )
    size = path.stat().st_size
    if file.dataset.driver == "PNG" and needed > 8 * MOST_PACKED * size:  # a pixel may be a bit
        raise ReadError(f"{path} cannot be read: no PNG of {size:,} bytes holds {columns} x {rows} px; take it afresh")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[OpenFile]:
    access = RemoteAccess()
    try:
        with warnings.catch_warnings(), gdal_env(access.reading):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_raster(str(path), str(path), access) as source:
                yield OpenFile(source, str(path))
    except (RasterioError, OSError) as error:
        raise ReadError(f"{path} cannot be read: {first_line(error)}") from error
    except RejectedError as rejection:
        if rejection.reason != "corrupt":
            raise
        raise ReadError(rejection.detail) from rejection


def _place(file: OpenFile) -> tuple[GeoBox | None, float | None]:
    """Where an open file lies, and the size of its pixels on the ground."""
    source = file.dataset
    if source.crs is None:
        return None, None
    try:
        gsd_m = ground_size_m(source.transform, source.shape, crs_text(source.crs))
    except InputError:  # a local CRS lies nowhere
        return None, None
    return GeoBox(source.shape, source.transform, source.crs.to_string()), gsd_m
