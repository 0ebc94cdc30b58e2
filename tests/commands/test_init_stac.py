"""`a2mae init` of a STAC API and of a static catalog: what they hold becomes an environment, and no secret a line."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
import shapely
import yaml
from PIL import Image

from a2mae.commands import main
from a2mae.errors import InputError
from a2mae.remote.policy import HrefPolicy
from a2mae.sensors import get_sensor
from a2mae.simulate.run import write_tiny_world
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.rules import StacProfile
from a2mae.stssd.ingest.stac_item import parse_item
from a2mae.stssd.ingest.stac_profiles import Recogniser
from a2mae.stssd.recognise.catalog import Wanted, recognise_catalog
from a2mae.stssd.recognise.facts import sensor_of
from a2mae.stssd.recognise.recognise import state
from helpers.http_server import serve_files
from helpers.stac_api import items_of, serve_api

PLACE = ["--bbox", "12.0", "51.5", "12.6", "52.3", "--datetime", "2020-01-01/2024-01-01"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a static catalog, the address of its files, and an API over its items."""
    folder = tmp_path_factory.mktemp("world")
    manifest = write_tiny_world(folder)
    with serve_files(folder) as files:
        items = items_of(folder, manifest, files.url)
        strange = foreign(next(item for item in items if item["collection"].startswith("landsat")), "nobodys-sat")
        with serve_api([*items, strange]) as api:
            yield folder, files, api


def foreign(item, collection):
    """A copy of an item of a collection and a platform that nobody knows."""
    changed = {**copy.deepcopy(item), "id": f"{collection}-1", "collection": collection}
    changed["properties"] |= {"platform": "nobody-1", "constellation": ""}
    return changed


def own_files(folder, item_of):
    """A copy of an item of the simulation whose hrefs are the paths of its files."""
    path = next(path for path in sorted(folder.rglob(f"{item_of}*.json")) if "assets" in json.loads(path.read_text()))
    item = json.loads(path.read_text())
    for asset in item["assets"].values():
        asset["href"] = str(path.parent / asset["href"])
    return foreign({**item, "links": []}, "half-said")


def bands_of(item):
    """The JSON of every band of an item, `raster:bands` and `eo:bands` of each."""
    for asset in item["assets"].values():
        yield from zip(asset.get("raster:bands", []), asset.get("eo:bands", []), strict=False)


def group(project, name):
    return yaml.safe_load((project / f"conf/{name}/parameters_ingest.yml").read_text())["ingest"]


