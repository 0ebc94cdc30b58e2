"""Values of the user's own: per pixel from rasters and polygons, per image from a table; NaN is no label."""

from __future__ import annotations

import shutil

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

from a2mae.tasks.datasets.polygons import FolderLabels
from a2mae.tasks.datasets.scene_folders import mask_folder
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.task_data import Quantity, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task
from helpers.labelled_scenes import S2, SPLITS, UTM, corner, save, write_scenes

BIOMASS = Quantity("biomass", "t/ha")
VALUES = FolderLabels((), quantity=BIOMASS, group="estimate.data")


@pytest.fixture
def scenes(tmp_path):
    """Scenes with a value per pixel beside them: ten times the class."""
    folder = write_scenes(tmp_path / "own")
    for number, split in enumerate(SPLITS):
        with rasterio.open(folder / split / "masks" / f"s{number}.tif") as source:
            values = source.read(1).astype(np.float32) * 10
        values[5, 5], values[6, 6] = np.nan, -9999
        save(folder / split / "values" / f"s{number}.tif", values, crs=UTM, at=corner(number), nodata=-9999)
    return folder


def written(source, path):
    write_source(path / "data", source)
    return TaskData(path / "data")


def test_rasters_of_values_are_labels_where_they_hold_any(scenes, tmp_path):
    data = written(mask_folder(scenes, S2, VALUES, chip_px=32), tmp_path)
    assert (data.spec.task, data.spec.quantity, data.spec.class_names) == (Task.ESTIMATE, BIOMASS, ())
    read = data.read(np.arange(len(data.samples)))
    assert read.targets.dtype == np.float32
    red = read.images[:, 0, 0]
    for value, level in ((0.0, 0.2), (10.0, 0.5), (20.0, 0.02)):
        assert abs(np.median(red[read.targets == value]) - level) < 0.01
    first = read.targets[data.samples["sample_id"].tolist().index("train/s0-0-0")]
    assert np.isnan(first[[5, 6], [5, 6]]).all() and np.isfinite(first).sum() == 32 * 32 - 2


@pytest.mark.parametrize(("scale", "offset"), [(0.0, 1.0), (np.nan, 0.0), (1.0, np.inf)])
def test_values_whose_tags_decode_no_number_are_refused(scenes, tmp_path, scale, offset):
    path = scenes / SPLITS[0] / "values" / "s0.tif"
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [scale], [offset]
    with pytest.raises(TaskDataError, match=r"s0\.tif is tagged with scale .* which decode no stored number"):
        written(mask_folder(scenes, S2, VALUES, chip_px=32), tmp_path)


def test_polygons_carry_values(scenes, tmp_path):
    for number, split in enumerate(SPLITS):
        x, y = corner(number)
        fields = [shapely.box(x, y - 200, x + 200, y), shapely.box(x + 200, y - 200, x + 400, y)]
        (scenes / split / "labels").mkdir(exist_ok=True)
        frame = gpd.GeoDataFrame({"biomass": [12.5, None if number else 80.0]}, geometry=fields, crs=UTM)
        frame.to_file(scenes / split / "labels" / f"s{number}.gpkg")
        shutil.rmtree(scenes / split / "values", ignore_errors=True)
    data = written(mask_folder(scenes, S2, VALUES, chip_px=32), tmp_path)
    targets = data.read_targets(np.arange(len(data.samples)))
    assert set(np.unique(targets[np.isfinite(targets)])) == {12.5, 80.0}
    assert any("ground in no polygon: unknown (estimate.data.outside)" in note for note in data.spec.notes)


def test_a_table_gives_a_value_per_image(tmp_path):
    data = written(prepare(options(tmp_path, [str(1.5 * number) for number in range(40)]), None, None), tmp_path)
    assert not data.spec.per_pixel and str(data.spec.quantity) == "biomass, t/ha"
    targets = data.read_targets(np.arange(40))
    assert targets.shape == (40,) and targets.dtype == np.float32
    by_name = dict(zip(data.samples["sample_id"], targets.tolist(), strict=True))
    assert by_name["p7"] == 10.5 and (data.samples["label"] == -1).all()


