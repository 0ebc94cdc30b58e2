"""Folders of images with masks, and of pairs of dates; what can be wrong with them is named, rejected or left out."""

import shutil

import numpy as np
import pytest
import rasterio
from PIL import Image

from a2mae.tasks.datasets.formats import layout_named
from a2mae.tasks.datasets.polygons import FolderLabels
from a2mae.tasks.datasets.scene_folders import mask_folder, pair_folder
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.task_data import CHANGE_CLASSES, IGNORE, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task
from helpers.labelled_scenes import LABELS, S2, SPLITS, UTM, counts, save, write_scenes

RGB = layout_named("rgb_bytes", gsd_m=0.5)
CHANGE = FolderLabels(CHANGE_CLASSES)


@pytest.fixture
def scenes(tmp_path):
    return write_scenes(tmp_path / "own")


def written(source, path):
    write_source(path / "data", source)
    return TaskData(path / "data")


def test_images_with_masks_become_chips_of_reflectance(scenes, tmp_path):
    data = written(mask_folder(scenes, S2, LABELS, chip_px=32), tmp_path)
    assert data.spec.task is Task.SEGMENT
    assert data.spec.class_names == LABELS.class_names
    assert data.samples["split"].value_counts().to_dict() == {"train": 12, "val": 4, "test": 4}
    read = data.read(np.arange(20))
    assert read.targets.shape == (20, 32, 32)
    red = read.images[:, 0, 0]
    for label, level in ((0, 0.2), (1, 0.5), (2, 0.02)):
        assert abs(np.median(red[read.targets == label]) - level) < 0.01
    assert data.samples["lon"].between(14.9, 17).all()
    assert data.samples.groupby("place")["split"].nunique().max() == 1


def test_signed_counts_and_another_offset_are_read_as_stated(scenes, tmp_path):
    """What several providers export: harmonised counts, as int16."""
    for number, split in enumerate(SPLITS):
        path = scenes / split / "images" / f"s{number}.tif"
        with rasterio.open(path) as source:
            signed = source.read().astype(np.int16)
        signed[:, 5, 5] = -9999
        at = (500_000 + 30_000 * number, 5_200_000)
        save(path, signed - 1000 * (signed > 0).astype(np.int16), crs=UTM, at=at, nodata=-9999)
    harmonised = layout_named("sentinel-2-l2a", bands=("B04", "B03", "B02"), offset=0.0)
    assert harmonised.sensor.encoding.scale == S2.sensor.encoding.scale
    read = written(mask_folder(scenes, harmonised, LABELS, chip_px=32), tmp_path).read(np.arange(20))
    red = read.images[:, 0, 0]
    for label, level in ((0, 0.2), (1, 0.5), (2, 0.02)):
        assert abs(np.median(red[read.targets == label]) - level) < 0.01
    assert (read.targets == IGNORE).any()
    negative = signed.copy()
    negative[0, 7, 7] = -3
    save(path, negative, crs=UTM, at=at, nodata=-9999)
    with pytest.raises(TaskDataError, match=r"int16 with values -3 to \d+, but the stated format is uint16"):
        list(mask_folder(scenes, harmonised, LABELS, chip_px=32).samples())


def test_scenes_smaller_than_a_chip_are_padded_with_what_is_not_scored(scenes, tmp_path):
    data = written(mask_folder(scenes, S2, LABELS, chip_px=64), tmp_path)
    read = data.read(np.arange(5))
    assert read.targets.shape == (5, 64, 64)
    assert (read.targets[:, 48:] == IGNORE).all()
    assert (read.targets[:, :, 40:] == IGNORE).all()
    assert (read.targets[:, :48, :40] != IGNORE).all()
    np.testing.assert_array_equal(read.valid[:, 0], read.targets != IGNORE)


