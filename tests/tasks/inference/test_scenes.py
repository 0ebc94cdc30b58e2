"""Scenes of a catalog as rasters: signed, on the grid that the table knows, and never sent on to another host."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.transform import from_origin
from scipy import ndimage
from scipy.spatial import cKDTree
from shapely.geometry import box

from a2mae.errors import ReadError
from a2mae.raster.warp import Footprint
from a2mae.remote.policy import HrefPolicy, ReadingParameters, RemoteAccess
from a2mae.scenes import BandAsset, Scene, sensors_from_json
from a2mae.sensors import Units, get_sensor
from a2mae.stssd.coregister.build import build
from a2mae.stssd.ingest.ingest import ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store.store import ImageSetStore
from a2mae.tasks.inference.files import EMBED
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
    raster = SceneRasters(None, {}, access, None).one(scene, SENTINEL2, ["red"])
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
    raster = SceneRasters(None, {}, RemoteAccess(reading=QUICK), None).one(scene, SENTINEL2, ["red"])
    assert not served.requests, "a file was opened for what the table says"
    assert (raster.shape, raster.grid.affine, str(raster.grid.crs)) == (
        (200, 200),
        Affine(*grid["transform"]),
        grid["crs"],
    )
    opened = SceneRasters(None, {}, RemoteAccess(reading=QUICK), None).one(
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
    with pytest.raises(ReadError, match=r"red\.tif is a VRT"):
        pixels(scene_at(str(tmp_path / "red.tif")), RemoteAccess())


def test_an_access_says_nothing_of_itself_in_a_maps_fingerprint(served: Served) -> None:
    scene = scene_at(f"{served.url}/red.tif")
    raster = SceneRasters(None, {}, RemoteAccess(reading=QUICK), None).one(scene, SENTINEL2, ["red"])
    other = dataclasses.replace(raster, access=RemoteAccess(policy=HrefPolicy(frozenset({"http", "https"}), ())))
    assert str(raster) == str(other)


GF1 = get_sensor("gaofen-1")
LEFT, TOP, PIXELS, SEAM = 499_200.0, 5_760_000.0, 480, 300  # the seam lies inside the right-hand footprints
BUFFER_PX = 4  # 30 m in pixels of 8 m


def write_scenery(folder: Path) -> None:
    """Two dates of fields, the second displaced, each in two frames; band 5 is a probability, band 6 are classes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    _, label = cKDTree(rng.random((900, 2)) * PIXELS).query(np.stack(np.mgrid[:PIXELS, :PIXELS], axis=-1))
    fields = rng.uniform(500, 3000, (4, 900))[:, label]
    for number, date in enumerate(("20230610T100000", "20230801T100000")):
        pixels = np.roll(fields, (number, 2 * number), (1, 2)) + rng.normal(0, 20, fields.shape)
        haze = ndimage.gaussian_filter(rng.normal(size=(PIXELS, PIXELS)), 20)
        clear, cloud = np.quantile(haze, (0.7, 0.95))
        pixels[:, haze > cloud] = 6_000  # bright in every band
        pixels[:, 40:60, 380:400] = 0  # nothing was seen there
        chance = np.clip((haze - clear) / (haze.max() - clear), 0, 1) * 100
        classes = np.select([haze > cloud, np.roll(haze, 20) > cloud, haze < haze.min() + 0.01], [2, 3, 0], 1)
        every = np.concatenate([pixels, chance[None], classes[None]]).astype("uint16")
        for name, part in ((f"{date}_a", np.s_[: SEAM + 4]), (f"{date[:-2]}20_b", np.s_[SEAM - 4 :])):
            frame = every[:, :, part]
            profile = {
                "driver": "GTiff", "count": 6, "dtype": "uint16", "height": PIXELS, "width": frame.shape[2],
                "crs": "EPSG:32633", "transform": from_origin(LEFT + (part.start or 0) * 8, TOP, 8, 8),
            }  # fmt: skip
            with rasterio.open(folder / f"GF1_{name}.tif", "w", **profile) as target:
                target.write(frame)