def options(folder, cells, head="mean"):
    """Pictures whose table says these values."""
    root = folder / "table"
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    lines = ["file,biomass"]
    for number, cell in enumerate(cells):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(root / f"p{number}.png")
        lines.append(f'p{number}.png,"{cell}"')
    (root / "labels.csv").write_text("\n".join(lines))
    data = {"folder": str(root), "value_property": "biomass", "units": "t/ha"}
    return TaskParameters.model_validate({"task": "estimate", "head": head, "data": data})


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            ["1", "tall"],
            r"labels\.csv, line 3: biomass is 'tall', expected a number; leave it empty where it is not known$",
        ),
        (["1", "2,5"], r"line 3: biomass is '2,5', expected a number; write a decimal point, not a comma"),
        (["1", "inf"], r"line 3: biomass is 'inf', expected a finite number, or nothing where it is not known"),
        (["1", "1e39"], r"line 3: biomass is '1e39', expected a finite number, .*; the largest is 3\.4e\+38"),
        (["", "nan"], r"labels\.csv: the column 'biomass' holds no value in any of 2 lines"),
        (["4"] * 30, r"the training labels of 'table' are all 4, so there is nothing to learn: give places whose bio"),
    ],
)
def test_a_column_that_holds_no_values_is_named(tmp_path, cells, message):
    with pytest.raises(TaskDataError, match=message):
        written(prepare(options(tmp_path, cells), None, None), tmp_path)


def test_lines_without_a_value_are_left_out_and_counted(tmp_path):
    cells = ["" if number % 10 == 0 else str(number) for number in range(40)]
    data = written(prepare(options(tmp_path, cells), None, None), tmp_path)
    assert len(data.samples) == 36 and "lines of labels.csv without a value, left out: 4" in data.spec.notes


def test_labels_of_images_need_a_head_that_answers_for_images(tmp_path):
    with pytest.raises(TaskDataError, match=r"estimate\.head: the labels in .*table are of whole images, and the head"):
        prepare(options(tmp_path, ["1", "2"], head="conv"), None, None)


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("empty", r"'own' gave no samples; .*; chips without a label, left out: 20: train/s0-0-0, "),
        ("untested", r"no samples in split 'test' .*; chips without a label, left out: 4: test/s4-0-0, "),
        ("bands", r"s4\.tif: 2 bands; a raster of values has one"),
        ("size", r"s4\.tif: 10 x 40 pixels, but s4\.tif of it has 48 x 40"),
        ("text", r"s4\.gpkg: feature 0: biomass is 'tall', expected a number"),
        ("column", r"s4\.gpkg: feature 0 has no property 'biomass', but height; set estimate\.data\.value_property to"),
    ],
)
def test_what_is_no_label_is_named(scenes, tmp_path, breakage, message):
    at, path = corner(4), scenes / "test" / "values" / "s4.tif"
    values = np.full((48, 40), 3.0, np.float32)
    if breakage in ("empty", "untested"):
        for number, split in enumerate(SPLITS):
            if breakage == "empty" or split == "test":
                nothing = np.full((48, 40), np.nan, np.float32)
                nothing[3] = np.inf
                save(scenes / split / "values" / f"s{number}.tif", nothing, crs=UTM, at=corner(number))
    elif breakage == "bands":
        save(path, np.stack([values, values]), crs=UTM, at=at)
    elif breakage == "size":
        save(path, values[:10], crs=UTM, at=at)
    else:
        path.parent.rename(scenes / "test" / "elsewhere")
        (scenes / "test" / "labels").mkdir()
        found = {"biomass": ["tall"]} if breakage == "text" else {"height": [3.0]}
        geometry = [shapely.box(at[0], at[1] - 100, at[0] + 100, at[1])]
        gpd.GeoDataFrame(found, geometry=geometry, crs=UTM).to_file(scenes / "test" / "labels" / "s4.gpkg")
    with pytest.raises(TaskDataError, match=message):
        written(mask_folder(scenes, S2, VALUES, chip_px=32), tmp_path)


def test_benchmarks_of_classes_are_refused(tmp_path):
    data = {"dataset": "EuroSAT", "folder": str(tmp_path)}
    asked = TaskParameters.model_validate({"task": "estimate", "data": data})
    with pytest.raises(TaskDataError, match=r"estimate\.data\.dataset: data sets of torchgeo are read for classes"):
        prepare(asked, None, None)
