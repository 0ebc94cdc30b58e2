"""Small maps for the tests of this room."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from affine import Affine

UTM = "EPSG:32633"
ORIGIN = (500_000, 5_200_000)
NAMES = {0: "water", 1: "forest", 2: "field & meadow"}
COLOURS = {0: (38, 92, 178), 1: (56, 142, 60), 2: (240, 214, 90)}


def write_map(folder, classes, confidence=None, *, crs=UTM, pixel=10.0, names=NAMES):
    """A map as the segment stage writes it, and its confidence."""
    height, width = classes.shape
    shape = {"count": 1, "height": height, "width": width, "dtype": "uint8", "nodata": 255, "driver": "GTiff"}
    place = {"crs": crs, "transform": Affine(pixel, 0, ORIGIN[0], 0, -pixel, ORIGIN[1])}
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.open(folder / "map.tif", "w", **shape, **place) as target:
        target.write(classes, 1)
        target.write_colormap(1, COLOURS)
        target.update_tags(
            CLASS_NAMES=json.dumps(names),
            DATES='["early", "late"]',
            DATETIMES='["2021-06-01T10:00:00+00:00", "2024-06-01T10:00:00+00:00"]',
        )
    confidence = np.full(classes.shape, 200, np.uint8) if confidence is None else confidence
    with rasterio.open(folder / "confidence.tif", "w", **shape, **place) as target:
        target.write(np.where(classes == 255, 255, confidence).astype(np.uint8), 1)
        target.scales = (1 / 250,)
    return folder / "map.tif", folder / "confidence.tif"


def patchy(shape, seed=0, classes=3, hole=True):
    """Patches of classes with ragged borders, and ground that nobody saw."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, [side // 6 + 2 for side in shape])
    fine = np.kron(coarse, np.ones((6, 6), int))[: shape[0], : shape[1]]
    found = np.where(rng.random(shape) < 0.1, rng.integers(0, classes, shape), fine).astype(np.uint8)
    if hole:
        found[shape[0] // 3 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 255
    return found


@pytest.fixture
def classes():
    return patchy((70, 90))


@pytest.fixture
def mapped(tmp_path, classes):
    return write_map(tmp_path / "made", classes)
