"""Open raster files: kept open between pieces of work, asked once for what every window needs.

An open raster file: what is asked of it for every window is asked of GDAL once, and so are its warnings.

Files that stay open from one piece of a build to the next: neighbouring pieces read the same blocks.

The part of a source file that a footprint's grid needs.
"""

from __future__ import annotations

import functools
import logging
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from a2mae.errors import ReadError
from a2mae.raster.header import first_line
from a2mae.raster.resample import SourceMap

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_REMEMBERED = 10_000  # warnings


class _OnlyOnce(logging.Filter):
    """Lets a message through the first time: GDAL says of a file with every window what it said when it opened it."""

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
    """From now on a warning of GDAL that was logged is not logged again by this process."""
    logging.getLogger("rasterio._env").addFilter(_OnlyOnce())


@dataclass(frozen=True, eq=False)
class OpenFile:
    """An open file, and what is asked of it for every window.

    Attributes:
        dataset: The file.
        shown: Its name for messages.
    """

    dataset: DatasetReader
    shown: str
    _known: dict[str, tuple[object, ...]] = field(default_factory=dict)
    _crs_texts: dict[str, str] = field(default_factory=dict)
    _masked: dict[int, bool] = field(default_factory=dict)

    def place(self) -> tuple[object, ...]:
        """The source grid: bands that share it are warped together.

        Raises:
            ReadError: If it has no coordinate reference system.
        """
        if "place" not in self._known:
            if self.dataset.crs is None:
                raise ReadError(f"{self.shown} has no coordinate reference system", "no_crs")
            self._known["place"] = (*self.transform[:6], self.dataset.crs.to_wkt(), *self.dataset.shape)
        return self._known["place"]

    @functools.cached_property
    def transform(self) -> Affine:
        """Pixel to coordinates (GDAL is asked once)."""
        return self.dataset.transform

    def crs_as(self, wanted: str) -> str:
        """The reference system as text: the wanted one's where they are the same."""
        if wanted not in self._crs_texts:
            crs = self.dataset.crs
            self._crs_texts[wanted] = wanted if crs == crs_of(wanted) else str(crs.to_wkt())
        return self._crs_texts[wanted]

    def has_mask(self, index: int) -> bool:
        """Whether a band has a mask of its own (nodata is compared with, not read as a mask)."""
        if index not in self._masked:
            flags = self.dataset.mask_flag_enums[index - 1]
            self._masked[index] = MaskFlags.alpha in flags or flags == [MaskFlags.per_dataset]
        return self._masked[index]


@functools.lru_cache(maxsize=64)
def crs_of(text: str) -> CRS:
    """A coordinate reference system, parsed once."""
    return CRS.from_string(text)


def source_window(dataset: DatasetReader, grid: GeoBox, target: Affine, name: str) -> Window | None:
    """The part of the source that the grid needs, kernel included; None where they do not meet."""
    height, width = grid.shape
    left, top = target @ (0, 0)
    right, bottom = target @ (width, height)
    bounds = (left, bottom, right, top)
    crs = crs_of(str(grid.crs))
    if dataset.crs != crs:
        try:
            bounds = transform_bounds(crs, dataset.crs, *bounds, densify_pts=5)
        except RasterioError as error:
            raise ReadError(f"{name}: footprint cannot be transformed to {dataset.crs}: {first_line(error)}") from error
    inverse = ~dataset.transform
    corners = [inverse @ (x, y) for x in (bounds[0], bounds[2]) for y in (bounds[1], bounds[3])]
    columns, rows = [c for c, _ in corners], [r for _, r in corners]
    return _padded(dataset, (min(columns), max(columns), min(rows), max(rows)), (height, width))


def mapped_window(dataset: DatasetReader, way: SourceMap) -> Window | None:
    """As `source_window`, of a map that is known."""
    return _padded(dataset, way.bounds(), way.shape)


def _padded(dataset: DatasetReader, bounds: tuple[float, float, float, float], shape: tuple[int, int]) -> Window | None:
    """The window of a footprint's bounds in source pixels, kernel included; None outside the source."""
    left, right, top, bottom = bounds
    # Cubic needs two source pixels beside the last, as many times more as the grid is coarser than the source.
    pad_x = 3 + math.ceil(2 * max(1.0, (right - left) / shape[1]))
    pad_y = 3 + math.ceil(2 * max(1.0, (bottom - top) / shape[0]))
    x0, x1 = max(0, math.floor(left) - pad_x), min(dataset.width, math.ceil(right) + pad_x)
    y0, y1 = max(0, math.floor(top) - pad_y), min(dataset.height, math.ceil(bottom) + pad_y)
    if x0 >= x1 or y0 >= y1:
        return None
    return Window(x0, y0, x1 - x0, y1 - y0)
