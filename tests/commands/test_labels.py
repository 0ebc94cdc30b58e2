"""`a2mae labels`: labels become the parameters of a task; what cannot be known is asked, nothing is overwritten."""

from __future__ import annotations

import json
import os

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from kedro.config import OmegaConfigLoader
from pydantic import ValidationError
from rasterio.transform import from_origin
from shapely.geometry import Point, box

from a2mae.commands import main
from a2mae.commands.environment import flow
from a2mae.errors import InputError
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.tasks.datasets.task_data import TaskDataError, TaskSpec
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.recognise.look import look_at
from a2mae.tasks.registry import Task
from helpers.access import as_anybody, shared_folder
from helpers.class_pictures import two_classes
from helpers.deliveries import CRS, LEFT, TOP
from helpers.terminal import typing


@pytest.fixture
def lake(project):
    """An environment that has found places of Sentinel-2, three in a row, and built nothing yet."""
    (project / "conf/lake").mkdir()
    (project / "conf/lake/globals.yml").write_text("data_root: data/lake\n")
    (project / "conf/lake/parameters_ingest.yml").write_text("ingest:\n  locations: {footprint_m: 960}\n")
    tables = project / "data/lake/02_intermediate"
    tables.mkdir(parents=True)
    squares = [box(LEFT + 960 * k, TOP - 960, LEFT + 960 * (k + 1), TOP) for k in range(3)]
    places = gpd.GeoDataFrame({"location_id": ["a", "b", "c"]}, geometry=squares, crs=CRS).to_crs("EPSG:4326")
    places.to_parquet(tables / "locations.parquet")
    scenes = gpd.GeoDataFrame(
        {"sensor": ["sentinel-2-l2a"] * 2, "status": "accepted"}, geometry=squares[:2], crs=CRS
    ).to_crs("EPSG:4326")
    scenes.to_parquet(tables / "scenes.parquet")
    sensor = BUILTIN_SENSORS["sentinel-2-l2a"].subset(("B02", "B03", "B04", "B08"))
    (tables / "sensors.json").write_text(json.dumps({sensor.id: sensor.to_dict()}))
    return project


def fields(path, *, east_m=0.0, crs="EPSG:4326", **columns):
    """Two squares on the first place; columns are what they hold."""
    shapes = [box(x, TOP - 300, x + 200, TOP - 100) for x in (LEFT + 100 + east_m, LEFT + 500 + east_m)]
    gpd.GeoDataFrame(columns, geometry=shapes, crs=CRS).to_crs(crs).to_file(path)
    return path


def group(project, task):
    return yaml.safe_load((project / f"conf/lake/parameters_{task}.yml").read_text())[task]