def test_without_split_folders_neighbours_share_a_split(scenes, tmp_path):
    flat = tmp_path / "flat"
    rng = np.random.default_rng(1)
    for number in range(40):  # twenty places with two scenes each, 100 m apart
        cover = np.kron(rng.integers(0, 3, (4, 4)), np.ones((8, 8), int)).astype(np.uint8)
        at = (420_000 + 8_000 * (number // 2) + 100 * (number % 2), 5_203_000)
        save(flat / "images" / f"{number:02d}.tif", counts(rng, cover), crs=UTM, at=at)
        save(flat / "masks" / f"{number:02d}.tif", cover, crs=UTM, at=at)
    table = written(mask_folder(flat, S2, LABELS, chip_px=None), tmp_path).samples
    assert table["place"].nunique() >= 18
    assert table.groupby("place")["split"].nunique().max() == 1
    assert set(table["split"]) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("size", r"s4\.tif: 10 x 40 pixels, but s4\.tif of it has 48 x 40"),
        ("crs", r"s4\.tif is in EPSG:32634, .* in EPSG:32633: bring them onto one grid"),
        ("origin", r"starts at 620010, 5\.2e\+06 with pixels of 10"),
        (
            "range",
            r"s4\.tif: labels 3, 7 are outside the 3 values 0 ground, 1 roof, 2 water .*segment\.data\.first_class",
        ),
        ("bands", r"s4\.tif: 4 bands, but the stated format has 3 \(B04, B03, B02\)"),
        ("type", r"s4\.tif: uint8 with values 9 to 9, but the stated format is uint16 \(reflectance\)"),
        ("missing", r"1 of 1 names are not in every folder \(images, masks\); missing: s4 \(masks\)"),
        ("units", r"values are 2.9 to 2.9 with median 2.9; reflectance is 0 to 1"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_seen(scenes, breakage, message):
    image, mask = scenes / "test" / "images" / "s4.tif", scenes / "test" / "masks" / "s4.tif"
    at = (620_000, 5_200_000)
    zeros = np.zeros((48, 40), np.uint8)
    if breakage == "size":
        save(mask, zeros[:10], crs=UTM, at=at)
    elif breakage == "crs":
        save(mask, zeros, crs="EPSG:32634", at=at)
    elif breakage == "origin":
        save(mask, zeros, crs=UTM, at=(at[0] + 10, at[1]))
    elif breakage == "range":
        zeros[3, 4], zeros[5, 6] = 7, 3
        save(mask, zeros, crs=UTM, at=at)
    elif breakage == "bands":
        save(image, np.full((4, 48, 40), 3000, np.uint16), crs=UTM, at=at)
    elif breakage == "type":
        save(image, np.full((3, 48, 40), 9, np.uint8), crs=UTM, at=at)
    elif breakage == "missing":
        mask.unlink()
    else:
        for number, split in enumerate(SPLITS):  # reflectance x 10,000 as floats: physical values, says the rule
            save(
                scenes / split / "images" / f"s{number}.tif",
                np.full((3, 48, 40), 2.9, np.float32),
                crs=UTM,
                at=(500_000 + 30_000 * number, 5_200_000),
            )
    with pytest.raises(TaskDataError, match=message):
        list(mask_folder(scenes, S2, LABELS, chip_px=32).samples())


def test_nan_is_nodata_and_not_scored(scenes, tmp_path):
    path = scenes / "test" / "images" / "s4.tif"
    with rasterio.open(path) as source:
        physical = source.read().astype(np.float32) * 1e-4 - 0.1
    physical[1, 5:9, 7:20] = np.nan
    save(path, physical, crs=UTM, at=(620_000, 5_200_000))
    data = written(mask_folder(scenes, S2, LABELS, chip_px=48), tmp_path)
    row = data.rows("test")
    read = data.read(row)
    hole = np.zeros((48, 48), bool)
    hole[5:9, 7:20] = True
    hole[:, 40:] = True  # padding
    np.testing.assert_array_equal(read.targets[0] == IGNORE, hole)
    assert np.isfinite(read.images).all()
    np.testing.assert_allclose(read.images[0, 0, 0, :5, :7], physical[0, :5, :7], atol=1e-4)


def test_masks_of_floats_with_nan_and_fractions(scenes, tmp_path):
    path = scenes / "test" / "masks" / "s4.tif"
    with rasterio.open(path) as source:
        cover = source.read(1).astype(np.float32)
    cover[5:9, 7:20] = np.nan
    save(path, cover, crs=UTM, at=(620_000, 5_200_000), nodata=np.nan)
    data = written(mask_folder(scenes, S2, LABELS, chip_px=40), tmp_path)
    target = data.read_targets(data.rows("test"))[0]
    np.testing.assert_array_equal(target, np.where(np.isnan(cover[:40]), IGNORE, cover[:40]))
    cover[0, 0] = 0.5
    save(path, cover, crs=UTM, at=(620_000, 5_200_000), nodata=np.nan)
    with pytest.raises(TaskDataError, match=r"s4\.tif: labels 0\.5 are fractions"):
        list(mask_folder(scenes, S2, LABELS, chip_px=40).samples())


def test_masks_in_black_and_white_are_rejected(scenes, tmp_path):
    for number, split in enumerate(SPLITS):
        path = scenes / split / "masks" / f"s{number}.tif"
        with rasterio.open(path) as source:
            cover = source.read(1)
        save(path, (cover == 1).astype(np.uint8) * 255, crs=UTM, at=(500_000 + 30_000 * number, 5_200_000))
    with pytest.raises(
        TaskDataError, match=r"0 and 255 alone: .* write 1, or set segment\.data\.class_values: \[0, 255\]"
    ):
        written(mask_folder(scenes, S2, LABELS, chip_px=40), tmp_path)


def test_a_mask_whose_nodata_is_a_class_is_refused(tmp_path):
    cover = np.zeros((32, 32), np.uint8)
    cover[:8] = 1
    save(tmp_path / "images" / "a.tif", np.ones((3, 32, 32), np.uint8))
    save(tmp_path / "masks" / "a.tif", cover, nodata=0)
    with pytest.raises(TaskDataError, match=r"a\.tif says nodata 0, which is class .*nodata 255 or none"):
        list(mask_folder(tmp_path, RGB, LABELS, chip_px=16).samples())


def test_a_corrupt_file_among_many_is_left_out_and_stands_in_the_notes(tmp_path):
    folder, rng = tmp_path / "many", np.random.default_rng(0)
    for number in range(120):
        cover = rng.integers(0, 3, (16, 16)).astype(np.uint8)
        save(folder / "images" / f"{number:03d}.tif", rng.integers(0, 255, (3, 16, 16)).astype(np.uint8))
        save(folder / "masks" / f"{number:03d}.tif", cover)
    (folder / "images" / "017.tif").write_bytes(b"not a picture")
    data = written(mask_folder(folder, RGB, LABELS, chip_px=16), tmp_path)
    assert len(data.samples) == 119
    assert any(note.startswith("skipped, unreadable: 1 of 120 files: images/017.tif") for note in data.spec.notes)
    for number in range(40, 44):
        (folder / "masks" / f"{number:03d}.tif").write_bytes(b"")
    with pytest.raises(TaskDataError, match=r"5 of 120 files in many cannot be read \(at most 1%"):
        list(mask_folder(folder, RGB, LABELS, chip_px=16).samples())


def pairs(folder, rng, count=10):
    for number in range(count):
        split = "train" if number < 6 else "val" if number < 8 else "test"
        before = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
        changed = np.zeros((32, 32), bool)
        changed[4:20, 6:16] = True
        after = np.where(changed[..., None], 255 - before, before).astype(np.uint8)
        pictures = {"A": before, "B": after, "label": changed.astype(np.uint8) * 255}
        for name, picture in pictures.items():
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / split / name / f"{number}.png")
    return folder


def test_pairs_with_black_and_white_labels(tmp_path):
    data = written(pair_folder(pairs(tmp_path / "cd", np.random.default_rng(0)), RGB, CHANGE, chip_px=16), tmp_path)
    assert (data.spec.task, data.spec.class_names) == (Task.DETECT_CHANGE, ("unchanged", "changed"))
    assert data.image_shape == (2, 3, 16, 16)
    assert data.samples["split"].value_counts().to_dict() == {"train": 24, "val": 8, "test": 8}
    read = data.read(np.arange(40))
    np.testing.assert_array_equal((read.images[:, 0] != read.images[:, 1]).any(1), read.targets == 1)
    assert data.spec.gsd_m == 0.5


def test_a_pair_with_one_date_or_two_kinds_of_bands_is_named(tmp_path):
    folder = pairs(tmp_path / "cd", np.random.default_rng(0))
    (folder / "train" / "B" / "3.png").unlink()
    with pytest.raises(TaskDataError, match=r"1 of 6 names .*missing: 3 \(B\)"):
        pair_folder(folder, RGB, CHANGE, chip_px=16)
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "train" / "B" / "3.png")
    with pytest.raises(TaskDataError, match=r"B/3\.png: 1 bands, but the stated format has 3"):
        list(pair_folder(folder, RGB, CHANGE, chip_px=16).samples())


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("split without", r"val holds no folder A/ as train/ does: it would be in no split"),
        ("two layouts", r"cd holds A/ and train/A/: keep one of the two layouts"),
        ("link", r"A/1\.png is a link out of .*cd, to .*copy them into it"),
        ("folder link", r"train/B is a link out of .*cd, to "),
    ],
)
def test_a_pair_that_would_be_read_from_elsewhere_or_in_part_is_named(tmp_path, breakage, message):
    folder = pairs(tmp_path / "cd", np.random.default_rng(0))
    if breakage == "split without":
        (folder / "val" / "A").rename(folder / "val" / "a")
    elif breakage == "two layouts":
        (folder / "A").mkdir()
    elif breakage == "link":
        (folder / "train" / "A" / "1.png").rename(tmp_path / "1.png")
        (folder / "train" / "A" / "1.png").symlink_to(tmp_path / "1.png")
    else:
        (folder / "train" / "B").rename(tmp_path / "B")
        (folder / "train" / "B").symlink_to(tmp_path / "B")
    with pytest.raises(TaskDataError, match=message):
        pair_folder(folder, RGB, CHANGE, chip_px=16)


