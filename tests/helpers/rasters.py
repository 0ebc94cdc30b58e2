"""Writes small real GeoTIFFs for the tests of ingest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin


def write_tif(
    path: Path,
    *,
    bands: int = 1,
    size: tuple[int, int] = (200, 200),
    gsd: float = 10.0,
    left: float = 500_160.0,
    top: float = 4_649_280.0,
    crs: str | None = "EPSG:32633",
    dtype: str = "uint16",
    nodata: float | None = 0,
    **profile,
) -> Path:
    """A seeded raster; `gsd`, `left` and `top` are in units of the CRS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(1, 250, size=(bands, *size)).astype(dtype)
    settings = {
        "driver": "GTiff", "count": bands, "height": size[0], "width": size[1], "dtype": dtype, "nodata": nodata,
        "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", **profile,
    }  # fmt: skip
    if crs is not None:
        settings |= {"crs": crs, "transform": from_origin(left, top, gsd, gsd)}
    with rasterio.open(path, "w", **settings) as target:
        target.write(pixels)
    return path
