"""STAC items of many providers become scenes of the right sensor, or are refused with a reason."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box, mapping

from a2mae.sensors import Units, get_sensor
from a2mae.simulate.testing import write_tiny_world
from a2mae.stssd.hrefs import HrefPolicy
from a2mae.stssd.ingest_parameters import IngestParameters
from a2mae.stssd.refusals import RefusedError
from a2mae.stssd.scenes import CloudTest, MaskKind
from a2mae.stssd.sources.documents import walk
from a2mae.stssd.sources.found import SensorTable
from a2mae.stssd.sources.stac import read_stac_catalog
from a2mae.stssd.sources.stac_item import parse_item
from a2mae.stssd.sources.stac_profiles import Recogniser, sentinel2_baseline
from helpers.http_server import serve_files
from helpers.rasters import write_tif

STACTOOLS = "stactools_sentinel2_catalog/sentinel2-{level}-example/{item}/{item}.json"
ITEMS = Path(__file__).parents[2] / ".." / "shared" / "data" / "stac_items"
real_items = pytest.mark.skipif(not ITEMS.is_dir(), reason="../shared/data/stac_items is not there")
POLICY = HrefPolicy(frozenset({"file", "https", "http", "s3"}), (ITEMS,))


def parse(item, recogniser=None, base="https://example.com/item.json"):
    return parse_item(item, recogniser=recogniser or Recogniser(SensorTable({})), policy=POLICY, base=base)


def all_items():
    """Every item below the folder with its file, by the same walk that catalogs use."""
    for path in sorted(ITEMS.rglob("*json")):
        refused = []
        if json.loads(path.read_text()).get("type") in ("Feature", "FeatureCollection"):
            for document in walk(str(path), POLICY, max_items=100, max_bytes=10**8, refused=refused):
                yield path.relative_to(ITEMS).as_posix(), document
        assert refused == []


@pytest.mark.real_data
@real_items
def test_every_real_item_parses_or_is_refused_with_a_reason():
    good, bad = {}, {}
    for name, document in all_items():
        try:
            good.setdefault(name, []).append(parse(document.item, base=document.base).scene)
        except RefusedError as refusal:
            bad.setdefault(name, []).append(refusal.reason)
    assert bad == {
        "LC08_L2SR_081119_20200101_20200823_02_T2.json": ["gsd_mismatch"],  # its transforms say 1157 m
        "ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json": ["unknown_sensor"],
        **{f"jaca_dataset_stac_labels/labels/Jaca_{i}/Jaca_{i}.json": ["labels"] for i in range(1, 5)},
        **{f"jaca_dataset_stac_labels/sentinel-2-l2a/Jaca_{i}/Jaca_{i}.json": ["no_baseline"] for i in range(1, 5)},
    }
    assert {name: len(scenes) for name, scenes in good.items() if len(scenes) > 1} == {
        "site1-20200606-tall-strip-africa.geojson": 9,
        "site2-2020_jun_jul-35MNM.geojson": 13,
    }
    for scenes in good.values():
        for scene in scenes:
            sensor = get_sensor(scene.sensor)
            assert tuple(a.band for a in scene.bands) == sensor.band_names
            assert [a.gsd_m for a in scene.bands] == [b.gsd_m for b in sensor.bands]
            assert all(a.units is Units.REFLECTANCE and a.nodata == 0 and a.shape for a in scene.bands)
            assert scene.gsd_m == sensor.gsd_m and scene.geometry.is_valid and not scene.geometry.is_empty


@pytest.mark.real_data
@real_items
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LC08_L2SP_028030_20200114_20200824_02_T1_SR.json",
         ("landsat-oli-c2-l2", "landsat-8", "EPSG:32615", "2020-01-14T17:05:46.732651+00:00", 8.18, None, 2.75e-5, -0.2,
          MaskKind.QA_PIXEL)),
        ("LE07_L2SP_044033_20210329_20210424_02_T1_SR.json",
         ("landsat-etm-c2-l2", "landsat-7", "EPSG:32610", "2021-03-29T17:57:33.490812+00:00", 0, None, 2.75e-5, -0.2,
          MaskKind.QA_PIXEL)),
        ("S2A_28QCH_20200714_0_L2A.json",  # Earth Search v0: the baseline stands in the product's name only
         ("sentinel-2-l2a", "sentinel-2a", "EPSG:32628", "2020-07-14T11:55:52+00:00", 2.36, "02.14", 1e-4, 0.0,
          MaskKind.SCL)),
        ("S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531_raster_ext.json",  # Planetary Computer
         ("sentinel-2-l2a", "sentinel-2b", "EPSG:32606", "2019-06-29T21:25:29.024000+00:00", 0.314306, "02.12", 1e-4,
          0.0,
          MaskKind.SCL)),
        (STACTOOLS.format(level="l1c", item="S2A_T01LAC_20200717T221944_L1C"),
         ("sentinel-2-l1c", "sentinel-2a", "EPSG:32701", "2020-07-17T22:19:41.024000+00:00", 5.4828, "02.09", 1e-4, 0.0,
          None)),
        (STACTOOLS.format(level="l2a", item="S2A_T07HFE_20190212T192646_L2A"),
         ("sentinel-2-l2a", "sentinel-2a", "EPSG:32707", "2019-02-12T19:26:51.024000+00:00", 51.580326, "02.12", 1e-4,
          0.0,
          MaskKind.SCL)),
    ],
)  # fmt: skip
def test_known_items(name, expected):
    scene = parse(json.loads((ITEMS / name).read_text()), base=str(ITEMS / name)).scene
    found = (
        scene.sensor, scene.platform, scene.crs, scene.datetime.isoformat(), scene.cloud_cover_pct,
        scene.processing_baseline, scene.assets[0].scale, scene.assets[0].offset, scene.mask and scene.mask.mask,
    )  # fmt: skip
    assert found == expected
    # The finest rendition of a band, never the picture made of it.
    assert "B02" in scene.assets[1].href or "SR_B2" in scene.assets[1].href


@pytest.mark.real_data
@real_items
def test_another_provider_by_configuration():
    oli = get_sensor("landsat-oli-c2-l2").to_dict()
    names = ("coastal_aerosol", "blue", "green", "red", "nir", "swir_1", "swir_2")
    parameters = IngestParameters(
        sensors=[{**oli, "id": "ga-ls8-ard", "title": "GA Landsat 8 ARD"}],
        stac_profiles=[
            {
                "name": "Geoscience Australia", "match": {"odc:product": "ga_ls8c_ard_3"}, "sensor": "ga-ls8-ard",
                "bands": {f"SR_B{i}": f"nbart_{name}" for i, name in enumerate(names, 1)},
                "scale": 1e-4, "offset": 0.0, "nodata": -999, "mask": {"kind": "fmask", "asset": "oa_fmask"},
            }
        ],
    )  # fmt: skip
    recogniser = Recogniser(SensorTable(parameters.own_sensors()), parameters.stac_profiles)
    name = "ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json"
    scene = parse(json.loads((ITEMS / name).read_text()), recogniser).scene
    assert (scene.sensor, scene.mask.mask, scene.assets[0].nodata) == ("ga-ls8-ard", MaskKind.FMASK, -999)
    assert [a.href.rpartition("_")[2] for a in scene.bands] == [f"band0{i}.tif" for i in range(1, 8)]


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
        (lambda i: i["properties"].update({"proj:epsg": 999999}), "bad_metadata"),
        (lambda i: i.update(geometry=mapping(box(100, 0, 101, 1))), "no_footprint"),
        (lambda i: i.update(assets=None), "missing_band"),
        (lambda i: i.update(properties=None), "unknown_sensor"),
    ],
)  # fmt: skip
def test_items_that_cannot_be_used(change, reason):
    item = changed(change)
    if reason == "unknown_sensor":
        item["collection"] = "ikonos"
    with pytest.raises(RefusedError) as caught:
        parse(item)
    assert caught.value.reason == reason and caught.value.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8) | st.just("EPSG:999999"),
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
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=3))
@settings(max_examples=400, deadline=None)
def test_law_whatever_an_item_holds_it_is_a_scene_or_a_refusal(changes):
    item = s2_item(**{"s2:processing_baseline": "05.09"})
    for path, value in changes:
        inner = item
        for key in path[:-1]:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[path[-1]] = value
    try:
        scene = parse(item).scene
    except RefusedError as refusal:
        assert refusal.reason and len(refusal.detail) < 2000
    else:
        assert scene.geometry.area > 0 and -180.1 <= scene.geometry.bounds[0] <= scene.geometry.bounds[2] <= 180.1


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
    with pytest.raises(RefusedError, match=r"ingest\.stac_profiles: units: backscatter_db or backscatter_linear"):
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
    assert found.refused == []
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
    reasons = {Path(r.scene_id).stem: r.reason for r in found.refused}
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
    assert [r.reason for r in found.refused] == ["bad_href"] * 3


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
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match="not a STAC document"):
        read(tmp_path / "x.json")


def test_a_catalog_by_http_reads_headers_by_ranges(copied):
    folder, manifest = copied
    with serve_files(folder) as server:
        source = {"catalog": f"{server.url}/catalog.json"}
        hrefs = {"schemes": ["http"], "allow_private": True}
        found = read(None, source=source, hrefs=hrefs, probe="all")
        assert found.refused == [] and len(found.scenes) == len(manifest.scenes)
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
    assert [r.reason for r in read(tmp_path / "i.json").refused] == ["no_footprint"]
    item["geometry"] = s2_item()["geometry"]
    (tmp_path / "i.json").write_text(json.dumps(item))
    (scene,) = read(tmp_path / "i.json").scenes
    assert (scene.crs, scene.gsd_m, scene.assets[3].band_index, scene.assets[0].scale) == ("EPSG:32633", 8.0, 4, 1e-4)
    assert [r.reason for r in read(tmp_path / "i.json", probe="none").refused] == ["no_crs"]
    del item["assets"]["image"]["raster:scale"], item["assets"]["image"]["raster:offset"]
    (tmp_path / "i.json").write_text(json.dumps(item))
    assert [r.reason for r in read(tmp_path / "i.json").refused] == ["no_scale"]