def test_hidden_files_are_no_pairs_and_pairs_that_show_one_picture_twice_are_told(tmp_path):
    folder = pairs(tmp_path / "cd", np.random.default_rng(0))
    for name in ("A", "B", "label"):
        (folder / "train" / name / "._1.png").write_bytes(b"\0\5\x16\7")
    (folder / "train" / "A" / "._2.png").write_bytes(b"\0\5\x16\7")
    shutil.copy(folder / "train" / "A" / "1.png", folder / "train" / "B" / "1.png")
    shutil.copytree(folder / "val" / "label", folder / "val" / "shown")
    source = pair_folder(folder, RGB, CHANGE, chip_px=32)
    assert len(list(source.samples())) == 10
    assert source.late_notes() == (
        "pictures where none are read, left out: 2: val/shown/6.png, val/shown/7.png",
        "pairs whose two dates are the same picture: 1: 1",
    )


def test_classes_of_pairs_are_not_named(tmp_path):
    folder = pairs(tmp_path / "cd", np.random.default_rng(0))
    data = {"folder": str(folder), "gsd_m": 1.0, "class_names": ["old", "new"]}
    with pytest.raises(
        TaskDataError, match=r"detect_change\.data\.class_names: pairs have the classes unchanged, changed"
    ):
        prepare(TaskParameters.model_validate({"task": "detect_change", "data": data}), None, None)


