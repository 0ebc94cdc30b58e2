"""A folder of small georeferenced scenes with masks, as a user would lay it out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from a2mae.tasks.datasets.formats import layout_named
from a2mae.tasks.datasets.polygons import FolderLabels

S2 = layout_named("sentinel-2-l2a", bands=("red", "green", "blue"))
CLASSES = ("ground", "roof", "water")
LABELS = FolderLabels(CLASSES)
UTM = "EPSG:32633"
SPLITS = ("train", "train", "train", "val", "test")


def corner(number: int) -> tuple[int, int]:
    """Upper left corner of a scene in `UTM`, metres."""
    return 500_000 + 30_000 * number, 5_200_000


def save(path: Path, array: np.ndarray, *, crs=None, at=(500_000, 5_200_000), nodata=None) -> Path:
    """Write `(C, H, W)` or `(H, W)`; with a CRS in pixels of ten metres."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = array if array.ndim == 3 else array[None]
    place = {"crs": crs, "transform": Affine(10, 0, at[0], 0, -10, at[1])} if crs else {}
    shape = dict(zip(("count", "height", "width"), array.shape, strict=True))
    with rasterio.open(path, "w", driver="GTiff", dtype=array.dtype.name, nodata=nodata, **shape, **place) as target:
        target.write(array)
    return path


def counts(rng: np.random.Generator, cover: np.ndarray) -> np.ndarray:
    """Sentinel-2 counts of three covers."""
    physical = np.array([[0.2, 0.2, 0.2], [0.5, 0.2, 0.2], [0.02, 0.03, 0.06]])[cover].transpose(2, 0, 1)
    return np.round((physical + rng.normal(0, 0.003, physical.shape) + 0.1) * 1e4).astype(np.uint16)


def write_scenes(folder: Path) -> Path:
    """Five georeferenced scenes of 48 x 40 pixels with masks, 30 km apart, in folders per split."""
    rng = np.random.default_rng(0)
    for number, split in enumerate(SPLITS):
        cover = np.kron(rng.integers(0, 3, (6, 5)), np.ones((8, 8), int)).astype(np.uint8)
        cover[0, :3] = (0, 1, 2)  # every class in every scene
        save(folder / split / "images" / f"s{number}.tif", counts(rng, cover), crs=UTM, at=corner(number))
        save(folder / split / "masks" / f"s{number}.tif", cover, crs=UTM, at=corner(number))
    return folder
