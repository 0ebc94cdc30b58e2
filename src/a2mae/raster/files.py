"""Open raster files, and the part of them that a grid needs.

GDAL is asked once per file for what every window needs, and its warnings are logged once.
"""

from __future__ import annotations

import functools
import logging
import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from a2mae.errors import ReadError
from a2mae.raster.header import first_line
from a2mae.raster.resample import SourceMap, near_longitude

WRITE_ERRORS: tuple[type[Exception], ...] = (RasterioError, CPLE_BaseError)
"""What a raster that cannot be written raises; GDAL's own words do not say that the disk is full."""
_REMEMBERED = 10_000  # warnings


class _OnlyOnce(logging.Filter):
    """Lets a message through the first time: GDAL repeats with every window what it said when it opened the file."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[str, None] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in self._seen
        self._seen[text] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return new or record.levelno >= logging.ERROR


@functools.cache
def warn_once() -> None:
    """Log each warning of GDAL once per process."""
    logging.getLogger("rasterio._env").addFilter(_OnlyOnce())


@dataclass(frozen=True, eq=False)
class OpenFile:
    """An open file, and what every window needs of it.

    Attributes:
        dataset: The file.
        shown: Its name for messages.
    """

    dataset: DatasetReader
    shown: str

    @functools.cached_property
    def transform(self) -> Affine:
        """Pixel to coordinates."""
        return self.dataset.transform

    @functools.cached_property
    def crs_wkt(self) -> str:
        """The coordinate reference system.

        Raises:
            ReadError: If the file has none.
        """
        if self.dataset.crs is None:
            raise ReadError(f"{self.shown} has no coordinate reference system", "no_crs")
        return str(self.dataset.crs.to_wkt())

    @functools.cached_property
    def middle_lon(self) -> float | None:
        """Longitude of its middle, where its coordinates are degrees."""
        crs, (height, width) = self.dataset.crs, self.dataset.shape
        return float((self.transform @ (width / 2, height / 2))[0]) if crs is not None and crs.is_geographic else None

    @functools.cached_property
    def grid(self) -> tuple[object, ...]:
        """The source grid as a key: bands that share it are warped together."""
        return (*self.transform[:6], self.crs_wkt, *self.dataset.shape)

    @functools.cached_property
    def has_mask(self) -> tuple[bool, ...]:
        """Whether each band has a mask of its own (nodata is compared with, not read as a mask)."""
        return tuple(
            MaskFlags.alpha in flags or flags == [MaskFlags.per_dataset] for flags in self.dataset.mask_flag_enums
        )


@functools.lru_cache(maxsize=64)
def crs_of(text: str) -> CRS:
    """Parse a coordinate reference system, once."""
    return CRS.from_string(text)


@functools.lru_cache(maxsize=256)
def same_text(crs: str, wanted: str) -> str:
    """Return the wanted reference system's text if the two are the same system, else the first one's."""
    return wanted if crs_of(crs) == crs_of(wanted) else crs


def source_window(file: OpenFile, grid: GeoBox, target: Affine, way: SourceMap | None) -> Window | None:
    """Find the part of a file that a grid needs, kernel included.

    Args:
        file: The file.
        grid: The grid.
        target: Its pixels to coordinates, moved by the shift.
        way: The map from its pixels to those of the file, if it is known.

    Returns:
        The window; None where the two do not meet.

    Raises:
        ReadError: If the grid cannot be transformed to the file's coordinates.
    """
    height, width = grid.shape
    left, right, top, bottom = _bounds(file, grid, target) if way is None else way.bounds()
    # Cubic needs two source pixels beside the last, as many times more as the grid is coarser than the source.
    pad_x = 3 + math.ceil(2 * max(1.0, (right - left) / width))
    pad_y = 3 + math.ceil(2 * max(1.0, (bottom - top) / height))
    x0, x1 = max(0, math.floor(left) - pad_x), min(file.dataset.width, math.ceil(right) + pad_x)
    y0, y1 = max(0, math.floor(top) - pad_y), min(file.dataset.height, math.ceil(bottom) + pad_y)
    if x0 >= x1 or y0 >= y1:
        return None
    return Window(x0, y0, x1 - x0, y1 - y0)


def _bounds(file: OpenFile, grid: GeoBox, target: Affine) -> tuple[float, float, float, float]:
    """Smallest and largest column, smallest and largest row of a grid in pixels of a file."""
    left, top = target @ (0, 0)
    right, bottom = target @ (grid.shape[1], grid.shape[0])
    bounds = (left, bottom, right, top)
    crs = crs_of(str(grid.crs))
    if file.dataset.crs != crs:
        try:
            bounds = transform_bounds(crs, file.dataset.crs, *bounds, densify_pts=5)
        except RasterioError as error:
            raise ReadError(
                f"{file.shown}: footprint cannot be transformed to {file.dataset.crs}: {first_line(error)}"
            ) from error
    left, right = near_longitude(np.array([bounds[0], bounds[2]]), file.middle_lon)
    corners = [~file.transform @ (x, y) for x in (left, right) for y in (bounds[1], bounds[3])]
    columns, rows = [c for c, _ in corners], [r for _, r in corners]
    return min(columns), max(columns), min(rows), max(rows)
