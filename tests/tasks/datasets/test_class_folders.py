"""Folders of pictures by class, and tables that name each picture's classes: read, split, rejected where wrong."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from pydantic import ValidationError

from a2mae.sensors import Units
from a2mae.tasks.datasets.class_folders import _images_by_class, class_folder, label_table
from a2mae.tasks.datasets.formats import FORMATS, layout_named
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.splits import split_of
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_source, write_task_data
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task
from helpers.class_pictures import two_classes
from helpers.task_samples import EUROSAT_MS, EUROSAT_RGB

needs_rgb = pytest.mark.skipif(not EUROSAT_RGB.is_dir(), reason="../shared/data/eurosat_rgb is absent")
needs_ms = pytest.mark.skipif(not EUROSAT_MS.is_dir(), reason="../shared/data/eurosat_ms is absent")
RGB, MS = FORMATS["rgb_bytes"], FORMATS["eurosat_ms"]


def with_encoding(layout, **changes):
    encoding = dataclasses.replace(layout.sensor.encoding, **changes)
    return dataclasses.replace(layout, sensor=dataclasses.replace(layout.sensor, encoding=encoding))


@pytest.fixture
def pictures(tmp_path):
    """Two classes of 20 real JPEGs."""
    return two_classes(tmp_path / "set", 20, ".jpg")


def test_folder_per_class_becomes_task_data(pictures, tmp_path):
    folder = class_folder(pictures, RGB)
    assert write_task_data(tmp_path / "data", folder.spec, folder.samples()) == 40
    data = TaskData(tmp_path / "data")
    assert data.spec.class_names == ("dark", "light")
    assert data.spec.encoding.units is Units.DN
    read = data.read(np.arange(40))
    brightness = read.images.mean((1, 2, 3, 4))
    assert np.abs(brightness[read.targets == 0] - 40 / 255).max() < 0.03
    assert np.abs(brightness[read.targets == 1] - 200 / 255).max() < 0.03
    assert data.samples["lon"].isna().all()


def test_one_corrupt_file_among_many_is_skipped_and_named(tmp_path):
    pictures = two_classes(tmp_path / "many", 60, ".jpg")
    (pictures / "dark" / "dark_3.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    folder = class_folder(pictures, RGB)
    assert len(list(folder.samples())) == 119
    (note,) = folder.late_notes()
    assert note.startswith("skipped, unreadable: 1 of 120 files: dark/dark_3.jpg: ")


def test_pictures_of_other_sizes_are_cut_or_padded_to_the_first_or_to_the_side_that_is_asked_for(tmp_path):
    pictures = two_classes(tmp_path / "set", 3)
    Image.fromarray(np.full((12, 30, 3), 90, np.uint8)).save(pictures / "light" / "light_2.png")
    source = class_folder(pictures, RGB)
    *others, wide = source.samples()
    assert source.late_notes() == (
        "images of another size, cut from the middle or padded with nodata to 16 x 16 px: 1: light/light_2",
    )
    assert {sample.pixels.shape for sample in (*others, wide)} == {(1, 3, 16, 16)}
    assert wide.valid[0, :12].all() and not wide.valid[0, 12:].any()
    assert (wide.pixels[0, :, :12] == 90).all()
    asked = class_folder(pictures, RGB, chip_px=8)
    assert {sample.pixels.shape for sample in asked.samples()} == {(1, 3, 8, 8)}
    assert "scenes are cut to 8 px, smaller ones padded with nodata" in asked.spec.notes


def test_pictures_of_any_size_are_brought_to_one_side_and_their_gsd_with_them(tmp_path):
    """A label is of the whole picture: a cut would show a runway's middle alone."""
    pictures = two_classes(tmp_path / "set", 3)
    ramp = np.linspace(0, 250, 64).astype(np.uint8)
    wide = np.zeros((32, 64, 4), np.uint8)
    wide[..., :3], wide[..., 3] = ramp[None, :, None], 255
    wide[24:, :, 3] = 0
    Image.fromarray(wide).save(pictures / "light" / "light_2.png")
    options = {"task": "classify", "data": {"folder": str(pictures), "gsd_m": 0.3, "chip_px": 16, "resize": True}}
    source = prepare(TaskParameters.model_validate(options), None, tmp_path)
    *others, last = source.samples()
    assert [sample.row["gsd_m"] for sample in (*others, last)] == pytest.approx([0.3] * 5 + [0.6])
    assert {sample.pixels.shape for sample in (*others, last)} == {(1, 3, 16, 16)}
    assert last.valid[0, :12].all() and not last.valid[0, 12:].any()
    square = ramp[16:48].astype(float).reshape(16, 2).mean(1)
    np.testing.assert_allclose(last.pixels[0, :, :11].mean((0, 1))[1:-1], square[1:-1], atol=1.5)
    told = "of each image the middle square is resized to 16 px, and its GSD with it"
    assert told in source.spec.notes and not source.late_notes()
    unstated = TaskParameters.model_validate({**options, "data": {**options["data"], "chip_px": None}})
    assert {sample.pixels.shape for sample in prepare(unstated, None, tmp_path).samples()} == {(1, 3, 16, 16)}
    segment = TaskParameters.model_validate({"task": "segment", "data": {"folder": str(pictures), "resize": True}})
    with pytest.raises(TaskDataError, match=r"segment\.data\.resize: labels of pixels are not resized; leave it out"):
        prepare(segment, None, tmp_path)