def test_copies_in_two_splits_are_a_leak_that_is_named(tmp_path):
    folder = pairs(tmp_path / "cd", np.random.default_rng(0))
    for name in ("A", "B", "label"):
        (folder / "test" / name / "copy.png").write_bytes((folder / "train" / name / "2.png").read_bytes())
    with pytest.raises(TaskDataError, match=r"images of 'cd' are in two splits.*train/2.* = test/copy.*\(test\)"):
        write_source(tmp_path / "data", pair_folder(folder, RGB, CHANGE, chip_px=32))


def test_a_class_in_test_that_training_never_saw_is_named(scenes, tmp_path):
    for number in range(3):
        path = scenes / "train" / "masks" / f"s{number}.tif"
        at = (500_000 + 30_000 * number, 5_200_000)
        with rasterio.open(path) as source:
            cover = source.read(1)
        save(path, np.where(cover == 2, 0, cover), crs=UTM, at=at)
    with pytest.raises(TaskDataError, match="classes in test that training never saw: water"):
        write_source(tmp_path / "data", mask_folder(scenes, S2, LABELS, chip_px=32))


def test_dates_of_one_ground_are_one_place_and_a_ground_in_two_splits_is_noted(scenes, tmp_path):
    rng = np.random.default_rng(1)
    cover = np.kron(rng.integers(0, 3, (6, 5)), np.ones((8, 8), int)).astype(np.uint8)
    shifts = {"test/again": (4, 30), "test/beside": (4, 400), "test/leak": (0, 100)}  # s4's ground, its neighbour, s0's
    for name, (number, east) in shifts.items():
        split, stem = name.split("/")
        at = (500_000 + 30_000 * number + east, 5_200_000)
        save(scenes / split / "images" / f"{stem}.tif", counts(rng, cover), crs=UTM, at=at)
        save(scenes / split / "masks" / f"{stem}.tif", cover, crs=UTM, at=at)
    data = written(mask_folder(scenes, S2, LABELS, chip_px=32), tmp_path)
    places = data.samples.assign(scene=data.samples["sample_id"].str.rsplit("-", n=2).str[0])
    places = places.groupby("scene")["place"].agg(lambda found: ", ".join(sorted(set(found)))).to_dict()
    assert places["test/s4"] == places["test/again"] == "test/again", "two dates of one ground are two places"
    assert places["test/beside"] == "test/beside" and places["test/leak"] == "test/leak"
    (note,) = [note for note in data.spec.notes if "another split" in note]
    assert note.startswith("1 of 8 scenes lie on the ground") and note.endswith("test/leak")
