"""STAC items of many providers become scenes of the right sensor, or are rejected with a reason."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import rasterio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shapely.geometry import box, mapping

from a2mae.errors import RejectedError
from a2mae.raster.header import read_header
from a2mae.scenes import CloudTest, RejectedScene, scenes_to_table
from a2mae.sensors import Units, get_sensor
from a2mae.simulate.run import write_tiny_world
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.ingest.stac import read_stac_catalog
from a2mae.stssd.ingest.stac_item import finish
from a2mae.stssd.ingest.stac_profiles import Recogniser, sentinel2_baseline
from helpers.http_server import serve_files
from helpers.rasters import write_tif

from ..stac_parsing import parse


def s2_item(**properties):
    grid = {"proj:shape": [200, 200], "proj:transform": [10, 0, 500_160, 0, -10, 4_649_280]}
    names = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12", "SCL")
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": "S2A_x", "collection": "sentinel-2-l2a",
        "bbox": [15, 41.9, 15.03, 42],
        "geometry": mapping(box(15, 41.9, 15.03, 42)),
        "properties": {"datetime": "2020-07-01T10:00:00Z", "platform": "Sentinel-2A", "proj:epsg": 32633, **properties},
        "assets": {n: {"href": f"./{n}.tif", "type": "image/tiff", **grid} for n in names}, "links": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("baseline", "date", "offset"),
    [
        ("02.14", "2023-05-01", 0.0),
        ("03.01", "2022-06-01", 0.0),
        ("04.00", "2017-01-01", -0.1),
        ("05.09", "2020-07-01", -0.1),
    ],
)  # fmt: skip
def test_sentinel2_offset_follows_the_baseline_never_the_date(baseline, date, offset):
    item = s2_item(**{"s2:processing_baseline": baseline, "datetime": f"{date}T10:00:00Z"})
    scene = parse(item).scene
    assert {(a.scale, a.offset) for a in scene.bands} == {(1e-4, offset)}
    assert scene.processing_baseline == baseline


def test_a_flag_is_believed_only_when_told_to():
    item = s2_item(**{"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True})
    assert parse(item).scene.assets[0].offset == -0.1
    assert parse(item, Recogniser(SensorTable({}), honour_flag=True)).scene.assets[0].offset == 0.0


def test_baselines_are_read_from_wherever_they_stand():
    assert sentinel2_baseline({}, {"processing:version": "05.10"}) == "05.10"
    assert (
        sentinel2_baseline({}, {"s2:product_uri": "S2A_MSIL2A_20200714T115221_N0400_R123_T28QCH_20200714T191310.SAFE"})
        == "04.00"
    )
    assert sentinel2_baseline({"id": "S2A_28QCH_20200714_0_L2A"}, {"processing:version": "1.2.3"}) is None


def changed(change):
    item = s2_item(**{"s2:processing_baseline": "05.09"})
    change(item)
    return item


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda i: i["assets"].pop("B08"), "missing_band"),
        (lambda i: i["properties"].pop("s2:processing_baseline"), "no_baseline"),
        (lambda i: i["properties"].update(datetime=None), "no_date"),
        (lambda i: i["properties"].update(datetime="yesterday"), "no_date"),
        (lambda i: i.update(id="../../x"), "bad_id"),
        (lambda i: i.update(collection="ikonos") or i["properties"].update(platform="ikonos"), "unknown_sensor"),
        (lambda i: i["assets"]["B02"].update(href="/vsizip/x.zip/a.tif"), "bad_href"),
        (lambda i: i["assets"]["SCL"].update(href="file:///etc/passwd"), "bad_href"),
        (lambda i: i["assets"]["B02"].update({"proj:transform": [0, 0, 0, 0, 0, 0]}), "bad_metadata"),
        (lambda i: i["assets"]["B02"].update({"proj:transform": ["a"] * 6}), "bad_metadata"),
        (lambda i: [a.update({"proj:transform": [40, 0, 0, 0, -40, 0]}) for a in i["assets"].values()], "gsd_mismatch"),
        (lambda i: i["properties"].update({"proj:epsg": 999999}), "no_crs"),
        (lambda i: i.update(geometry=mapping(box(100, 0, 101, 1))), "no_footprint"),
        (lambda i: i.update(assets=None), "missing_band"),
        (lambda i: i.update(properties=None), "unknown_sensor"),
    ],
)  # fmt: skip
def test_items_that_cannot_be_used(change, reason):
    item = changed(change)
    if reason == "unknown_sensor":
        item["collection"] = "ikonos"
    with pytest.raises(RejectedError) as caught:
        finish(parse(item), {})
    assert caught.value.reason == reason and caught.value.detail


# What JSON can hold where a number or a text is expected, and no table, grid or date can.
EDGES = (
    -1, -1.0, 0, 0.0, -0.0, 1e-320, 1e31, 1e300, -1e300, 2**63, 10**400, float("nan"), float("inf"), float("-inf"),
    True, None, "", "\ud800", "NaN", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
    "EPSG:999999", "http://localhost.invalid/crs", "/etc/passwd", [], {}, [0, 0], [-1, -1], [10**400] * 6, [1e300] * 6,
    [float("nan")] * 6, ["\ud800"] * 2, [{}], [{"scale": 0}], [{"scale": float("nan")}], [{"scale": 1e300}],
    [{"offset": -1e300, "scale": 1}], [{"nodata": 10**400}], [{"name": "\ud800"}], [[[]]],
)  # fmt: skip
JSON = st.sampled_from(EDGES) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8) | st.sampled_from(EDGES),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=9,
)
PLACES = (
    ("id",), ("geometry",), ("geometry", "coordinates"), ("properties",), ("properties", "datetime"), ("assets",),
    ("properties", "platform"), ("properties", "proj:epsg"), ("properties", "proj:code"), ("properties", "eo:bands"),
    ("properties", "s2:processing_baseline"), ("properties", "eo:cloud_cover"), ("assets", "B02"), ("assets", "SCL"),
    ("assets", "B02", "href"), ("assets", "B02", "type"), ("assets", "B02", "proj:shape"), ("collection",),
    ("assets", "B02", "proj:transform"), ("assets", "B02", "raster:bands"), ("assets", "B02", "gsd"), ("bbox",),
    ("assets", "B02", "eo:bands"), ("assets", "B02", "roles"), ("assets", "B02", "nodata"), ("assets", "SCL", "href"),
    ("assets", "B02", "raster:scale"), ("assets", "B02", "raster:offset"), ("assets", "B02", "file:checksum"),
    ("assets", "B02", "proj:code"), ("assets", "SCL", "gsd"), ("assets", "SCL", "proj:shape"),
)  # fmt: skip
NO_GRID = ("assets", "B02", "proj:shape"), None


def are_scenes_or_refusals(*items):
    scenes, refused = [], []
    for item in items:
        try:
            scene = finish(parse(item), {})
        except RejectedError as refusal:
            assert refusal.reason and len(refusal.detail) < 2000
            refused.append(RejectedScene(str(item.get("id")), refusal.reason, refusal.detail))
        else:
            west, _, east, _ = scene.geometry.bounds
            assert scene.geometry.area > 0 and -180.1 <= west <= east <= 180.1
            assert all(0 < a.gsd_m < 1e7 and 0 < abs(a.scale) < 1e30 and abs(a.offset) < 1e30 for a in scene.assets)
            assert scene.cloud_cover_pct is None or 0 <= scene.cloud_cover_pct <= 100
            scenes.append(scene)
    assert len(scenes_to_table(scenes, refused)) == len(items)  # a table can hold them


def with_changes(changes, **properties):
    item = s2_item(**{"s2:processing_baseline": "05.09", **properties})
    for path, value in changes:
        inner = item
        for key in path[:-1]:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[path[-1]] = value
    return item


@pytest.mark.parametrize("place", PLACES, ids="/".join)
def test_no_edge_number_or_text_ends_more_than_its_item(place):
    items = []
    for edge in EDGES:
        own = with_changes([NO_GRID, (place, edge)])  # of a sensor whose items say scale and offset themselves
        if isinstance(own["assets"], dict):
            own["assets"] = {f"B{k}": own["assets"].get("B02") for k in range(1, 5)}
        own = {**own, "collection": "gaofen-1", "properties": {"datetime": "2020-07-01"}}
        items += [with_changes([(place, edge)]), with_changes([NO_GRID, (place, edge)]), own]
    are_scenes_or_refusals(*items)


@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=3))
@example([(("collection",), [10**400] * 7), (("properties", "platform"), None)])  # a sensor's name of 2,800 digits
@example([NO_GRID, (("assets", "B02", "gsd"), -1.0)])
@settings(max_examples=400, deadline=None)
def test_law_whatever_an_item_holds_it_is_a_scene_or_a_refusal(changes):
    are_scenes_or_refusals(with_changes(changes))


@pytest.mark.parametrize("gsd", [-1.0, 0, float("nan"), 1e31, 1e300, 10**400, "10", True])
def test_a_pixel_size_that_is_none_rejects_its_item(gsd):
    with pytest.raises(RejectedError, match="not a positive number of metres") as caught:
        parse(with_changes([NO_GRID, (("assets", "B02", "gsd"), gsd)]))
    assert caught.value.reason == "bad_metadata"


def test_stac_1_1_bands_and_codes():
    item = s2_item(**{"s2:processing_baseline": "05.09", "proj:code": "EPSG:32633"})
    del item["properties"]["proj:epsg"]
    for key in list(item["assets"]):
        item["assets"][key.lower() + "_10m"] = {**item["assets"].pop(key), "bands": [{"name": key}], "roles": ["data"]}
    scene = parse(item).scene
    assert [a.href.rpartition("/")[2] for a in scene.bands][:2] == ["B01.tif", "B02.tif"]
    assert scene.crs == "EPSG:32633"


def test_naip_in_one_file():
    item = s2_item()
    item |= {"collection": "naip", "id": "m_1", "assets": {
        "image": {"href": "./m.tif", "type": "image/tiff", "roles": ["data"], "proj:shape": [9, 9],
                  "proj:transform": [0.6, 0, 486_000, 0, -0.6, 5_209_000],
                  "eo:bands": [{"name": n, "common_name": n.lower()} for n in ("Red", "Green", "Blue", "NIR")]},
        "thumbnail": {"href": "./t.tif", "type": "image/tiff", "roles": ["thumbnail"],
                      "eo:bands": [{"name": "Red", "common_name": "red"}]}}}  # fmt: skip
    item["properties"] = {"datetime": "2018-07-16T00:00:00Z", "proj:epsg": 26914, "gsd": 0.6}
    item["geometry"] = None
    scene = parse(item).scene
    assert [(a.band, a.band_index) for a in scene.bands] == [("B1", 3), ("B2", 2), ("B3", 1), ("B4", 4)]
    assert (scene.assets[0].scale, scene.assets[0].units, scene.cloud_test) == (1 / 255, Units.DN, CloudTest.NONE)


def test_radar_says_its_units():
    item = s2_item()
    item |= {"collection": "sentinel-1-rtc", "assets": {k: item["assets"]["B02"] for k in ("vv", "vh")}}
    item["properties"]["platform"] = "SENTINEL-1A"
    scene = parse(item).scene
    assert {a.units for a in scene.bands} == {Units.BACKSCATTER_LINEAR} and scene.sensor == "sentinel-1-rtc"
    item["collection"] = "sentinel-1-grd"
    with pytest.raises(RejectedError, match=r"ingest\.stac_profiles: units: backscatter_db or backscatter_linear"):
        parse(item)
    grd = {
        "name": "calibrated GRD",
        "match": {"collection": "sentinel-1-grd"},
        "sensor": "sentinel-1-grd",
        "units": "backscatter_db",
        "scale": 1.0,
        "offset": 0.0,
    }
    profiles = IngestParameters(stac_profiles=[grd]).stac_profiles
    scene = parse(item, Recogniser(SensorTable({}), profiles)).scene
    assert {a.units for a in scene.bands} == {Units.BACKSCATTER_DB} and scene.sensor == "sentinel-1-grd"


# --- static catalogs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return folder, write_tiny_world(folder)


@pytest.fixture
def copied(world, tmp_path):
    shutil.copytree(world[0], tmp_path / "w")
    return tmp_path / "w", world[1]


def read(catalog, **changes):
    parameters = IngestParameters(**{"source": {"catalog": None if catalog is None else str(catalog)}, **changes})
    return read_stac_catalog(parameters, SensorTable({}), default=None)


def test_the_simulated_catalog(world):
    folder, manifest = world
    found = read(folder / "catalog.json")
    assert found.rejected == []
    assert {s.scene_id: s.sensor for s in found.scenes} == {s.scene_id: s.sensor for s in manifest.scenes}
    for scene in found.scenes:
        sensor = get_sensor(scene.sensor)
        assert tuple(a.band for a in scene.bands) == sensor.band_names
        assert all(a.crs and a.shape and a.transform for a in scene.assets)
    by_id = {s.scene_id: s for s in found.scenes}
    tests = {s.sensor: s.cloud_test for s in by_id.values()}
    assert tests["sentinel-2-l2a"] is tests["landsat-oli-c2-l2"] is CloudTest.MASK
    baselines = {s.processing_baseline: s.assets[0].offset for s in by_id.values() if s.sensor == "sentinel-2-l2a"}
    assert set(baselines.values()) == {0.0, -0.1}
    assert all((offset == -0.1) == (baseline >= "04.00") for baseline, offset in baselines.items())


def test_broken_files_and_documents_stop_nothing_else(copied):
    folder, manifest = copied
    ids = [s.scene_id for s in manifest.scenes]
    items = {i: next(folder.rglob(f"{i}.json")) for i in ids}
    band = items[ids[0]].parent / "B04.tif"
    os.truncate(band, band.stat().st_size // 2)
    items[ids[1]].write_text("{ not json")
    (items[ids[2]].parent / "red.tif").unlink()
    description = json.loads(items[ids[3]].read_text())
    description["assets"]["green"]["href"] = "/etc/passwd"
    items[ids[3]].write_text(json.dumps(description))
    found = read(folder / "catalog.json")
    assert [s.scene_id for s in found.scenes] == ids[4:]
    reasons = {Path(r.scene_id).stem: r.reason for r in found.rejected}
    assert reasons == {ids[0]: "corrupt", ids[1]: "bad_metadata", ids[2]: "missing_file", ids[3]: "bad_href"}


def test_links_out_of_the_catalog_are_not_followed(copied):
    folder, manifest = copied
    catalog = json.loads((folder / "catalog.json").read_text())
    for href in ("../../../../etc/passwd", "http://169.254.169.254/latest", "file:///etc/hostname"):
        catalog["links"].append({"rel": "child", "href": href})
    catalog["links"].append({"rel": "child", "href": "./catalog.json"})  # a circle
    (folder / "catalog.json").write_text(json.dumps(catalog))
    found = read(folder / "catalog.json")
    assert len(found.scenes) == len(manifest.scenes)
    assert [r.reason for r in found.rejected] == ["bad_href"] * 3


def test_bounds_and_missing_catalogs(world, tmp_path):
    folder, _ = world
    path = str(folder / "catalog.json")
    with pytest.raises(ValueError, match=r"ingest\.source\.max_items"):
        read(path, source={"catalog": path, "max_items": 2})
    with pytest.raises(ValueError, match="max_document_mb"):
        read(path, source={"catalog": path, "max_document_mb": 1e-5})
    with pytest.raises(ValueError, match="run the simulate pipeline first"):
        read(None)
    with pytest.raises(ValueError, match="is not a file"):
        read(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"ingest\.source\.catalog: 'xxx.*is not a file"):
        read("x" * 1000)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match="not a STAC document"):
        read(tmp_path / "x.json")


def test_a_catalog_by_http_reads_headers_by_ranges(copied):
    folder, manifest = copied
    with serve_files(folder) as server:
        source = {"catalog": f"{server.url}/catalog.json"}
        hrefs = {"schemes": ["http"], "allow_private": True}
        found = read(None, source=source, hrefs=hrefs, probe="all")
        assert found.rejected == [] and len(found.scenes) == len(manifest.scenes)
        assert any(path.endswith("B04.tif") for path in server.ranges)
        assert all(a.href.startswith(server.url) and a.shape for s in found.scenes for a in s.assets)
        with pytest.raises(ValueError, match="allow_private"):
            read(None, source=source, hrefs={"schemes": ["http"]})
        server.fail = lambda path: (302, {"Location": f"{server.url}/x.json"}) if path == "/catalog.json" else None
        with pytest.raises(ValueError, match="cannot be fetched"):
            read(None, source=source, hrefs=hrefs)


def test_without_projection_the_header_tells(tmp_path):
    write_tif(tmp_path / "g.tif", bands=4, gsd=8.0)
    item = s2_item(platform="gaofen-1")
    item |= {"collection": "gaofen-1", "id": "gf1", "assets": {"image": {
        "href": "./g.tif", "type": "image/tiff", "roles": ["data"], "bands": [{"name": f"B{i}"} for i in range(1, 5)],
        "raster:scale": 1e-4, "raster:offset": 0.0}}}  # fmt: skip
    del item["properties"]["proj:epsg"]
    item["geometry"] = None
    (tmp_path / "i.json").write_text(json.dumps(item))
    (scene,) = read(tmp_path / "i.json").scenes
    header = read_header(str(tmp_path / "g.tif"))
    assert scene.geometry.equals(header.footprint), "geometry null: the header knows"
    assert [r.reason for r in read(tmp_path / "i.json", probe="none").rejected] == ["no_crs"]
    assert (scene.crs, scene.gsd_m, scene.assets[3].band_index, scene.assets[0].scale) == ("EPSG:32633", 8.0, 4, 1e-4)
    assert [r.reason for r in read(tmp_path / "i.json", probe="none").rejected] == ["no_crs"]
    del item["assets"]["image"]["raster:scale"], item["assets"]["image"]["raster:offset"]
    (tmp_path / "i.json").write_text(json.dumps(item))
    assert [r.reason for r in read(tmp_path / "i.json").rejected] == ["no_scale"]


def test_a_file_that_describes_other_bands_than_its_item_is_rejected(tmp_path):
    path = write_tif(tmp_path / "g.tif", bands=4, gsd=8.0)
    item = s2_item(platform="gaofen-1")
    item |= {"collection": "gaofen-1", "id": "gf1", "assets": {"image": {
        "href": "./g.tif", "type": "image/tiff", "roles": ["data"], "bands": [{"name": f"B{i}"} for i in range(1, 5)],
        "raster:scale": 1e-4, "raster:offset": 0.0}}}  # fmt: skip
    (tmp_path / "i.json").write_text(json.dumps(item))
    for described, expected in (
        (("blue", "green", "red", "nir"), []),
        (("nir", "red", "green", "blue"), ["band_order"]),
    ):
        with rasterio.open(path, "r+") as file:
            file.descriptions = described
        found = read(tmp_path / "i.json")
        assert [r.reason for r in found.rejected] == expected
        assert len(found.scenes) == 1 - len(expected)