def test_too_many_corrupt_files_are_an_error(pictures):
    for number in range(5):
        (pictures / "dark" / f"dark_{number}.jpg").write_bytes(b"")
    with pytest.raises(TaskDataError, match=r"5 of 40 files .* cannot be read.*Remove them or fetch them"):
        list(class_folder(pictures, RGB).samples())


def test_absent_folder_no_classes_empty_class(pictures, tmp_path):
    with pytest.raises(TaskDataError, match=r"classify\.data\.folder: no folder at"):
        class_folder(tmp_path / "nothing", RGB)
    (tmp_path / "flat").mkdir()
    with pytest.raises(TaskDataError, match="one folder per class"):
        class_folder(tmp_path / "flat", RGB)
    (pictures / "medium").mkdir()
    with pytest.raises(TaskDataError, match=r"no images .* in class medium"):
        class_folder(pictures, RGB)


def test_wrong_band_count_and_wrong_type_say_what_was_seen(pictures):
    with pytest.raises(TaskDataError, match="3 bands, but the stated format has 13"):
        list(class_folder(pictures, MS).samples())
    as_counts = with_encoding(RGB, dtype="uint16")
    with pytest.raises(TaskDataError, match=r"uint8 with values \d+ to \d+, but the stated format is uint16"):
        list(class_folder(pictures, as_counts).samples())