def test_an_api_becomes_an_environment_a_scene_table_and_a_picture(project, world, capsys):
    _, _, api = world
    assert main(["init", api.url, "--yes", "--name", "live", *PLACE]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "2 items of sentinel-2-l2a, processing baseline" in said and "6 scenes accepted, 4 places of 1920 m" in said
    assert "a name of its own, after collection 'nobodys-sat' (nobody-1)" in said and "ASKED" not in said
    source = group(project, "live")
    known = ["gaofen-1", "landsat-oli-c2-l2", "sentinel-2-l2a"]
    assert set(source["source"]["api"]["collections"]) == {*known, "nobodys-sat"}
    described = get_sensor("landsat-oli-c2-l2")
    assert [(b["name"], b["center_wavelength_nm"], b["gsd_m"]) for b in source["sensors"][0]["bands"]] == [
        (band.name, band.center_wavelength_nm, band.gsd_m) for band in described.bands
    ]
    profile = source["stac_profiles"][0]
    assert profile["units"] == "reflectance" and profile["mask"] == {"kind": "qa_pixel", "asset": "qa_pixel"}
    assert not {"scale", "offset"} & set(profile), "every item states its own"
    assert source["hrefs"] == {"schemes": ["http"], "allow_private": True, "hosts": ["127.0.0.1"]}
    scenes = pd.read_parquet(project / "data/live/02_intermediate/scenes.parquet")
    assert set(scenes["sensor"]) == {*known, "nobodys-sat"}
    twin = {row.sensor: row for row in scenes.itertuples() if row.scene_id in ("nobodys-sat-1", "lc_20200614_tiny_02")}
    assert len(twin) == 2
    with Image.open(project / "data/live/08_reporting/scenes.png") as picture:
        assert picture.size[1] > 400
    assert main(["init", api.url, "--yes", "--name", "live", *PLACE]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["init", api.url, "--yes", "--name", "live", *PLACE[:-1], "2020-01-01/2021-01-01"]) == 1
    shown = capsys.readouterr()
    assert "datetime: 2020-01-01/2021-01-01" in shown.out and "left as it is" in shown.err


def test_what_items_do_not_state_is_asked_refused_by_name_and_completed_once_it_is_stated(project, world, capsys):
    folder, _, _ = world
    item = own_files(folder, "lc_20200614")
    for asset in item["assets"].values():
        asset["roles"] = ["data"]
    item["assets"]["cmask"] = item["assets"].pop("qa_pixel")
    for raster, _ in bands_of(item):
        del raster["scale"], raster["offset"], raster["nodata"]
        raster["unit"] = "none"
    (folder / "items.json").write_text(json.dumps(item))
    words = ["init", str(folder / "items.json"), "--yes", "--name", "half"]
    assert main(words) == 0
    said = capsys.readouterr().out
    asked = {line.split()[1] for line in said.splitlines() if line.strip().startswith("ASKED")}
    assert asked == {"units", "mask"}, "scale, offset and nodata are tagged in the file that was opened"
    assert "asset 'cmask' looks like a mask" in said and "2 lines of conf/half" in said
    run = [sys.executable, "-m", "kedro", "run", "--env=half", "--pipelines=ingest"]
    refused = subprocess.run(run, capture_output=True, text=True, check=False)
    assert refused.returncode and "still to be stated in place of ???: 'units'" in refused.stderr
    path = project / "conf/half/parameters_ingest.yml"
    stated = path.read_text().replace("units: ???", "units: reflectance")
    path.write_text(stated.replace("mask: ???", "mask: {kind: qa_pixel, asset: cmask}"))
    assert main(words) == 0
    assert "1 scene accepted" in capsys.readouterr().out
    assert [sensor["id"] for sensor in group(project, "half")["sensors"]] == ["half-said"]
    scenes = pd.read_parquet(project / "data/half/02_intermediate/scenes.parquet")
    assert scenes["sensor"].tolist() == ["half-said"]
    path.write_text(path.read_text().replace("min_scenes: 1", "min_scenes: 2"))
    assert main(words) == 1
    assert "left as it is" in capsys.readouterr().err, "what was changed otherwise is never overwritten"


def described(item, path):
    """What `a2mae init` makes of an item in a file."""
    path.write_text(json.dumps(item))
    return recognise_catalog(Wanted(str(path), None, None)).recognition


def test_bands_of_one_file_are_told_apart_by_their_place_and_what_is_said_twice_is_asked(world):
    folder, _, _ = world
    item = own_files(folder, "gf1_")
    for _, band in bands_of(item):
        band["common_name"] = "rededge" if band["name"] in ("B3", "B4") else band["common_name"]
    (product,) = described(item, folder / "one.json").products
    assert product.rule["bands"].value == {f"image:{k}": f"B{k}" for k in (1, 2, 3, 4)}
    scene = parse_again(item, product)
    assert [asset.band_index for asset in scene.bands] == [1, 2, 3, 4], "two bands of one common name are two bands"
    item["assets"]["again"] = copy.deepcopy(item["assets"]["image"])
    (product,) = described(item, folder / "two.json").products
    assert product.rule["bands"].value is None and "which is meant is not stated" in product.rule["bands"].evidence
    for _, band in bands_of(item):
        for key in ("common_name", "center_wavelength", "full_width_half_max"):
            del band[key]
    del item["assets"]["again"]
    (product,) = described(item, folder / "three.json").products
    assert product.unknown == ("bands", "units", "cloud_test")
    assert product.rule["bands"].suggestion == {f"image:{k}": f"B{k}" for k in (1, 2, 3, 4)}


def parse_again(item, product):
    sensor = sensor_of(state(product, units="reflectance"), {})
    profile = StacProfile(
        name="own",
        match=product.rule["match"].value,
        sensor=sensor.id,
        bands={band: token for token, band in product.rule["bands"].value.items()},
    )
    policy = HrefPolicy(frozenset({"file"}), (Path("/"),))
    recogniser = Recogniser(SensorTable({sensor.id: sensor}), (profile,))
    return parse_item(item, recogniser=recogniser, policy=policy, base="/item.json").scene


@pytest.mark.parametrize(
    ("change", "key", "value", "told"),
    [
        (lambda raster: raster.update(unit="dB"), "units", "backscatter_db", "unit dB"),
        (lambda raster: raster.update(data_type="float32", scale=1, offset=0), "scale", "of each item", "state 1"),
        (lambda raster: raster.update(data_type="uint8"), "units", "dn", "8 bits"),
        (lambda raster: raster.update(scale=0.5, offset=None), "offset", "of each item", "which is 0"),
        (lambda raster: raster.update(scale=1, offset=0), "scale", 0.0001, "tagged in the files"),
        (lambda raster: raster.pop("nodata"), "nodata", "file", "declared in the files: 0"),
    ],
)
def test_each_fact_of_an_item_is_told_with_what_says_it(world, change, key, value, told):
    folder, _, _ = world
    item = own_files(folder, "gf1_")
    for raster, _ in bands_of(item):
        change(raster)
    (product,) = described(item, folder / "item.json").products
    assert product.rule[key].value == value and told in product.rule[key].evidence


def test_items_without_a_grid_are_opened_and_items_that_nothing_can_be_made_of_are_told(world):
    folder, _, _ = world
    item = own_files(folder, "gf1_")
    for key in ("proj:shape", "proj:transform", "gsd"):
        del item["assets"]["image"][key]
    for raster, _ in bands_of(item):
        del raster["spatial_resolution"]
    (folder / "bare.json").write_text(json.dumps(item))
    found = recognise_catalog(Wanted(str(folder / "bare.json"), None, None))
    assert found.source["probe"] == "all" and found.recognition.products[0].gsd_m == pytest.approx(8, abs=0.1)
    (folder / "gone.tif").write_bytes(b"no raster")
    item["assets"]["image"]["href"] = str(folder / "gone.tif")
    del item["properties"]["gsd"]
    told = described(item, folder / "gone.json")
    assert not told.products and "states no pixel size" in told.asides[0].why
    nameless = {**item, "properties": {"datetime": "2020-01-01T00:00:00Z"}}
    del nameless["collection"]
    told = described(nameless, folder / "nameless.json")
    assert "no collection, constellation or platform" in told.asides[0].why


def test_one_broken_item_costs_itself_and_no_text_of_an_item_becomes_a_key(project, world, capsys):
    folder, _, _ = world
    good, broken = own_files(folder, "gf1_"), own_files(folder, "gf1_")
    for number, item in enumerate((good, broken)):
        item |= {"id": f"item-{number}", "collection": "odd\nhrefs: {allow_private: true}\x1b[2J"}
    for raster, _ in bands_of(broken):
        raster["scale"] = 0
    (folder / "two.json").write_text(json.dumps({"type": "FeatureCollection", "features": [good, broken]}))
    assert main(["init", str(folder / "two.json"), "--yes", "--name", "odd"]) == 0
    said = capsys.readouterr().out
    assert "raster:scale is '0', which decodes no stored number" in said and "\x1b" not in said
    assert set(group(project, "odd")) == {"source", "locations", "sensors", "stac_profiles"}
    (profile,) = group(project, "odd")["stac_profiles"]
    assert profile["units"] == "???" and profile["name"] == "odd-hrefs-allow-private-true-2j"


def test_a_static_catalog_likewise_and_the_place_is_that_of_a_file(project, world, tmp_path, capsys):
    folder, files, _ = world
    area = {"type": "Polygon", "coordinates": [[[12, 51], [13, 51], [13, 53], [12, 53], [12, 51]]]}
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "Feature", "geometry": area, "properties": {}}))
    assert (
        main(["init", str(folder / "catalog.json"), "--yes", "--name", "disk", "--aoi", str(tmp_path / "area.geojson")])
        == 0
    )
    assert "5 scenes accepted" in capsys.readouterr().out
    where = group(project, "disk")["locations"]
    assert where["mode"] == "polygons" and (project / where["polygons"]).is_file()
    words = [f"{files.url}/catalog.json", "--yes", "--name", "web", "--datetime", "2020-01-01/2021-01-01"]
    assert main(["init", *words]) == 0, capsys.readouterr().err
    assert "2 scenes accepted" in capsys.readouterr().out
    assert str(group(project, "web")["datetime_end"]) == "2021-01-01"


