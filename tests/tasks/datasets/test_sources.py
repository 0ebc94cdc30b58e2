"""A task's parameters lead to its samples, and what they cannot mean is told."""

import dataclasses

import numpy as np
import pytest

from a2mae.sensors import BUILTIN_SENSORS
from a2mae.tasks.data_parameters import DataParameters
from a2mae.tasks.datasets.formats import layout_named
from a2mae.tasks.datasets.polygons import UNKNOWN
from a2mae.tasks.datasets.scene_folders import mask_folder
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.task_data import IGNORE, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.parameters import TaskParameters
from helpers.labelled_scenes import LABELS, S2, write_scenes


@pytest.fixture
def scenes(tmp_path):
    return write_scenes(tmp_path / "own")


def written(source, path):
    write_source(path / "data", source)
    return TaskData(path / "data")


def test_parameters_lead_to_the_folder(scenes, tmp_path):
    options = {"folder": str(scenes), "format": "sentinel-2-l2a", "file_bands": ("red", "green", "blue")}
    task = {"task": "segment", "data": {**options, "class_names": LABELS.class_names, "chip_px": 32}}
    source = prepare(TaskParameters.model_validate(task), None, tmp_path)
    assert len(list(source.samples())) == 20
    with pytest.raises(TaskDataError, match=r"segment\.data\.class_names: name the classes"):
        prepare(TaskParameters.model_validate({"task": "segment", "data": options}), None, tmp_path)
    with pytest.raises(
        TaskDataError,
        match=r"segment\.data\.format: unknown format 'sentinel2': did you mean 'sentinel-2-l2a'.*ingest\.sensors",
    ):
        prepare(
            TaskParameters.model_validate({"task": "segment", "data": {"folder": "x", "format": "sentinel2"}}),
            None,
            tmp_path,
        )
    mine = dataclasses.replace(BUILTIN_SENSORS["sentinel-2-l2a"].subset(("red", "green", "nir")), id="mine")
    found = layout_named("mine", bands=("nir", "red"), own=[mine])
    assert (found.sensor.id, found.sensor.band_names) == ("mine", ("B08", "B04"))
    with pytest.raises(TaskDataError, match="holds neither images/ nor train/images/"):
        mask_folder(tmp_path, S2, LABELS, chip_px=32)


def test_colours_of_the_users_go_with_the_classes(scenes, tmp_path):
    def of(colours):
        data = {"folder": str(scenes), "format": "sentinel-2-l2a", "class_names": LABELS.class_names}
        data |= {"file_bands": ("red", "green", "blue"), "class_colors": colours}
        return prepare(TaskParameters.model_validate({"task": "segment", "data": data}), None, tmp_path)

    data = written(of({"water": "#0000ff"}), tmp_path)
    assert data.spec.colors[2] == (0, 0, 255) and len(set(data.spec.colors)) == 3
    assert data.spec.notes[1:] == written(of({}), tmp_path).spec.notes[1:], "late notes were lost"
    with pytest.raises(TaskDataError, match=r"segment\.data\.class_colors: no class sea"):
        of({"sea": "#0000ff"})
    with pytest.raises(ValueError, match=r"class_colors\.water\n.*found 'blue', expected a colour .* as '#1f6fb4' "):
        of({"water": "blue"})
    with pytest.raises(ValueError, match=r"found None, expected a colour .*without them # begins a comment"):
        of({"water": None})


def test_what_lies_outside_polygons_is_one_of_the_classes():
    data = {"folder": "x", "class_names": LABELS.class_names}
    with pytest.raises(
        ValueError, match=r"outside must be unknown or one of class_names \(ground, roof, water\), .*'sea'"
    ):
        TaskParameters.model_validate({"task": "segment", "data": {**data, "outside": "sea"}})
    assert TaskParameters.model_validate({"task": "segment", "data": data}).data.outside == UNKNOWN


def test_a_parameter_that_is_gone_is_told_with_its_successor():
    data = {"simulated": {"stride_px": 16}}
    with pytest.raises(ValueError, match=r"parameter 'stride_px' is gone; set chip_px alone"):
        TaskParameters.model_validate({"task": "segment", "data": data})


def test_a_change_map_of_one_date_is_refused_at_the_door():
    with pytest.raises(ValueError, match=r"two dates: set detect_change\.map\.raster_before, too"):
        TaskParameters.model_validate({"task": "detect_change", "map": {"raster": "b.tif"}})
    with pytest.raises(ValueError, match=r"set detect_change\.map\.scene_ids, too"):
        TaskParameters.model_validate({"task": "detect_change", "map": {"scene_ids_before": ("a",)}})


def test_what_masks_hold_is_stated_and_is_said_of_masks_alone(scenes, tmp_path):
    options = {"folder": str(scenes), "format": "sentinel-2-l2a", "file_bands": ("red", "green", "blue"), "chip_px": 32}

    def targets(task="segment", **data):
        stated = {"task": task, "data": {**options, "class_names": LABELS.class_names, **data}}
        return [sample.target for sample in prepare(TaskParameters.model_validate(stated), None, tmp_path).samples()]

    plain, turned = targets(), targets(class_values=(2, 0, 1))
    for one, other in zip(plain, turned, strict=True):
        np.testing.assert_array_equal(np.choose(np.minimum(one, 3), (1, 2, 0, IGNORE)), other)
    two = targets(class_names=("roof", "water"), first_class=1, ignore=(0,))
    np.testing.assert_array_equal(two[0], np.choose(np.minimum(plain[0], 3), (IGNORE, 0, 1, IGNORE)))
    for split in ("train", "val", "test"):
        (scenes / split / "masks").rename(scenes / split / "labels")
    with pytest.raises(
        TaskDataError, match=r"first_class, class_values and ignore say what masks hold, and .* holds none"
    ):
        targets(first_class=1)


@pytest.mark.parametrize("named", ["folder", "dataset"])
def test_sets_are_made_of_image_sets_and_of_no_files(named):
    sets = {"inputs": {"images": 3}}
    with pytest.raises(
        ValueError, match=rf"archive.inputs makes sets of 3 images .* a sample of {named} is as its files"
    ):
        DataParameters.model_validate({named: "x", "archive": sets})
    assert DataParameters.model_validate({"labels": "x.gpkg", "archive": sets}).inputs.images == 3
    assert DataParameters.model_validate({named: "x", "simulated": sets}).inputs.images == 1, "as the demo's own"
