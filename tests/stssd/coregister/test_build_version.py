"""The same scenes give the same store for as long as `BUILD_VERSION` stays: finished shards are kept by that number."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.transform import from_origin

from a2mae.scenes import BandAsset, CloudTest, MaskKind, Role, Scene, scenes_to_table
from a2mae.sensors import BUILTIN_SENSORS, Units
from a2mae.stssd.coregister.build import build
from a2mae.stssd.coregister.work import BUILD_VERSION
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store.store import ImageSetStore

PINNED = {
    8: [
        [10180.37, 5072.47, 5020.77, 1162.05, 971.68, 484.44, 479.58, 9865.67, 0.0, 0.0],
        [10540.42, 5257.4, 5199.24, 1259.3, 971.68, 484.44, 480.02, 10266.36, -30.05, 29.99],
        [10900.56, 5442.39, 5377.77, 1361.14, 971.68, 484.44, 480.46, 10679.62, -60.0, 59.99],
    ]
}
"""Of `summary`, by the version of the build that gave it."""

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


def summary(folder: Path) -> NDArray[np.float64]:
    """Means over pixels and masks of a tiny store, and where its images were moved: a row per image.

    Not their bytes: on another processor sums are rounded otherwise, and a pixel in thousands by one count.
    """
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
    store = ImageSetStore.open(url)
    pixels, valid = store.read(SENSOR, range(store.count(SENSOR)))  # (N, C, H, W), (N, H, W)
    height, width = valid.shape[1:]
    weights = [np.ones((height, width)), *np.mgrid[0:height, 0:width] / height]  # where, and not only how bright
    bands = np.arange(1, pixels.shape[1] + 1)  # which band, and not only how bright
    rows = [
        [
            *((image * weight).mean((1, 2)) @ bands / bands.sum() for weight in weights),
            image.std(),
            *((seen * weight).mean() * 1000 for weight in weights),
            image[:, ~seen].mean(),
        ]
        for image, seen in zip(pixels.astype(np.float64), valid, strict=True)
    ]
    moved = images.sort_values("row")[["shift_x_m", "shift_y_m"]].to_numpy()
    return np.hstack([rows, moved])


def test_other_pixels_or_tables_come_with_another_build_version(tmp_path: Path) -> None:
    found = summary(tmp_path)
    assert BUILD_VERSION in PINNED, f"put PINNED = {{{BUILD_VERSION}: {found.round(2).tolist()}}} here"
    expected = np.asarray(PINNED[BUILD_VERSION])
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found,
        expected,
        rtol=0,
        atol=0.05,
        err_msg="the same scenes now give other pixels or tables: if that was meant, raise BUILD_VERSION in"
        " a2mae/stssd/coregister/work.py, so that no store that is continued or grown mixes old shards with new ones",
    )
