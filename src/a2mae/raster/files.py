"""Open raster files: which of their pixels were seen, and the part of them that a grid needs.

Scenes, training images, masks and maps are all read by `OpenFile.read`. GDAL is asked once per file for what every
window needs, and its warnings are logged once.
"""

from __future__ import annotations

import functools
import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
from a2mae.raster.footprints import ground_size_m
from a2mae.raster.header import NEVER_MEASURED, FileBands, bands_of, crs_text
from a2mae.raster.opening import first_line
from a2mae.raster.resample import SourceMap, near_longitude

WRITE_ERRORS: tuple[type[Exception], ...] = (RasterioError, CPLE_BaseError)
"""What a raster that cannot be written raises; GDAL's own words do not say that the disk is full."""
_REMEMBERED = 10_000  # warnings
_MOST_BETWEEN = 0.05
"""Share of an alpha band that may be half transparent: soft edges."""


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
    def bands(self) -> FileBands:
        """What the file says of its bands."""
        return bands_of(self.dataset)

    @functools.cached_property
    def gsd_m(self) -> float:
        """Size of its pixels on the ground, metres."""
        return ground_size_m(self.transform, self.dataset.shape, crs_text(self.dataset.crs))

    @functools.cached_property
    def _masked(self) -> tuple[bool, ...]:
        """Whether each band has a mask of its own, in the file or in a `.msk` beside it (nodata is compared with)."""
        return tuple(flags == [MaskFlags.per_dataset] for flags in self.dataset.mask_flag_enums)

    def read(
        self, index: int, nodata: float | None, *, window: Window | None = None, alpha_is_data: bool = False
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read the stored numbers of a band, and which of them were not seen.

        Args:
            index: The band, counted from 1.
            nodata: The number that stands for "not seen"; None where none does.
            window: The part that is read; None: all of it.
            alpha_is_data: The file's alpha band is one of the sensor's bands, so it masks nothing.

        Returns:
            Numbers `(H, W)`; and True where they are nodata, masked, not finite or beyond 1e30. None: all were seen.

        Raises:
            RasterioError: If pixels cannot be decoded.
            ReadError: "alpha" if an alpha band that would mask holds data.
        """
        stored = self.dataset.read(index, window=window)
        unseen = unseen_numbers(stored, nodata)
        hidden = [self.dataset.read_masks(index, window=window) == 0] if self._masked[index - 1] else []
        if self.bands.alpha not in (None, index) and not alpha_is_data:  # GDAL heeds it in files without nodata alone
            hidden.append(self._hidden_by_alpha(window))
        for masked in hidden:
            unseen = masked if unseen is None else unseen | masked
        return stored, unseen

    def _hidden_by_alpha(self, window: Window | None) -> NDArray[np.bool_]:
        """Tell where the alpha band hides pixels; it must be one, and no band of light that is flagged so."""
        alpha = self.dataset.read(self.bands.alpha, window=window)
        between = (alpha != 0) & (alpha != alpha.max())
        if between.mean() > _MOST_BETWEEN:
            raise ReadError(
                f"{self.shown}: band {self.bands.alpha} is flagged as alpha, but holds more than shown and hidden: if"
                " it is data, as NAIP's near infrared is, name it in the rule's bands or in file_bands; else clear the"
                " flag (rio edit-info --colorinterp 4=undefined)",
                "alpha",
            )
        return np.asarray(alpha == 0)


def unseen_numbers(stored: NDArray[Any], nodata: float | None) -> NDArray[np.bool_] | None:
    """Tell which numbers stand for nothing: nodata, and floats that are not finite or beyond what is measured.

    Args:
        stored: Numbers as a file has them.
        nodata: The one that stands for "not seen"; floats equal it within the last digits of their type.

    Returns:
        Of the numbers' shape; None where all stand for something.
    """
    unseen: NDArray[np.bool_] | None = None
    is_float = stored.dtype.kind == "f"
    if is_float:
        with np.errstate(invalid="ignore"):
            unseen = ~(np.abs(stored) <= NEVER_MEASURED)  # NaN is not below anything
    if nodata is not None and math.isfinite(nodata):
        if is_float:
            with np.errstate(invalid="ignore", over="ignore"):
                empty = np.abs(stored - stored.dtype.type(nodata)) <= 4 * np.finfo(stored.dtype).eps * abs(nodata)
        elif float(nodata).is_integer():  # the pixels need not become floats to be compared
            empty = stored == int(nodata)
        else:
            return unseen
        unseen = empty if unseen is None else unseen | empty
    return unseen if unseen is not None and unseen.any() else None


def filled_in_all(fills: Sequence[NDArray[np.bool_] | None]) -> NDArray[np.bool_] | None:
    """Tell where every band holds its fill: there nothing was seen; None where a band has no fill."""
    found = [fill for fill in fills if fill is not None]
    return np.logical_and.reduce(found) if found and len(found) == len(fills) else None


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
    if not all(map(math.isfinite, (left, right, top, bottom))):
        raise ReadError(
            f"{file.shown}: its reference system, {crs_text(file.dataset.crs)[:80]}, cannot express a footprint in"
            f" {grid.crs}: write the real one with gdal_edit -a_srs EPSG:…, or bring the file to UTM with gdalwarp"
        )
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
