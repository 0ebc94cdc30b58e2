"""Cloud-optimised GeoTIFFs with all that a reader needs inside, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from a2mae.files import whole_file
from a2mae.simulate.delivery.deliver import Asset
from a2mae.simulate.ground.covers import CLASSES
from a2mae.simulate.region import Grid


def _write(
    path: Path,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    grid: Grid,
    *,
    nodata: int,
    names: Sequence[str],
    scale: float = 1.0,
    offset: float = 0.0,
    overview: str = "AVERAGE",
    colors: Mapping[int, tuple[int, int, int]] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    with (
        whole_file(path) as temporary,
        rasterio.Env(GDAL_NUM_THREADS="1", GDAL_PAM_ENABLED="NO"),
        rasterio.open(
            temporary,
            "w",
            driver="COG",
            count=pixels.shape[0],
            height=grid.height,
            width=grid.width,
            dtype=pixels.dtype,
            crs=f"EPSG:{grid.epsg}",
            transform=grid.transform,
            nodata=nodata,
            compress="DEFLATE",
            predictor="STANDARD",
            blocksize=256,
            resampling=overview,
        ) as target,
    ):
        if colors is None:
            target.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (pixels.shape[0] - 1)
        else:
            target.write_colormap(1, {value: (*color, 255) for value, color in colors.items()})
        target.scales = (scale,) * pixels.shape[0]
        target.offsets = (offset,) * pixels.shape[0]
        target.descriptions = tuple(names)
        target.update_tags(**(tags or {}))
        target.write(pixels)


def write_asset(path: Path, asset: Asset) -> None:
    """Write one file of a scene: counts with scale, offset, nodata and band names in its tags."""
    _write(
        path,
        asset.pixels,
        asset.grid,
        nodata=asset.encoding.nodata,
        names=[band.name for band in asset.bands] or [asset.key],
        scale=asset.encoding.scale if asset.bands else 1.0,
        offset=asset.encoding.offset if asset.bands else 0.0,
        overview="AVERAGE" if asset.bands else "NEAREST",
        tags={"AREA_OR_POINT": "Area"},
    )


def write_land_cover(path: Path, classes: NDArray[np.uint8], grid: Grid) -> None:
    """Write a land-cover truth with its colour table; names are in the tag `CLASS_NAMES`."""
    _write(
        path,
        classes[None],
        grid,
        nodata=0,
        names=["land_cover"],
        overview="MODE",
        colors={entry.value: entry.color for entry in CLASSES},
        tags={"CLASS_NAMES": json.dumps({str(entry.value): entry.name for entry in CLASSES})},
    )


def write_mask(path: Path, mask: NDArray[np.uint8], grid: Grid, names: Mapping[int, str]) -> None:
    """Write a truth mask (255 is nodata); what its values mean is in the tag `CLASS_NAMES`."""
    tags = {"CLASS_NAMES": json.dumps({str(value): name for value, name in names.items()})}
    _write(path, mask[None], grid, nodata=255, names=["mask"], overview="NEAREST", tags=tags)
