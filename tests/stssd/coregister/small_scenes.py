"""Scenes of one band around one small square, written to disk with their cloud masks."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter
from shapely.geometry import box

from a2mae.raster.warp import Footprint
from a2mae.scenes import BandAsset, CloudTest, MaskKind, Role, Scene
from a2mae.sensors import Sensor, Units, get_sensor

GSD, PIXELS, MARGIN = 10.0, 64, 16  # of a footprint, and around it
LEFT, TOP = 500_000.0, 5_700_000.0
SQUARE = Footprint("here", "EPSG:32633", LEFT, TOP, PIXELS * GSD)
LON, LAT = 15.0, 51.45


def sensor_of(name: str) -> Sensor:
    like = get_sensor("gaofen-1").subset(["B1"])
    return Sensor(name, name, GSD, like.bands, like.encoding)


SENSORS = {name: sensor_of(name) for name in ("one", "two", "three")}
GROUND = 0.2 + 0.05 * gaussian_filter(np.random.default_rng(0).normal(size=(PIXELS + 2 * MARGIN,) * 2), 1.0)


def scene(
    folder: Path,
    scene_id: str,
    *,
    sensor: str = "one",
    month: int = 6,
    moved_m: tuple[float, float] = (0.0, 0.0),
    unseen: float = 0.0,
    cloudy: float = 0.0,
    ground: NDArray[np.generic] = GROUND,
) -> Scene:
    """A scene of one band and its cloud mask on disk.

    Args:
        folder: Where its files go.
        scene_id: Its id.
        sensor: Its sensor.
        month: Of 2023.
        moved_m: How far its provider has put it from where it lies (east, north), metres.
        unseen: Share of the footprint's rows, from the top, without a value.
        cloudy: Share of the footprint's rows, from the bottom, that the mask calls cloud.
        ground: What it shows, as reflectance or as integers of 1e-4 with 0 for nothing. Its pixels may be finer.
    """
    finer = len(ground) // (PIXELS + 2 * MARGIN)
    rows, margin, gsd = PIXELS * finer, MARGIN * finer, GSD / finer
    counts = ground.dtype.kind == "u"
    pixels, mask = ground.astype(ground.dtype if counts else "float32"), np.zeros(ground.shape, "uint8")
    if unseen:
        pixels[: margin + round(unseen * rows)] = 0 if counts else np.nan
    if cloudy:
        mask[margin + round((1 - cloudy) * rows) :] = 1
    origin = from_origin(LEFT - MARGIN * GSD + moved_m[0], TOP + MARGIN * GSD + moved_m[1], gsd, gsd)
    assets = []
    for name, values in (("B1", pixels), ("mask", mask)):
        profile = {"height": len(values), "width": len(values), "count": 1, "dtype": values.dtype, "crs": "EPSG:32633"}
        path = folder / f"{scene_id}_{name}.tif"
        with rasterio.open(path, "w", driver="GTiff", transform=origin, **profile) as target:
            target.write(values, 1)
        meaning = (1e-4, 0.0, 0) if counts and name == "B1" else (1.0, 0.0, None)
        role, kind = (Role.CLOUD_MASK, MaskKind.BINARY) if name == "mask" else (Role.DATA, MaskKind.NONE)
        assets.append(BandAsset(name, str(path), 1, *meaning, Units.REFLECTANCE, gsd, role=role, mask=kind))
    when = dt.datetime(2023, month, 1, 10, tzinfo=dt.UTC)
    outline = box(14, 51, 16, 52)
    return Scene(scene_id, sensor, when, "", SQUARE.crs, GSD, outline, tuple(assets), cloud_test=CloudTest.MASK)
