"""Images with several classes each, named in a table: read, finetuned on, and refused where the table is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from a2mae.tasks.datasets.class_folders import label_table
from a2mae.tasks.datasets.formats import layout_named
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.task_data import Task, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.parameters import TaskParameters

RGB = layout_named("rgb_bytes", gsd_m=10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty pictures: a bright top is "roof", a bright left side "road"; some have both and some nothing."""
    rng = np.random.default_rng(0)
    lines = ["file,classes,split"]
    for number in range(40):
        picture = rng.integers(0, 60, (24, 24, 3)).astype(np.uint8)
        roof, road = number % 2 == 0, number % 4 < 2
        picture[:12] += np.uint8(150 * roof)
        picture[:, :6] += np.uint8(40 * road)
        (tmp_path / "own" / "pictures").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "own" / "pictures" / f"{number}.png")
        names = "; ".join(name for name, there in (("roof", roof), ("road", road)) if there)
        lines.append(f"pictures/{number}.png,{names},{'train' if number < 24 else 'val' if number < 32 else 'test'}")
    (tmp_path / "own" / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "own"


def test_each_image_has_its_classes(folder: Path, tmp_path: Path) -> None:
    options = {"task": "classify", "data": {"folder": str(folder), "gsd_m": 10}}
    write_source(tmp_path / "data", prepare(TaskParameters.model_validate(options), None, tmp_path))
    data = TaskData(tmp_path / "data")
    assert data.spec.task is Task.CLASSIFY and data.spec.multi_label
    assert data.spec.class_names == ("road", "roof")
    assert data.samples["split"].value_counts().to_dict() == {"train": 24, "val": 8, "test": 8}
    read = data.read(np.arange(40))
    top = read.images[:, 0, :, :12, 12:].mean((1, 2, 3))
    bright = top > (top.min() + top.max()) / 2
    np.testing.assert_array_equal(read.targets[:, 1] == 1, bright)
    assert {tuple(target) for target in read.targets.tolist()} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_classes_can_be_named_in_an_order(folder: Path) -> None:
    assert label_table(folder, RGB, ("roof", "road", "pool"), chip_px=None).spec.class_names == ("roof", "road", "pool")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("file,classes", "name,classes"), r"has the columns name, classes, split; needed are file, classes"),
        (("pictures/3.png", "pictures/300.png"), r"labels\.csv, line 5: no file 'pictures/300\.png'"),
        (("pictures/3.png", "../labels.csv"), r"line 5: no file '\.\./labels\.csv'"),
        (("pictures/3.png", "pictures/2.png"), r"names 1 file\(s\) more than once: pictures/2\.png"),
        ((",test", ",holdout"), r"line 34: split 'holdout'; there are train, val, test"),
        ((",test", ","), r"some lines have a split and some have none"),
        (("roof", "pool"), r"names the class\(es\) pool, not among classify\.data\.class_names: roof, road"),
    ],
)
def test_a_wrong_table_is_refused(folder: Path, change: tuple[str, str], message: str) -> None:
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace(*change), encoding="utf-8")
    with pytest.raises(TaskDataError, match=message):
        label_table(folder, RGB, ("roof", "road"), chip_px=None)


def one_class_each(folder: Path) -> Path:
    """The same pictures, each of one class: roof or none of it."""
    lines = (folder / "labels.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    changed = [f"{file},{'roof' if 'roof' in classes else 'ground'},{split}" for file, classes, split in rows]
    (folder / "labels.csv").write_text("\n".join([lines[0], *changed]) + "\n", encoding="utf-8")
    return folder


def prepared(folder: Path, path: Path, **data: object) -> TaskData:
    options = {"task": "classify", "data": {"folder": str(folder), "gsd_m": 10, **data}}
    write_source(path / "data", prepare(TaskParameters.model_validate(options), None, path))
    return TaskData(path / "data")


def test_a_table_of_one_class_per_line_gives_one_class_per_image(folder: Path, tmp_path: Path) -> None:
    data = prepared(one_class_each(folder), tmp_path)
    assert not data.spec.multi_label and data.spec.class_names == ("ground", "roof")
    numbers = data.samples["sample_id"].str.rsplit("/", n=1).str[-1].astype(int)
    expected = (numbers % 2 == 0).astype(int).tolist()  # even numbers are roofs
    assert data.read_targets(np.arange(40)).tolist() == expected == data.samples["label"].tolist()
    assert "every line of labels.csv names one class" in data.spec.notes


def test_the_user_may_say_how_many_classes_an_image_has(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskDataError, match=r"20 of 40 lines do .* pictures/0\.png \(roof; road\), but .*false"):
        prepared(folder, tmp_path, multi_label=False)
    data = prepared(one_class_each(folder), tmp_path, multi_label=True)
    assert data.spec.multi_label
    targets = data.read_targets(np.arange(40))
    assert targets.shape == (40, 2) and (targets.sum(axis=1) == 1).all()
    assert "an image has any number of classes" in data.spec.notes
