"""The same scenes give the same store for as long as `BUILD_VERSION` stays: finished shards are kept by that number."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin

from a2mae.scenes import BandAsset, CloudTest, MaskKind, Role, Scene, scenes_to_table
from a2mae.sensors import BUILTIN_SENSORS, Units
from a2mae.stssd.coregister.build import build
from a2mae.stssd.coregister.work import BUILD_VERSION
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store.store import ImageSetStore

PINNED = {7: "83c70feffcedb9d945c585c4f377354330f2d72bfb62392f65884121a3a07ef6"}
"""Of `digest`, by the version of the build that gave it."""

CRS, LEFT, TOP, FOOTPRINT_M, SENSOR = "EPSG:32633", 500_160.0, 4_649_280.0, 1920.0, "landsat-oli-c2-l2"
GSD_M, SIDE = 30.0, 96  # pixels of a scene: the footprint and 480 m on every side


def ground() -> np.ndarray:
    """`(SIDE, SIDE)` integers from 0 to about 6,000: noise, thrice summed over 5 x 5 pixels and brought back."""
    field = np.random.default_rng(0).integers(0, 60_000, (SIDE + 12, SIDE + 12))
    for _ in range(3):
        rows = sum(field[k : len(field) - 4 + k] for k in range(5))
        field = sum(rows[:, k : rows.shape[1] - 4 + k] for k in range(5)) // 25
    return (field - field.min()) // 4


def write_scene(folder: Path, name: str, day: int, *, moved_px: int, gain: int) -> Scene:
    """A scene whose content lies `moved_px` pixels off to the east and south, with a cloud in its mask."""
    sensor, grid = BUILTIN_SENSORS[SENSOR], from_origin(LEFT - 480, TOP + 480, GSD_M, GSD_M)
    pixels = np.roll(ground(), moved_px, (0, 1))
    cloud = np.zeros((SIDE, SIDE), np.uint16)
    cloud[30 + day : 38 + day, 40:50] = 1
    assets = []
    for number, layer in enumerate([*(7300 + (gain + band) * pixels // 4 for band in range(len(sensor.bands))), cloud]):
        mask = number == len(sensor.bands)
        band = "mask" if mask else sensor.bands[number].name
        path = folder / f"{name}_{band}.tif"
        profile = {"width": SIDE, "height": SIDE, "count": 1, "dtype": "uint16", "crs": CRS, "transform": grid}
        with rasterio.open(path, "w", driver="GTiff", **profile) as file:
            file.write(layer.astype(np.uint16), 1)
        assets.append(
            BandAsset(
                band=band,
                href=str(path),
                band_index=1,
                scale=1.0 if mask else sensor.encoding.scale,
                offset=0.0 if mask else sensor.encoding.offset,
                nodata=None if mask else 0.0,
                units=Units.DN if mask else sensor.encoding.units,
                gsd_m=GSD_M,
                role=Role.CLOUD_MASK if mask else Role.DATA,
                mask=MaskKind.BINARY if mask else MaskKind.NONE,
                crs=CRS,
                shape=(SIDE, SIDE),
                transform=tuple(grid)[:6],
            )
        )
    corners = LEFT - 480, TOP + 480 - SIDE * GSD_M, LEFT - 480 + SIDE * GSD_M, TOP + 480
    box = gpd.GeoSeries([shapely.box(*corners)], crs=CRS)
    when = dt.datetime(2020, 6, 1 + day, tzinfo=dt.UTC)
    return Scene(name, SENSOR, when, "landsat-8", CRS, GSD_M, box.to_crs(4326)[0], tuple(assets), CloudTest.MASK)


def digest(folder: Path) -> str:
    """Of the decoded pixels and masks of a tiny store, and of where its images were moved, to the centimetre."""
    scenes = [write_scene(folder, f"s{day}", day, moved_px=day, gain=4 + day) for day in range(3)]
    square = gpd.GeoSeries([shapely.box(LEFT, TOP - FOOTPRINT_M, LEFT + FOOTPRINT_M, TOP)], crs=CRS).to_crs(4326)
    locations = gpd.GeoDataFrame(
        {
            "location_id": ["here"],
            "lon": [15.01],
            "lat": [41.99],
            "crs": [CRS],
            "x_m": [LEFT],
            "y_m": [TOP],
            "footprint_m": [FOOTPRINT_M],
        },
        geometry=square,
    )
    parameters = CoregisterParameters(recipes={"dates": {"single_source": True, "min_sources": 1}})
    url = str(folder / "stssd.zarr")
    images = build(scenes_to_table(scenes), locations, {SENSOR: BUILTIN_SENSORS[SENSOR]}, parameters, url).images
    assert sorted(images["registration"]) == ["reference", "registered", "registered"]
    store, hashed = ImageSetStore.open(url), hashlib.sha256()
    for array in store.read(SENSOR, range(store.count(SENSOR))):
        hashed.update(np.ascontiguousarray(array).tobytes())
    columns = ["image_id", "set_id", "row", "scene_id", "registration", "shift_x_m", "shift_y_m", "valid_fraction"]
    hashed.update(images[columns].round(2).to_csv(index=False).encode())
    return hashed.hexdigest()


def test_other_pixels_or_tables_come_with_another_build_version(tmp_path: Path) -> None:
    found = digest(tmp_path)
    assert BUILD_VERSION in PINNED, (
        f"put PINNED = {{{BUILD_VERSION}: {found!r}}} here: BUILD_VERSION was raised to that"
    )
    assert found == PINNED[BUILD_VERSION], (
        "the same scenes now give other pixels or tables: if that was meant, raise BUILD_VERSION in"
        " a2mae/stssd/coregister/work.py, so that no store that is continued or grown mixes old shards with new ones,"
        f" and put PINNED = {{{BUILD_VERSION + 1}: {found!r}}} here; else undo the change"
    )