def test_no_secret_of_an_address_is_written_or_said(project, world, capsys):
    _, _, api = world
    host = api.url.removeprefix("http://")
    for address in (f"http://me:hush@{host}", f"{api.url}/?key=hush", f"{api.url}/#hush"):
        assert main(["init", address, "--yes", *PLACE]) == 1
        shown = capsys.readouterr()
        assert "hush" not in shown.out + shown.err and "the address holds a name, a key or a query" in shown.err
    assert not (project / "conf/mine").exists()


@pytest.mark.parametrize("address", ["http://[x", "https://x:99999999/"])
def test_what_is_no_address_is_told(address):
    with pytest.raises(InputError, match=r"is no address \(.*write it as https://host/path"):
        recognise_catalog(Wanted(address, None, None))


def test_what_is_no_catalog_or_no_place_is_told_in_a_sentence(project, world, tmp_path, capsys, caplog):
    folder, files, api = world
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "line.geojson").write_text(
        '{"type": "Feature", "properties": {}, "geometry": {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}}'
    )
    north = gpd.GeoSeries([shapely.box(660_000, 5_720_000, 750_000, 5_790_000)], crs="EPSG:32660")
    north.to_file(tmp_path / "north.gpkg")  # on both sides of the date line, as far north as the scenes
    for words, told in (
        ([api.url, "--bbox", "179.9", "51.5", "-179.9", "52.3", *PLACE[5:]], "no scene in"),
        ([api.url, "--aoi", str(tmp_path / "north.gpkg"), *PLACE[5:]], "no scene in"),
        ([api.url], "say the place with --bbox W S E N"),
        ([api.url, "--bbox", "1", "2", "3", "4"], "and the time with --datetime"),
        ([api.url, *PLACE, "--collections", "nothing"], "no scene in"),
        ([api.url, "--bbox", "5", "2", "3", "4"], "is not west, south, east, north"),
        ([api.url, "--aoi", str(tmp_path / "line.geojson")], "the place is said by polygons"),
        ([f"{files.url}/nowhere.json"], "nowhere.json cannot be fetched: the server answers 404"),
        (["http://127.0.0.1:9/stac"], "http://127.0.0.1:9/stac cannot be fetched: the server gives no answer"),
        (["ftp://example.org/catalog.json"], "scheme 'ftp'"),
        ([str(tmp_path / "none.json")], "No such file"),
        ([str(tmp_path / "list.json")], "no STAC document"),
        ([str(tmp_path / "text.json")], "no JSON"),
        ([str(folder), "--bbox", "1", "2", "3", "4"], "is a folder of files"),
    ):
        assert main(["init", *words, "--yes"]) == 1
        said = capsys.readouterr().err
        assert said.startswith("a2mae: ") and told in said and said.count("\n") == 1, said
        assert not caplog.records, "nothing stands before the sentence"
    assert not (project / "conf/mine").exists()
