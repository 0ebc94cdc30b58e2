"""Data in SECOND's layout: numbers or colours, unchanged ground, and what is wrong with them."""

import numpy as np
import pytest
from PIL import Image

from a2mae.tasks.datasets.formats import layout_named
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError, TaskSpec
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task
from a2mae.tasks.transitions import UNKNOWN, decode, encode

NAMES = ["water", "tree", "building"]
COLORS = {"water": "#0000ff", "tree": "#00ff00", "building": "#800000"}
RGB = np.array([(255, 255, 255), (0, 0, 255), (0, 255, 0), (128, 0, 0)], np.uint8)


def options(folder, **data):
    asked = {"folder": str(folder), "class_names": NAMES, "gsd_m": 3.0, **data}
    return TaskParameters.model_validate({"task": "detect_transitions", "data": asked})


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def second(tmp_path):
    """Ten pairs of 32 pixels, as SECOND: 0 where nothing changed, classes from 1 where it did."""
    rng, folder = np.random.default_rng(0), tmp_path / "second"
    for number in range(10):
        split = "train" if number < 6 else "val" if number < 8 else "test"
        was = np.kron(rng.integers(1, 4, (4, 4)), np.ones((8, 8), int)).astype(np.uint8)
        became = np.where(np.kron(rng.random((4, 4)) < 0.5, np.ones((8, 8), bool)), was % 3 + 1, was).astype(np.uint8)
        labels = [np.where(was == became, 0, date).astype(np.uint8) for date in (was, became)]
        for name, cover, label in (("1", was, labels[0]), ("2", became, labels[1])):
            picture = np.clip(RGB[cover] * 0.8 + rng.normal(0, 9, (32, 32, 3)), 1, 254).astype(np.uint8)
            save(folder / split / f"im{name}" / f"{number}.png", picture)
            save(folder / split / f"label{name}" / f"{number}.png", label)
    return folder


def written(asked, tmp_path):
    write_source(tmp_path / "data", prepare(asked, None, None))
    return TaskData(tmp_path / "data")


def test_seconds_layout_is_read_with_unchanged_ground_of_no_class(second, tmp_path):
    data = written(options(second), tmp_path)
    assert data.spec.task is Task.DETECT_TRANSITIONS and data.spec.class_names == tuple(NAMES)
    assert "ground of 0 in the labels is unchanged; its class is not known" in data.spec.notes
    assert data.image_shape == (2, 3, 32, 32)
    codes = data.read_targets(np.arange(10))
    assert set(np.unique(codes)) == {0, 2, 6, 7}, "unchanged, water → tree, tree → building, building → water"
    row = data.samples.index[data.samples["sample_id"] == "test/9"][0]
    labels = [np.asarray(Image.open(second / "test" / f"label{date}" / "9.png")) for date in (1, 2)]
    for found, label in zip(decode(codes[row], 3), labels, strict=True):
        assert (found == np.where(label == 0, UNKNOWN, label - 1)).all()


def test_labels_in_seconds_colours_give_the_same_samples(second, tmp_path):
    by_number = written(options(second), tmp_path).read_targets(np.arange(10))
    for path in second.glob("*/label*/*.png"):
        save(path, RGB[np.asarray(Image.open(path))])
    by_color = written(options(second, class_colors=COLORS), tmp_path)
    assert (by_color.read_targets(np.arange(10)) == by_number).all()
    assert by_color.spec.colors == ((0, 0, 255), (0, 255, 0), (128, 0, 0))
    with pytest.raises(TaskDataError, match=r"3 bands; a mask has .* name that of each class in detect_trans"):
        written(options(second), tmp_path)
    path = second / "train" / "label2" / "3.png"
    picture = np.asarray(Image.open(path)).copy()
    picture[4, 5:8] = (1, 2, 3)
    save(path, picture)
    with pytest.raises(TaskDataError, match=r"3\.png: 3 pixels of no class's colour, most of #010203 \(the classes a"):
        written(options(second, class_colors=COLORS), tmp_path)


def test_both_dates_may_have_their_class_everywhere(second, tmp_path):
    rng = np.random.default_rng(5)
    for was in second.glob("*/label1/*.png"):
        for path in (was, was.parent.parent / "label2" / was.name):
            save(path, rng.integers(0, 3, (32, 32)).astype(np.uint8))
    data = written(options(second, class_values=[0, 1, 2]), tmp_path)
    assert 0 not in data.read_targets(np.arange(10)), "every pixel has a class at both dates"
    labels = [np.asarray(Image.open(second / "test" / f"label{date}" / "9.png")) for date in (1, 2)]
    row = data.samples.index[data.samples["sample_id"] == "test/9"][0]
    assert (data.read_targets(np.array([row]))[0] == encode(*labels, 3)).all()


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (
            "torn",
            r"label2/3\.png: 2 pixels, the first at row 1, column 4, unchanged \(0\) in one of label1/ and la",
        ),
        ("class", r"3\.png: labels 9 are outside the 4 values 0 unchanged, 1 water, 2 tree, 3 building"),
        ("missing", r"missing: 3 \(label2\)"),
        ("unchanged", "nothing has changed its class in the test split of 'second', so there is no change to score"),
        ("names", "class_names: name the classes that the masks' values 1, 2, … stand for"),
        ("colours", r"label1/0\.png has three bands, .* gives tree and building one colour"),
        ("layout", r"holds neither im1/ nor train/im1/"),
        (
            "torchgeo",
            "data sets of torchgeo are read for classes, and detect_transitions learns the class of two dates",
        ),
    ],
)
def test_what_is_wrong_is_named(second, tmp_path, breakage, message):
    asked, path = options(second), second / "train" / "label2" / "3.png"
    label = np.asarray(Image.open(path)).copy()
    if breakage == "torn":
        label[1, 4:6] = np.where(label[1, 4:6] == 0, 1, 0)
        save(path, label)
    elif breakage == "class":
        label[0, 0] = 9
        save(path, label)
    elif breakage == "missing":
        path.unlink()
    elif breakage == "unchanged":
        for one in second.glob("test/label*/*.png"):
            save(one, np.zeros((32, 32), np.uint8))
    elif breakage == "names":
        asked = options(second, class_names=[])
    elif breakage == "colours":
        for one in second.glob("*/label*/*.png"):
            save(one, RGB[np.asarray(Image.open(one))])
        asked = options(second, class_colors={**COLORS, "building": COLORS["tree"]})
    elif breakage == "torchgeo":
        asked = options(second, dataset="LEVIRCD")
    else:
        asked = options(tmp_path)
    with pytest.raises(TaskDataError, match=message):
        written(asked, tmp_path)


def test_more_classes_than_a_map_has_numbers_for_are_rejected():
    layout = layout_named("rgb_bytes", gsd_m=3.0)
    names = tuple(f"class {number}" for number in range(16))
    sensor = layout.sensor
    with pytest.raises(TaskDataError, match="at most 15 classes, so that a map has a number for each pair, found 16"):
        TaskSpec(Task.DETECT_TRANSITIONS, "mine", names, (), sensor.bands, sensor.encoding, 3.0)
