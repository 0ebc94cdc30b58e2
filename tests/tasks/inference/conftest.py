"""Small rasters, an encoder and its plan for the tests of this room."""

from __future__ import annotations

import contextlib
import datetime as dt

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from shapely import box

from a2mae.models.registry import create_model
from a2mae.scenes import BandAsset, CloudTest, MaskKind, Role, Scene
from a2mae.sensors import BUILTIN_SENSORS, Units
from a2mae.tasks.datasets.inputs import plan_bands
from a2mae.tasks.tiling import StripWriter
from helpers.task_samples import SENTINEL2, seen

CPU = torch.device("cpu")
RGB = ("red", "green", "blue")
NAMES, ORIGIN = ("B04", "B03", "B02"), (500_000, 5_200_000)
UTM = "EPSG:32633"
STATISTICS = {SENTINEL2.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}
L1C = BUILTIN_SENSORS["sentinel-2-l1c"]
TAUGHT = {L1C.id: {name: [0.1, 0.05] for name in NAMES}}
GROUND = np.array([0.06, 0.105, 0.12])
"""Reflectance of a green landscape from above the atmosphere."""


def write_raster(path, counts, *, nodata=0, crs=UTM, names=NAMES, origin=ORIGIN, scale=None, offset=0.0):
    bands, height, width = counts.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": counts.dtype.name, "nodata": nodata}
    place = {"crs": crs, "transform": Affine(10, 0, origin[0], 0, -10, origin[1])} if crs else {}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as target:
        target.write(counts)
        for number, name in enumerate(names, start=1):
            target.set_band_description(number, name)
        if scale is not None:
            target.scales, target.offsets = (scale,) * bands, (offset,) * bands
    return path


@pytest.fixture
def cover():
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 3, (11, 15)), np.ones((8, 8), int)).astype(np.uint8)[:84, :117]


@pytest.fixture
def scene(tmp_path, cover):
    """84 x 117 pixels: no multiple of anything, with a hole of nodata."""
    counts = seen(np.random.default_rng(1), cover)
    counts[:, 20:45, 30:60] = 0
    return write_raster(tmp_path / "scene.tif", counts)


@pytest.fixture
def cloudy_scene(scene, tmp_path):
    """The scene with a mask of 20 m: some cloud, shadow and fill, and cloud along the lower edge."""
    classes = np.full((42, 59), 4, np.uint8)  # vegetation
    classes[10, 20], classes[30, 5:9], classes[2, 50], classes[41] = 9, 3, 0, 8
    with rasterio.open(
        tmp_path / "scl.tif", "w", driver="GTiff", count=1, height=42, width=59, dtype="uint8",
        crs=UTM, transform=Affine(20, 0, ORIGIN[0], 0, -20, ORIGIN[1]),
    ) as target:  # fmt: skip
        target.write(classes, 1)
    encoding = SENTINEL2.encoding
    bands = [
        BandAsset(name, str(scene), number, encoding.scale, encoding.offset, 0, encoding.units, 10.0)
        for number, name in enumerate(NAMES, start=1)
    ]
    mask = BandAsset("SCL", str(tmp_path / "scl.tif"), 1, 1.0, 0.0, None, Units.DN, 20.0, Role.CLOUD_MASK, MaskKind.SCL)
    taken, outline = dt.datetime(2024, 6, 1, tzinfo=dt.UTC), box(14, 46, 15, 47)
    return Scene("cloudy", SENTINEL2.id, taken, "", UTM, 10.0, outline, (*bands, mask), CloudTest.MASK)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=3, decoder_dim=32).encoder.eval()


@pytest.fixture
def plan():
    return plan_bands(SENTINEL2, RGB, STATISTICS, bands_per_view=3, location=True)


@contextlib.contextmanager
def stopped_at_the_third_strip():
    """What is drawn inside is stopped there; the first rows of the strips that it came to."""
    rows, written = [], StripWriter.write

    def write(self, row, strip):
        rows.append(row)
        if len(rows) == 3:
            raise KeyboardInterrupt
        written(self, row, strip)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StripWriter, "write", write)
        yield rows


def l1c_landscape():
    rng = np.random.default_rng(0)
    return np.clip(GROUND[:, None, None] + rng.normal(0, 0.01, (3, 64, 64)), 0.005, None)


def l1c_counts(offset=0.0):
    return np.round((l1c_landscape() - offset) * 1e4).astype(np.uint16)