def chips(folder: Path, *, count: int = 20, each: int = 3, first: int = 0, step_m: int = 9_000) -> Path:
    """Georeferenced RGB chips of two classes at places a step apart, `each` of them side by side."""
    rng = np.random.default_rng(first)
    for number in range(first, first + count):
        name = ("field", "water")[number % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        for beside in range(each):
            place = Affine(10, 0, 420_000 + step_m * number + 170 * beside, 0, -10, 5_203_000)
            with rasterio.open(
                folder / name / f"{number:02d}-{beside}.tif", "w", driver="GTiff", dtype="uint8", count=3, height=16,
                width=16, crs="EPSG:32633", transform=place,
            ) as target:  # fmt: skip
                target.write(rng.integers(0, 255, (3, 16, 16)).astype(np.uint8))
    return folder


def written(folder: Path, path: Path) -> TaskData:
    write_source(path / "data", class_folder(folder, RGB))
    return TaskData(path / "data")


def test_georeferenced_neighbours_share_a_split_and_a_place(tmp_path: Path) -> None:
    data = written(chips(tmp_path / "set", count=40), tmp_path)
    table = data.samples.assign(number=data.samples["sample_id"].str.split("/").str[1].str[:2])
    centres = zip(table["lon"], table["lat"], strict=True)
    squares = [f"{math.floor(lon / 0.05)}:{math.floor(lat / 0.05)}" for lon, lat in centres]
    assert table["place"].tolist() == squares
    assert table["split"].tolist() == [split_of(square) for square in squares]
    assert set(table["split"]) == {"train", "val", "test"}
    assert table.groupby("place")["split"].nunique().max() == 1
    assert table["place"].nunique() < len(table) / 2
    assert any(note.startswith("split by place (0.05 degrees) where georeferenced") for note in data.spec.notes)


def test_chips_of_one_square_have_no_test_split_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    folder = chips(tmp_path / "near", each=1, step_m=10)
    with pytest.raises(TaskDataError, match=r"no samples in split 't.*out as train/, val/ and test/"):
        written(folder, tmp_path)


def test_a_benchmark_is_split_by_name_wherever_its_files_lie(tmp_path: Path) -> None:
    assert FORMATS["eurosat_ms"].benchmark and layout_named("eurosat_ms", gsd_m=20).benchmark
    folder = class_folder(chips(tmp_path / "set"), dataclasses.replace(RGB, benchmark=True))
    rows = [sample.row for sample in folder.samples()]
    assert [row["split"] for row in rows] == [split_of(str(row["sample_id"])) for row in rows]
    assert all(row["place"] == row["sample_id"] and math.isfinite(float(str(row["lon"]))) for row in rows)
    assert folder.spec.notes == ("split by a hash of the file name: 70 % train, 10 % val, 20 % test",)


def test_files_without_a_place_are_split_by_name(pictures: Path) -> None:
    rows = [sample.row for sample in class_folder(pictures, RGB).samples()]
    assert [row["split"] for row in rows] == [split_of(str(row["sample_id"])) for row in rows]
    assert all(row["place"] == row["sample_id"] for row in rows)


def test_splits_above_the_classes_are_taken_as_they_are(tmp_path: Path) -> None:
    for first, split in ((0, "train"), (20, "val"), (30, "test")):
        chips(tmp_path / "own" / split, count=10, first=first, each=1)
    shutil.copy(tmp_path / "own/test/field/30-0.tif", tmp_path / "own/test/field/again.tif")
    with rasterio.open(tmp_path / "own/train/field/00-0.tif") as source:
        profile, other = source.profile, 255 - source.read()
    with rasterio.open(tmp_path / "own/test/field/leak.tif", "w", **profile) as target:
        target.write(other)  # another day of a ground of the training
    data = written(tmp_path / "own", tmp_path)
    assert data.spec.class_names == ("field", "water")
    assert data.samples["split"].value_counts().to_dict() == {"train": 10, "val": 10, "test": 12}
    assert all(data.samples["sample_id"].str.split("/").str[0] == data.samples["split"])
    places = data.samples.set_index("sample_id")["place"]
    assert places["test/field/30-0"] == places["test/field/again"], "two files of one ground are two places"
    assert places.nunique() == 31
    assert "split as the folders train/, val/ and test/ say" in data.spec.notes
    (note,) = [note for note in data.spec.notes if "another split" in note]
    assert note.startswith("1 of 32 scenes lie on the ground") and note.endswith("test/field/leak")


def test_splits_that_are_not_whole_are_refused(tmp_path: Path, pictures: Path) -> None:
    chips(tmp_path / "own" / "train")
    with pytest.raises(TaskDataError, match=r"holds train/, but no test/: splits of your own need"):
        class_folder(tmp_path / "own", RGB)
    shutil.copytree(tmp_path / "own" / "train", tmp_path / "own" / "test")
    shutil.copytree(pictures / "dark", tmp_path / "own" / "test" / "dark")
    with pytest.raises(TaskDataError, match=r"own/train: no images .* in class dark"):
        class_folder(tmp_path / "own", RGB)
    shutil.rmtree(tmp_path / "own" / "test" / "dark")
    shutil.copytree(tmp_path / "own" / "test", tmp_path / "own" / "validation")
    with pytest.raises(
        TaskDataError, match=r"train/ and test/, and validation beside them: splits of your own stand alone"
    ):
        class_folder(tmp_path / "own", RGB)


def test_a_class_may_be_called_train_but_train_and_test_are_splits(pictures: Path) -> None:
    (pictures / "dark").rename(pictures / "train")
    assert class_folder(pictures, RGB).spec.class_names == ("light", "train")
    (pictures / "light").rename(pictures / "test")
    with pytest.raises(TaskDataError, match=r"train/dark_0\.jpg lies in no class folder \(40 images"):
        class_folder(pictures, RGB)


def asked(folder, **data):
    return TaskParameters.model_validate({"task": "classify", "data": {"folder": str(folder), "gsd_m": 1.0, **data}})


def test_what_is_no_sample_is_told_and_hidden_files_are_none(pictures, tmp_path):
    for name in (
        "top.png",
        "dark/sub/a.png",
        "dark/._dark_1.png",
        "__MACOSX/._a.png",
        ".trash/a.png",
        "dark/Thumbs.db",
    ):
        (pictures / name).parent.mkdir(exist_ok=True)
        shutil.copy(pictures / "dark" / "dark_0.jpg", pictures / name)
    (pictures / "light" / "a.webp").write_bytes(b"RIFF")
    (pictures / "light" / "folder.jpg").mkdir()
    source = class_folder(pictures, RGB)
    assert len(list(source.samples())) == 40
    assert source.late_notes() == (
        "pictures where none are read, left out: 2: top.png, dark/sub/a.png",
        "pictures of a kind that is not read, left out: 1: light/a.webp",
    )
    assert not class_folder(two_classes(tmp_path / "plain", 3), RGB).late_notes()


@pytest.mark.parametrize("name", [b"\xff.png", b"dark/\xff\xfe.gif", b"light/\x80/a.png"])
def test_notes_of_names_that_are_no_text_can_be_read_back(name, pictures, tmp_path):
    path = pictures / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    shutil.copy(pictures / "dark" / "dark_0.jpg", path)
    write_source(tmp_path / "data", class_folder(pictures, RGB))
    (note,) = [note for note in TaskData(tmp_path / "data").spec.notes if "left out: 1" in note]
    assert "?" in note


def test_a_picture_whose_name_is_no_text_is_refused_by_name(pictures):
    shutil.copy(pictures / "dark" / "dark_0.jpg", pictures / "dark" / os.fsdecode(b"\xff.png"))
    with pytest.raises(TaskDataError, match=r"dark/\\udcff\.png' has bytes in its name that are no UTF-8: rename it"):
        list(class_folder(pictures, RGB).samples())


def test_links_out_of_the_folder_are_refused_and_links_inside_read(pictures, tmp_path):
    (pictures / "light" / "again.jpg").symlink_to(pictures / "light" / "light_0.jpg")
    assert len(list(class_folder(pictures, RGB).samples())) == 41
    outside = two_classes(tmp_path / "outside", 2, ".jpg")
    (pictures / "third").symlink_to(outside / "dark")
    with pytest.raises(TaskDataError, match=r"set/third is a link out of .*set, to .*outside/dark.*copy them into it"):
        class_folder(pictures, RGB)
    (pictures / "third").unlink()
    (pictures / "light" / "out.jpg").symlink_to(outside / "dark" / "dark_0.jpg")
    with pytest.raises(TaskDataError, match=r"out\.jpg is a link out of"):
        class_folder(pictures, RGB)


def test_a_picture_in_two_formats_under_one_name_is_refused(pictures):
    Image.open(pictures / "dark" / "dark_0.jpg").save(pictures / "dark" / "dark_0.png")
    with pytest.raises(TaskDataError, match=r"1 picture\(s\) in several formats under one name, first dark/dark_0:"):
        class_folder(pictures, RGB)


def test_names_of_classes_that_look_the_same_are_refused_and_capitals_are_told(pictures, tmp_path):
    (pictures / "dark").rename(pictures / "B\u00e4ume")
    (pictures / "light").rename(pictures / "Ba\u0308ume")
    with pytest.raises(TaskDataError, match=r"'Ba\\u0308ume' and 'B\\xe4ume' look the same"):
        class_folder(pictures, RGB)
    (pictures / "B\u00e4ume").rename(pictures / "b\u00e4ume")
    shutil.move(pictures / "Ba\u0308ume", pictures / "B\u00e4ume")
    write_source(tmp_path / "data", class_folder(pictures, RGB))
    told = "classes that differ by capitals alone: B\u00e4ume, b\u00e4ume"
    assert told in TaskData(tmp_path / "data").spec.notes


def test_class_names_say_the_order_of_folders_and_must_be_theirs(pictures):
    assert prepare(asked(pictures, class_names=["light", "dark"]), None, None).spec.class_names == ("light", "dark")
    with pytest.raises(
        TaskDataError, match=r"class_names are light, drak, and the folders in .* are dark, light: name"
    ):
        prepare(asked(pictures, class_names=["light", "drak"]), None, None)


def test_one_image_under_two_labels_is_told(tmp_path):
    pictures = two_classes(tmp_path / "set", 200)
    names = [f"dark_{number}" for number in range(200) if split_of(f"dark/dark_{number}") == "train"]
    taught = next(name for name in names if split_of(f"light/{name}") == "train")
    shutil.copy(pictures / "dark" / f"{taught}.png", pictures / "light" / f"{taught}.png")
    write_source(tmp_path / "data", class_folder(pictures, RGB))
    notes = TaskData(tmp_path / "data").spec.notes
    assert f"equal images with different labels: 1: dark/{taught} = light/{taught}" in notes


@pytest.fixture
def few_ms(tmp_path):
    for name in ("Forest", "SeaLake"):
        (tmp_path / "ms" / name).mkdir(parents=True)
        for path in sorted((EUROSAT_MS / name).glob("*.tif"))[:8]:
            shutil.copy(path, tmp_path / "ms" / name)
    return tmp_path / "ms"


@pytest.mark.real_data
@needs_ms
def test_eurosat_multispectral_is_reflectance_with_places(few_ms):
    samples = list(class_folder(few_ms, MS).samples())
    assert len(samples) == 16
    bands = {band.name: i for i, band in enumerate(MS.sensor.bands)}
    forest = np.median([s.pixels[0].mean((1, 2)) * 1e-4 for s in samples if s.row["label"] == 0], axis=0)
    assert 0.1 < forest[bands["B8A"]] < 0.6  # vegetation is bright in the near infrared ...
    assert forest[bands["B04"]] < 0.1  # ... and dark in red: the band order is right
    assert forest[bands["B10"]] < 0.02  # cirrus is dark
    assert all(-12 < s.row["lon"] < 45 and 33 < s.row["lat"] < 72 for s in samples)  # Europe


@pytest.mark.real_data
@needs_ms
def test_wrong_scale_is_refused_with_the_values_seen(few_ms):
    wrong = with_encoding(MS, scale=1.0)
    with pytest.raises(TaskDataError, match=r"values are .* with median .*reflectance is 0 to 1"):
        list(class_folder(few_ms, wrong).samples())
    already_scaled = with_encoding(MS, scale=1e-8)
    with pytest.raises(TaskDataError, match="reflectance is 0 to 1"):
        list(class_folder(few_ms, already_scaled).samples())


@pytest.mark.real_data
@needs_rgb
def test_eurosat_rgb_layout():
    names, images = _images_by_class(EUROSAT_RGB, "classify.data")
    assert (len(names), len(images)) == (10, 27_000)
    first = next(class_folder(EUROSAT_RGB, RGB).samples())
    with rasterio.open(EUROSAT_RGB / f"{first.row['sample_id']}.jpg") as source:
        np.testing.assert_array_equal(first.pixels[0], source.read())


def test_messages_name_the_parameters_that_state_the_format(pictures):
    """Of the stage that reads: the same folder is read by a task and by an evaluation."""
    for group, keys in (
        ("evaluate", r"set evaluate\.format$"),
        (
            "classify.data",
            r"set classify\.data\.format, .*file_bands, classify\.data\.scale or classify\.data\.offset$",
        ),
    ):
        wrong = (
            layout_named("eurosat_ms"),  # too many bands
            with_encoding(RGB, dtype="uint16"),
            with_encoding(RGB, units=Units.REFLECTANCE, scale=1.0),
        )
        for layout in wrong:
            with pytest.raises(TaskDataError, match=keys):
                list(class_folder(pictures, dataclasses.replace(layout, group=group)).samples())
        with pytest.raises(TaskDataError, match=rf"^{group}\.folder: no folder at"):
            class_folder(pictures / "nothing", layout_named("rgb_bytes", group=group))
        with pytest.raises(TaskDataError, match=rf"^{group}\.format: unknown format 'rgb'"):
            layout_named("rgb", group=group)


@pytest.fixture
def table(tmp_path: Path) -> Path:
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


def test_each_image_has_its_classes(table: Path, tmp_path: Path) -> None:
    options = {"task": "classify", "data": {"folder": str(table), "gsd_m": 10}}
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


def test_classes_can_be_named_in_an_order(table: Path) -> None:
    assert label_table(table, RGB, ("roof", "road", "pool"), chip_px=None).spec.class_names == ("roof", "road", "pool")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("file,classes", "name,classes"), r"has the columns name, classes, split; needed are file and classes"),
        (("pictures/3.png", "pictures/300.png"), r"labels\.csv, line 5: no file 'pictures/300\.png'"),
        (("pictures/3.png", "../labels.csv"), r"line 5: no file '\.\./labels\.csv'"),
        (("pictures/3.png", "pictures/2.png"), r"names 1 file\(s\) more than once: pictures/2\.png"),
        ((",test", ",holdout"), r"line 34: split 'holdout'; there are train, val, test"),
        ((",test", ","), r"some lines have a split and some have none"),
        (("roof", "pool"), r"names the class\(es\) pool, not among classify\.data\.class_names: roof, road"),
    ],
)
def test_a_wrong_table_is_refused(table: Path, change: tuple[str, str], message: str) -> None:
    labels = table / "labels.csv"
    labels.write_text(labels.read_text().replace(*change), encoding="utf-8")
    with pytest.raises(TaskDataError, match=message):
        label_table(table, RGB, ("roof", "road"), chip_px=None)