PROBABILITY = {"mask": {"kind": "probability", "band_index": 5, "scale": 0.01}}
CLASSES = {"mask": {"kind": "fmask", "band_index": 6}}
OWN = {"sensors": ["gaofen-*"], "function": "map_masks:dark", "bands": ["red"]}


@pytest.mark.parametrize(
    ("rule", "clouds", "hidden"),
    [
        (CLASSES, {}, 0.107),
        (CLASSES, {"functions": [OWN], "buffer_m": 8.0}, 0.159),
        ({"cloud_test": "brightness"}, {}, 0.070),
        ({"cloud_test": "brightness"}, {"brightness_threshold": 0.7}, 0.005),
        (PROBABILITY, {"probability_threshold": 0.3}, 0.074),
        (PROBABILITY, {"probability_threshold": 0.6}, 0.019),
    ],
    ids=["provider's mask", "user's function", "brightness", "brightness as set", "probability 0.3", "probability 0.6"],
)
def test_maps_hide_the_pixels_that_the_store_hides(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rule: dict[str, object],
    clouds: dict[str, object],
    hidden: float,
) -> None:
    (tmp_path / "map_masks.py").write_text("def dark(given):\n    return given.band('red') < 0.08\n")
    monkeypatch.syspath_prepend(tmp_path)
    write_scenery(tmp_path / "in")
    rule = {
        "name": "gf", "files": "GF1_{date}_{tile}.tif", "sensor": GF1.id, "bands": ["B1", "B2", "B3", "B4", None, None],
        "platform": "gaofen-1", "scale": 1e-4, "offset": 0.0, "nodata": 0, "units": "reflectance",
        "date_format": "%Y%m%dT%H%M%S", **rule,
    }  # fmt: skip
    found = ingest(IngestParameters(folder=str(tmp_path / "in"), rules=[rule], locations={"min_scenes": 2}))
    parameters = CoregisterParameters(
        recipes={"dates": {"single_source": True, "min_sources": 1, "min_images": 2}},
        quality={"max_cloud_fraction": 1.0, "min_valid_fraction": 0.05},
        clouds=clouds,
        workers=1,
    )
    url = str(tmp_path / "stssd.zarr")
    images = build(found.scenes, found.locations, sensors_from_json(found.sensors), parameters, url).images
    assert any(scene_id.endswith("+1") for scene_id in images["scene_id"])  # some lie across the seam
    assert images["shift_x_m"].abs().max() > 8, "and some were moved"
    store, places = ImageSetStore.open(url), found.locations.set_index("location_id")
    rasters = SceneRasters(found.scenes, found.sensors, RemoteAccess(), parameters.clouds)
    shares = []
    for image in images.itertuples():
        place = places.loc[image.location_id]
        grid = Footprint(image.location_id, place.crs, place.x_m, place.y_m, place.footprint_m).grid(8.0)
        raster = rasters.named([image.scene_id], GF1, GF1.band_names, EMBED)
        raster = dataclasses.replace(raster, grid=grid, shift_m=(image.shift_x_m, image.shift_y_m))
        with RasterWindows(raster) as windows:
            pixels, valid = windows.read(0, 0, *raster.shape)
        stored, expected = (values[0] for values in store.read_physical(GF1.id, [image.row]))
        inner = np.s_[BUFFER_PX:-BUFFER_PX, BUFFER_PX:-BUFFER_PX]
        np.testing.assert_array_equal(valid[inner], expected[inner])
        assert not (valid & ~expected).any()  # at the edge, clouds beyond it reach in, of which the store knows nothing
        np.testing.assert_allclose(pixels[:, valid], stored[:, valid], atol=0.51 * GF1.encoding.scale)
        shares.append(1 - expected.mean())
    assert np.mean(shares) == pytest.approx(hidden, abs=0.005)