def test_polygons_become_a_task(lake, tmp_path, capsys):
    path = fields(tmp_path / "fields.gpkg", **{"class": ["maize", "wheat"], "number": [1, 2]})
    assert main(["labels", str(path), "--env", "lake", "--yes"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "features of polygons, 2 features" in said and "2 of 2 labels lie on 1 of 3 places" in said
    assert "EPSG:4326" in said and "maize (1), wheat (1)" in said and "ASKED" not in said
    assert group(lake, "segment") == {
        "bands": ["red", "green", "blue", "nir", "red", "green"],
        "data": {
            "labels": str(path), "class_property": "class", "class_names": ["maize", "wheat"],
            "archive": {
                "sensors": ["sentinel-2-l2a"], "bands": ["blue", "green", "red", "nir"], "chip_px": 48,
            },
        },
    }  # fmt: skip
    TaskParameters(task="segment", **group(lake, "segment"))
    before = (lake / "conf/lake/parameters_segment.yml").read_bytes()
    assert main(["labels", str(path), "--env", "lake", "--yes"]) == 0
    assert "says what would be written" in capsys.readouterr().out
    path.unlink()
    fields(path, **{"class": ["maize", "rye"]})
    assert main(["labels", str(path), "--env", "lake", "--yes"]) == 1
    shown = capsys.readouterr()
    assert "+    - rye" in shown.out and "left as it is" in shown.err
    assert (lake / "conf/lake/parameters_segment.yml").read_bytes() == before


def test_without_an_archive_it_is_said_and_the_file_is_completed_once_there_is_one(lake, tmp_path, capsys):
    path = fields(tmp_path / "fields.gpkg", **{"class": ["maize", "wheat"], "number": [1, 2]})
    tables, away = lake / "data/lake/02_intermediate", tmp_path / "away"
    tables.rename(away)
    words = ["labels", str(path), "--env", "lake", "--yes"]
    assert main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    for told in (
        "features of polygons, 2 features", "EPSG:4326", "maize (1), wheat (1)", "environment lake has no archive yet",
        "kedro run --env=lake --pipelines=ingest,coregister,tag,prune", "then give this command again",
    ):  # fmt: skip
        assert told in said
    assert group(lake, "segment")["data"]["archive"]["sensors"] == "???"
    away.rename(tables)
    assert main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "completed conf/lake/parameters_segment.yml" in said and "2 of 2 labels lie on 1 of 3 places" in said
    assert group(lake, "segment")["data"]["archive"]["sensors"] == ["sentinel-2-l2a"]
    assert main(words) == 0
    assert "says what would be written" in capsys.readouterr().out


def test_what_may_not_be_read_is_told():
    with shared_folder() as folder:
        fields(folder / "fields.gpkg", **{"class": ["maize", "wheat"]})
        raster(folder / "closed/cover.tif", np.eye(10, dtype=np.uint8))
        two_classes(folder / "pictures", 4)
        for name in ("fields.gpkg", "closed", "pictures/dark"):
            (folder / name).chmod(0)
        for name, told in (
            ("fields.gpkg", "fields.gpkg cannot be read (Permission denied)"),
            ("closed", "closed cannot be read (Permission denied)"),
            ("closed/cover.tif", "cover.tif cannot be read (Permission denied)"),
            ("pictures", "dark cannot be read (Permission denied)"),
        ):
            with as_anybody(), pytest.raises(InputError) as refused:
                look_at(folder / name)
            assert told in str(refused.value)


def test_what_labels_do_not_say_is_marked_and_refused_by_name(lake, tmp_path, capsys):
    path = fields(tmp_path / "fields.gpkg", kind=["maize", "maize"])
    assert main(["labels", str(path), "--env", "lake", "--yes"]) == 0
    assert "1 line of it to be stated in place of ???: data.class_property" in capsys.readouterr().out
    assert group(lake, "segment")["data"]["class_property"] == "???"
    with pytest.raises(ValidationError, match=r"still to be stated in place of \?\?\?: 'class_property'"):
        TaskParameters(task="segment", **group(lake, "segment"))


def test_a_terminal_is_asked_for_one_thing_after_another(lake, tmp_path, monkeypatch, capsys):
    path = fields(tmp_path / "fields.gpkg", kind=["maize", "maize"])
    asked = typing(monkeypatch, "sort", "kind", "land")
    assert main(["labels", str(path), "--env", "lake"]) == 0, capsys.readouterr().err
    assert asked == ["data.class_property [kind]:"] * 2 + ["data.outside:"]
    said = capsys.readouterr().out
    assert "'sort' is no attribute: kind" in said and "one class alone, maize" in said
    data = group(lake, "segment")["data"]
    assert (data["class_names"], data["outside"]) == (["land", "maize"], "land")
    # What was stated is known to the next run.
    assert main(["labels", str(path), "--env", "lake", "--yes"]) == 0
    assert "says what would be written" in capsys.readouterr().out


def test_points_of_a_table_are_for_one_task_or_another(lake, tmp_path, capsys):
    place = gpd.GeoSeries([Point(LEFT + 300, TOP - 300), Point(LEFT + 1200, TOP - 300)], crs=CRS).to_crs("EPSG:4326")
    path = tmp_path / "trees.csv"
    path.write_text("lon,lat,species,height\n" + "".join(
        f"{p.x},{p.y},{name},{height}\n" for p, name, height in zip(place, ("oak", "elm"), (12.5, 8.25), strict=True)
    ))  # fmt: skip
    assert main(["labels", str(path), "--env", "lake", "--yes"]) == 1
    assert "classify learns a window around each, segment the pixel" in capsys.readouterr().err
    assert main(["labels", str(path), "--env", "lake", "--yes", "--task", "classify"]) == 0, capsys.readouterr().err
    assert "2 of 2 labels lie on 2 of 3 places" in capsys.readouterr().out
    assert group(lake, "classify")["data"]["class_property"] == "???", "which attribute is asked"
    assert main(["labels", str(path), "--env", "lake", "--yes", "--task", "estimate"]) == 0
    data = group(lake, "estimate")["data"]
    assert (data["value_property"], data["units"]) == ("???", "???")
    assert "8.25 to 12.5" in (lake / "conf/lake/parameters_estimate.yml").read_text()


def raster(path, numbers, *, nodata=None, crs=CRS):
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.asarray(numbers)
    settings = {"crs": crs, "transform": from_origin(LEFT, TOP, 10, 10)} if crs else {}
    with rasterio.open(
        path, "w", driver="GTiff", height=numbers.shape[0], width=numbers.shape[1], count=1, dtype=numbers.dtype,
        nodata=nodata, **settings,
    ) as target:  # fmt: skip
        target.write(numbers, 1)
    return path


def test_the_numbers_of_a_raster_are_counted_and_named(lake, tmp_path, monkeypatch, capsys):
    numbers = np.repeat(np.array([0, 10, 20, 255], np.uint8), 25).reshape(10, 10)
    path = raster(tmp_path / "cover.tif", numbers, nodata=255)
    asked = typing(monkeypatch, "water", "-, water, land")
    assert main(["labels", str(path), "--env", "lake"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert asked == ["data.class_names:"] * 2 and "numbers 0 (33.3%), 10 (33.3%), 20 (33.3%)" in said
    assert "1 name for the 3 numbers 0, 10, 20" in said and "the raster lies on 1 of 3 places" in said
    data = group(lake, "segment")["data"]
    assert (data["class_names"], data["class_values"], data["ignore"]) == (["water", "land"], [10, 20], [0])
    TaskParameters(task="segment", **group(lake, "segment"))
    assert main(["labels", str(path), "--env", "lake", "--yes"]) == 0
    assert "says what would be written" in capsys.readouterr().out
    heights = raster(tmp_path / "height.tif", np.linspace(0, 30, 100, dtype=np.float32).reshape(10, 10))
    assert main(["labels", str(heights), "--env", "lake", "--yes"]) == 0
    assert group(lake, "estimate")["data"]["units"] == "???"


def test_class_folders_are_read_as_the_task_will(lake, tmp_path, monkeypatch, capsys):
    folder = two_classes(tmp_path / "pictures", 30)
    typing(monkeypatch, "")
    assert main(["labels", str(folder), "--env", "lake"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "class folders, 60 pictures" in said and "dark (30), light (30)" in said
    counts = next(line.split() for line in said.splitlines() if line.startswith("  samples  "))
    assert sum(map(int, counts[1:])) == 60
    assert group(lake, "classify")["data"] == {"folder": str(folder), "format": "rgb_bytes", "gsd_m": 10.0}


def test_masks_beside_images_are_counted(lake, tmp_path, capsys):
    for split in ("train", "test"):
        raster(tmp_path / f"in/{split}/masks/x.tif", np.eye(10, dtype=np.uint8))
        raster(tmp_path / f"in/{split}/images/x.tif", np.full((10, 10), 700, np.uint16))
    assert main(["labels", str(tmp_path / "in"), "--env", "lake", "--yes"]) == 0, capsys.readouterr().err
    assert "numbers 0 (90.0%), 1 (10.0%)" in capsys.readouterr().out
    data = group(lake, "segment")["data"]
    assert (data["class_names"], data["class_values"], data["format"]) == ("???", [0, 1], "???")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("nothing.gpkg", None, "is not there: name a file or a folder of labels"),
        ("labels.zip", b"PK", "unpack it and name what comes out"),
        ("labels.gpkg", b"hello", "begins with b'hello'"),
        ("points.csv", b"x,y,class\n1,2,a\n", "needed are lon and lat"),
        ("empty.geojson", b'{"type": "FeatureCollection", "features": []}', "holds no features"),
        ("cover.tif", b"II*\0broken", "cannot be opened"),
    ],
)
def test_what_is_no_labels_is_told_in_a_sentence(lake, capsys, name, content, told):
    tmp_path = lake.parent
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["labels", str(tmp_path / name), "--env", "lake", "--yes"]) == 1
    said = capsys.readouterr().err
    assert told in said and said.startswith("a2mae: ") and said.count("\n") == 1
    assert not list((lake / "conf/lake").glob("parameters_segment.yml"))


def test_values_of_two_kinds_are_looked_at_and_a_day_of_no_year_is_refused(tmp_path):
    look = look_at(fields(tmp_path / "a.geojson", **{"class": [True, False], "start": ["2023-06-01"] * 2}))
    assert dict(look.columns["class"].counts) == {"false": 1, "true": 1} and look.columns["class"].span is None
    assert look.days == "start 2023-06-01 to 2023-06-01"
    with pytest.raises(TaskDataError, match=r"b\.geojson: feature 0: start is '-5', expected a day as 2021-06-04"):
        look_at(fields(tmp_path / "b.geojson", **{"class": [True, False], "start": ["-5"] * 2}))


@pytest.mark.parametrize("name", ["points.csv", "cover.tif", "labels"])
def test_a_name_that_is_no_text_is_told(lake, tmp_path, capsys, name):
    path = tmp_path / os.fsdecode(b"\xff" + name.encode())
    path.mkdir() if name == "labels" else path.write_bytes(b"")
    assert main(["labels", str(path), "--env", "lake", "--yes"]) == 1
    assert f"\\udcff{name}' has bytes in its name that are no UTF-8: rename it" in capsys.readouterr().err


TEXTS = (
    "1e5", "1_000", "-3", ".inf", ".nan", "0x1F", "yes", "null", "~", "2023-05-01", "12:30:45", "", " ", "a: [b, *c]",
    "${oc.env:HOME}", "${globals:data_root}", "\\${x}", "\\\\${x}", "$${x}", "a\\b", "${", "${a${b}}", "'q'", '"', "#x",
    "- x", "%s", "<<", "=", "wäld", "a\nb",
)  # fmt: skip


def test_no_text_of_a_file_is_read_as_anything_but_itself(tmp_path):
    """A class `${globals:data_root}` was replaced by what that is, and `1e5` was a number."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/globals.yml").write_text("data_root: data/secret\n")
    text = "\n".join(f"  k{number}: {flow(one)}   # said" for number, one in enumerate(TEXTS))
    (tmp_path / "base/parameters_x.yml").write_text(f"x:\n{text}\n  all: {flow(list(TEXTS))}\n")
    read = OmegaConfigLoader(str(tmp_path), base_env="base", default_run_env="base")["parameters"]["x"]
    assert tuple(read["all"]) == TEXTS
    assert tuple(read[f"k{number}"] for number in range(len(TEXTS))) == TEXTS


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\u202eb", "x" * 300, "two\nlines"])
def test_a_class_is_named_by_a_line_of_text(name):
    with pytest.raises(TaskDataError, match="is no name of a class: it stands in maps, tables and legends"):
        TaskSpec(Task.SEGMENT, "a.gpkg", ("wheat", name), (), (), BUILTIN_SENSORS["sentinel-2-l2a"].encoding, 10.0)


def test_coordinates_that_are_not_what_their_crs_says_are_told_before_anything_is_written(lake, tmp_path, capsys):
    path = fields(tmp_path / "fields.gpkg", **{"class": ["maize", "wheat"]})
    read = gpd.read_file(path)
    read.set_crs(CRS, allow_override=True).to_file(tmp_path / "degrees.gpkg")
    turned = read.to_crs(CRS)
    turned["geometry"] = shapely.transform(turned.geometry.array, lambda xy: xy[:, ::-1])
    turned.to_file(tmp_path / "turned.gpkg")
    read["geometry"] = shapely.transform(read.geometry.array, lambda xy: xy[:, ::-1] + [0, 90])
    read.to_file(tmp_path / "north.gpkg")
    read["geometry"] = None
    read.to_file(tmp_path / "none.gpkg")
    degrees = {"driver": "GTiff", "width": 9, "height": 9, "count": 1, "dtype": "uint8", "crs": CRS}
    with rasterio.open(tmp_path / "a.tif", "w", transform=from_origin(10, 50, 0.001, 0.001), **degrees) as file:
        file.write(np.eye(9, dtype=np.uint8)[None])
    for name, told in (
        ("degrees.gpkg", "which is in metres, and what it holds lies within"),
        ("a.tif", "which are degrees: write it with EPSG:4326"),
        ("turned.gpkg", "With x and y exchanged they would"),
        ("north.gpkg", "which are no degrees"),
        ("none.gpkg", "none of its 2 features has a geometry"),
    ):
        assert main(["labels", str(tmp_path / name), "--env", "lake", "--yes"]) == 1
        assert told in capsys.readouterr().err, name
    assert not (lake / "conf/lake/parameters_segment.yml").exists()


def test_whole_numbers_under_the_name_of_values_are_values(lake, tmp_path, capsys):
    path = tmp_path / "trees.gpkg"
    squares = [box(LEFT + 60 * k, TOP - 300, LEFT + 60 * k + 40, TOP - 200) for k in range(5)]
    gpd.GeoDataFrame({"value": [1.0, 2.0, 3.0, 4.0, 5.0]}, geometry=squares, crs=CRS).to_file(path)
    assert main(["labels", str(path), "--env", "lake", "--yes"]) == 0, capsys.readouterr().err
    assert group(lake, "estimate")["data"]["value_property"] == "value"


def test_labels_of_another_ground_and_folders_of_nothing_are_refused(lake, tmp_path, capsys):
    path = fields(tmp_path / "far.gpkg", east_m=90_000, **{"class": ["maize", "wheat"]})
    for words, told in (
        ([str(path), "--env", "lake"], "no label lies on one of them"),
        ([str(path), "--env", "lak"], "has no environment 'lak': did you mean 'lake'"),
        ([str(lake / "conf")], "has no environment 'mine'"),
        ([str(lake / "data"), "--env", "lake"], "holds no labels that are recognised"),
    ):
        assert main(["labels", *words, "--yes"]) == 1
        assert told in capsys.readouterr().err