def test_a_table_that_is_not_in_utf_8_is_rejected(table: Path) -> None:
    (table / "labels.csv").write_bytes((table / "labels.csv").read_bytes().replace(b"roof", "höhe".encode("cp1252")))
    with pytest.raises(TaskDataError, match=r"labels\.csv is not in UTF-8 .*save it as CSV UTF-8"):
        label_table(table, RGB, (), chip_px=None)


def one_class_each(table: Path) -> Path:
    """The same pictures, each of one class: roof or none of it."""
    lines = (table / "labels.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    changed = [f"{file},{'roof' if 'roof' in classes else 'ground'},{split}" for file, classes, split in rows]
    (table / "labels.csv").write_text("\n".join([lines[0], *changed]) + "\n", encoding="utf-8")
    return table


def prepared(table: Path, path: Path, **data: object) -> TaskData:
    options = {"task": "classify", "data": {"folder": str(table), "gsd_m": 10, **data}}
    write_source(path / "data", prepare(TaskParameters.model_validate(options), None, path))
    return TaskData(path / "data")


def test_a_table_of_one_class_per_line_gives_one_class_per_image(table: Path, tmp_path: Path) -> None:
    data = prepared(one_class_each(table), tmp_path)
    assert not data.spec.multi_label and data.spec.class_names == ("ground", "roof")
    numbers = data.samples["sample_id"].str.rsplit("/", n=1).str[-1].astype(int)
    expected = (numbers % 2 == 0).astype(int).tolist()  # even numbers are roofs
    assert data.read_targets(np.arange(40)).tolist() == expected == data.samples["label"].tolist()
    assert "every line of labels.csv names one class" in data.spec.notes


def test_the_user_may_say_how_many_classes_an_image_has(table: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskDataError, match=r"20 of 40 lines do .* pictures/0\.png \(roof; road\), but .*false"):
        prepared(table, tmp_path, multi_label=False)
    data = prepared(one_class_each(table), tmp_path, multi_label=True)
    assert data.spec.multi_label
    targets = data.read_targets(np.arange(40))
    assert targets.shape == (40, 2) and (targets.sum(axis=1) == 1).all()
    assert "an image has any number of classes" in data.spec.notes


def labelled(pictures, head="file,classes", end="", name=lambda path: path.as_posix()):
    lines = [f"{name(p.relative_to(pictures))},{p.parent.name}{end}" for p in sorted(pictures.glob("*/*.jpg"))]
    (pictures / "labels.csv").write_text("\n".join([head, *lines]))
    return pictures


def test_splits_under_another_name_are_refused_and_spaces_in_the_head_are_none(pictures):
    with pytest.raises(TaskDataError, match=r"the column 'Split' holds splits, which are read as 'split' alone"):
        prepare(asked(splits_in(labelled(pictures), "Split")), None, None)
    source = prepare(asked(splits_in(labelled(pictures), " split")), None, None)
    assert "split as labels.csv says" in source.spec.notes


def splits_in(pictures, head):
    first, *lines = (pictures / "labels.csv").read_text().splitlines()
    said = [f"{line},{'train' if number % 2 else 'test'}" for number, line in enumerate(lines)]
    (pictures / "labels.csv").write_text("\n".join([f"{first},{head}", *said]))
    return pictures


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("light/../dark/dark_0.jpg", "names 1 file.s. more than once: dark/dark_0.jpg"),
        ("a" * 300, "line 42: no file 'aaa"),
        ("loop.jpg", r"line 42: no file 'loop\.jpg' in"),
        ("loop/a.jpg", "line 42: no file 'loop/a.jpg' in"),
        ("/etc/passwd", "line 42: no file '/etc/passwd' in .*give its path in this folder"),
        ("dark\\dark_0.jpg", "line 42: no file .*with / between folders"),
        ("out.jpg", "line 42: no file 'out.jpg' in"),
    ],
)
def test_what_a_table_names_is_looked_for_in_its_folder_alone(pictures, cell, told):
    for name, target in (("loop.jpg", "loop.jpg"), ("loop", "loop"), ("out.jpg", __file__)):
        (pictures / name).symlink_to(target)
    labelled(pictures)
    with (pictures / "labels.csv").open("a") as table:
        table.write(f"\n{cell},dark\n")
    with pytest.raises(TaskDataError, match=told):
        prepare(asked(pictures), None, None)


