"""Scenes of a catalog as rasters: signed, on the grid that the table knows, and never sent on to another host."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from shapely.geometry import box

from a2mae.errors import ReadError
from a2mae.remote.policy import HrefPolicy, ReadingParameters, RemoteAccess
from a2mae.scenes import BandAsset, Scene
from a2mae.sensors import Units, get_sensor
from a2mae.tasks.inference.rasters import RasterWindows
from a2mae.tasks.inference.scenes import SceneRasters
from helpers.http_server import Served, serve_files
from helpers.rasters import write_tif

SENTINEL2 = get_sensor("sentinel-2-l2a")
QUICK = ReadingParameters(retries=0, retry_delay_s=0.01)


@pytest.fixture
def served(tmp_path: Path):
    write_tif(tmp_path / "files" / "red.tif")
    with serve_files(tmp_path / "files") as server:
        yield server


def scene_at(href: str, **known: object) -> Scene:
    red = BandAsset("B04", href, 1, 1e-4, -0.1, 0, Units.REFLECTANCE, 10.0, **known)
    taken = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
    return Scene("one", SENTINEL2.id, taken, "sentinel-2a", "EPSG:32633", 10.0, box(14, 41, 15, 42), (red,))


def pixels(scene: Scene, access: RemoteAccess) -> np.ndarray:
    raster = SceneRasters(pd.DataFrame(), access).one(scene, SENTINEL2, ["red"])
    with RasterWindows(raster) as windows:
        return windows.read(0, 0, *raster.shape)[0][0]


def test_addresses_are_signed(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served.fail = lambda path: None if path.endswith("?sig=secret") else (403, {})
    (tmp_path / "map_signer.py").write_text('def sign(href):\n    return f"{href}?sig=secret"\n')
    monkeypatch.syspath_prepend(tmp_path)
    scene = scene_at(f"{served.url}/red.tif")
    with rasterio.open(tmp_path / "files" / "red.tif") as source:
        expected = source.read(1) * 1e-4 - 0.1
    np.testing.assert_allclose(pixels(scene, RemoteAccess("map_signer:sign", reading=QUICK)), expected, atol=1e-6)
    with pytest.raises(ReadError, match=r"red\.tif cannot be opened"):
        pixels(scene, RemoteAccess(reading=QUICK))


def test_redirects_lead_nowhere_else(served: Served) -> None:
    elsewhere = served.url.replace("127.0.0.1", "localhost") + "/elsewhere.tif"
    served.fail = lambda path: (302, {"Location": elsewhere}) if path == "/red.tif" else None
    policy = HrefPolicy(frozenset({"http"}), (), hosts=("127.0.0.1",), allow_private=True)
    with pytest.raises(ReadError, match="redirects") as error:
        pixels(scene_at(f"{served.url}/red.tif"), RemoteAccess(policy=policy, reading=QUICK))
    assert error.value.reason == "bad_href"
    assert "/elsewhere.tif" not in served.requests


def test_the_grid_is_the_tables_where_it_knows_it(served: Served) -> None:
    grid = {"crs": "EPSG:32633", "shape": (200, 200), "transform": (10.0, 0.0, 500_160.0, 0.0, -10.0, 4_649_280.0)}
    scene = scene_at(f"{served.url}/red.tif", **grid)
    raster = SceneRasters(pd.DataFrame(), RemoteAccess(reading=QUICK)).one(scene, SENTINEL2, ["red"])
    assert not served.requests, "a file was opened for what the table says"
    assert (raster.shape, raster.grid.affine, str(raster.grid.crs)) == (
        (200, 200),
        Affine(*grid["transform"]),
        grid["crs"],
    )
    opened = SceneRasters(pd.DataFrame(), RemoteAccess(reading=QUICK)).one(
        scene_at(f"{served.url}/red.tif"), SENTINEL2, ["red"]
    )
    assert served.requests and opened.grid == raster.grid


def test_an_overpass_in_two_tiles_is_mapped_as_a_whole(tmp_path: Path) -> None:
    """`ingest.mosaics` makes one scene of neighbouring tiles; its parts are not left out."""
    west, east = write_tif(tmp_path / "west.tif"), write_tif(tmp_path / "east.tif", left=500_160.0 + 1_800, nodata=None)
    scene = scene_at(str(west))
    scene = dataclasses.replace(scene, scene_id="one+1", assets=(*scene.assets, *scene_at(str(east)).assets))
    found = pixels(scene, RemoteAccess())
    with rasterio.open(west) as first, rasterio.open(east) as second:
        expected = np.concatenate([first.read(1), second.read(1)[:, 20:]], axis=1) * 1e-4 - 0.1
    assert found.shape == (200, 380)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_catalogs_file_is_a_raster_or_nothing(tmp_path: Path) -> None:
    """GDAL would open a VRT under a name of a GeoTIFF, and what that names."""
    write_tif(tmp_path / "secret.tif")
    (tmp_path / "red.tif").write_text(
        '<VRTDataset rasterXSize="200" rasterYSize="200"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{tmp_path}/secret.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(ReadError, match=r"red\.tif cannot be opened"):
        pixels(scene_at(str(tmp_path / "red.tif")), RemoteAccess())


def test_an_access_says_nothing_of_itself_in_a_maps_fingerprint(served: Served) -> None:
    scene = scene_at(f"{served.url}/red.tif")
    raster = SceneRasters(pd.DataFrame(), RemoteAccess(reading=QUICK)).one(scene, SENTINEL2, ["red"])
    other = dataclasses.replace(raster, access=RemoteAccess(policy=HrefPolicy(frozenset({"http", "https"}), ())))
    assert str(raster) == str(other)
