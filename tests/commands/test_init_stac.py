"""`a2mae init` of a STAC API and of a static catalog: what they hold becomes an environment, and no secret a line."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from PIL import Image

from a2mae.commands import main
from a2mae.simulate.run import write_tiny_world
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
        strange = {**items[0], "id": "odd", "collection": "nobodys-sat"}
        strange["properties"] = {**strange["properties"], "platform": "nobody-1", "constellation": ""}
        with serve_api([*items, strange]) as api:
            yield folder, files, api


def group(project, name):
    return yaml.safe_load((project / f"conf/{name}/parameters_ingest.yml").read_text())["ingest"]


def test_an_api_becomes_an_environment_a_scene_table_and_a_picture(project, world, capsys):
    _, _, api = world
    assert main(["init", api.url, "--yes", "--name", "live", *PLACE]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "2 items of sentinel-2-l2a, processing baseline" in said and "5 scenes accepted, 4 places of 1920 m" in said
    assert "nobodys-sat, unknown_sensor" in said, "what cannot be used is said with its reason"
    source = group(project, "live")
    assert source["source"]["api"]["collections"] == ["gaofen-1", "landsat-oli-c2-l2", "sentinel-2-l2a"]
    assert source["hrefs"] == {"schemes": ["http"], "allow_private": True, "hosts": ["127.0.0.1"]}
    scenes = pd.read_parquet(project / "data/live/02_intermediate/scenes.parquet")
    assert set(scenes["sensor"]) == {"gaofen-1", "landsat-oli-c2-l2", "sentinel-2-l2a"}
    with Image.open(project / "data/live/08_reporting/scenes.png") as picture:
        assert picture.size[1] > 400
    assert main(["init", api.url, "--yes", "--name", "live", *PLACE]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["init", api.url, "--yes", "--name", "live", *PLACE[:-1], "2020-01-01/2021-01-01"]) == 1
    shown = capsys.readouterr()
    assert "datetime: 2020-01-01/2021-01-01" in shown.out and "left as it is" in shown.err


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


def test_what_is_no_catalog_or_no_place_is_told_in_a_sentence(project, world, tmp_path, capsys):
    folder, files, api = world
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "line.geojson").write_text(
        '{"type": "Feature", "properties": {}, "geometry": {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}}'
    )
    for words, told in (
        ([api.url], "say the place with --bbox W S E N"),
        ([api.url, "--bbox", "1", "2", "3", "4"], "and the time with --datetime"),
        ([api.url, *PLACE, "--collections", "nothing"], "no scene in"),
        ([api.url, "--bbox", "5", "2", "3", "4"], "is not west, south, east, north"),
        ([api.url, "--aoi", str(tmp_path / "line.geojson")], "the place is said by polygons"),
        ([f"{files.url}/nowhere.json"], "nowhere.json cannot be read"),
        (["ftp://example.org/catalog.json"], "scheme 'ftp'"),
        ([str(tmp_path / "none.json")], "No such file"),
        ([str(tmp_path / "list.json")], "no STAC document"),
        ([str(tmp_path / "text.json")], "no JSON"),
        ([str(folder), "--bbox", "1", "2", "3", "4"], "is a folder of files"),
    ):
        assert main(["init", *words, "--yes"]) == 1
        said = capsys.readouterr().err
        assert said.startswith("a2mae: ") and told in said and said.count("\n") == 1, said
    assert not (project / "conf/mine").exists()