def test_a_table_of_labels_that_cannot_be_read_is_no_reason_to_read_folders(pictures, tmp_path):
    (pictures / "Labels.csv").write_text("file,classes")
    with pytest.raises(TaskDataError, match=r"Labels\.csv is read under the name labels\.csv alone: rename it"):
        prepare(asked(pictures), None, None)
    (pictures / "Labels.csv").unlink()
    (pictures / "labels.csv").mkdir()
    with pytest.raises(TaskDataError, match=r"labels\.csv cannot be read: Is a directory"):
        prepare(asked(pictures), None, None)
    (pictures / "labels.csv").rmdir()
    (tmp_path / "else.csv").write_text("file,classes")
    (pictures / "labels.csv").symlink_to(tmp_path / "else.csv")
    with pytest.raises(TaskDataError, match=r"labels\.csv is a link out of .*set, to .*else\.csv: .*copy"):
        prepare(asked(pictures), None, None)


@pytest.mark.parametrize(("folder", "told"), [("", "is an empty path"), ("a\0b", "zero byte"), ("\ud83d", "no UTF-8")])
def test_a_folder_that_names_nothing_is_refused(folder, told):
    with pytest.raises(ValidationError, match=told):
        asked(folder)
    with pytest.raises(TaskDataError, match=r"classify\.data\.folder: .* cannot be read: File name too long"):
        prepare(asked("/tmp/" + "a" * 300), None, None)


@pytest.mark.parametrize(
    ("name", "told"), [(False, "no, off or false without quotes"), (1, "in quotes"), (None, "in quotes")]
)
def test_a_class_name_of_yaml_that_is_no_text_is_told_to_be_quoted(name, told):
    with pytest.raises(ValidationError, match=told):
        asked("x", class_names=[name, "b"])


@pytest.mark.parametrize(
    "data", [{"scale": 1e300}, {"offset": -1e300}, {"ignore": [10**20]}, {"class_values": [0, 10**20]}]
)
def test_numbers_that_no_file_is_read_by_are_refused(data):
    with pytest.raises(ValidationError, match=r"Input should be (greater|less) than"):
        asked("x", **data)


def test_a_few_lines_without_a_class_are_warned_of_for_they_decide_what_every_label_is(pictures, caplog):
    labelled(pictures)
    table = pictures / "labels.csv"
    table.write_text(table.read_text().replace("dark/dark_0.jpg,dark", "dark/dark_0.jpg,"))
    assert prepare(asked(pictures), None, None).spec.multi_label
    assert "for 1 of 40 lines do not name just one" in caplog.text
