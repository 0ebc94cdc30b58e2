"""The part of a source file that a footprint's grid needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from a2mae.stssd.access.headers import first_line
from a2mae.stssd.pixels.resample import SourceMap
from a2mae.stssd.pixels.source_files import crs_of
from a2mae.stssd.refusals import ReadError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


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
