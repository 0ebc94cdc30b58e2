"""Pictures without labels as image sets of one image: their splits, what is stored, what a stop and a bad file cost."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from a2mae.errors import InputError
from a2mae.files import file_digest
from a2mae.stssd.store import writer
from a2mae.stssd.store.store import ImageSetStore
from a2mae.tables import IMAGE_COLUMNS, SET_COLUMNS
from a2mae.tasks.data_parameters import PicturesParameters
from a2mae.tasks.datasets.class_folders import class_folder
from a2mae.tasks.datasets.formats import FORMATS
from a2mae.tasks.datasets.picture_sets import build_pictures
from a2mae.tasks.datasets.task_data import TaskDataError
from helpers.class_pictures import two_classes


def build(folder, tmp_path, **changes):
    return build_pictures(PicturesParameters(folder=str(folder), **changes), str(tmp_path / "stssd.zarr"))


def files_of(url):
    return {path.relative_to(url).as_posix(): file_digest(path) for path in url.rglob("*") if path.is_file()}


@pytest.fixture
def pictures(tmp_path):
    return two_classes(tmp_path / "set", 40, ".png")


def test_every_picture_is_a_set_of_its_own_with_the_pixels_of_its_file(pictures, tmp_path):
    found = build(pictures, tmp_path)
    store = ImageSetStore.open(str(tmp_path / "stssd.zarr"))
    assert found.manifest_hash == store.manifest_hash and store.sensors == ("rgb-bytes",)
    assert list(found.images.columns) == IMAGE_COLUMNS.names and len(found.images) == 80
    assert list(found.sets.columns) == [*SET_COLUMNS.names, "geometry"] and found.sets["kept"].all()
    for row in found.images.itertuples():
        pixels, valid = store.read("rgb-bytes", np.array([row.row]))
        with Image.open(pictures / f"{row.image_id}.png") as picture:
            np.testing.assert_array_equal(pixels[0], np.moveaxis(np.asarray(picture), -1, 0))
        assert valid.all()
    assert found.images["datetime"].isna().all() and found.images["lon"].isna().all(), "nobody has said it"
    chosen = found.images["set_id"].isin(found.sets.loc[found.sets["split"] == "train", "set_id"])
    learned = store.read_physical("rgb-bytes", found.images.loc[chosen, "row"].to_numpy())[0].astype(np.float64)
    for place, band in enumerate(("B04", "B03", "B02")):
        assert found.statistics["rgb-bytes"][band]["mean"] == pytest.approx(learned[:, place].mean(), rel=1e-5)
        assert found.statistics["rgb-bytes"][band]["std"] == pytest.approx(learned[:, place].std(), rel=1e-4)


@pytest.mark.parametrize("stated", [False, True])
def test_no_test_picture_of_a_task_on_the_same_folder_is_learned_from(pictures, tmp_path, stated):
    if stated:
        for split, numbers in (("train", range(25)), ("val", range(25, 30)), ("test", range(30, 40))):
            for name in ("dark", "light"):
                (tmp_path / "own" / split / name).mkdir(parents=True)
                for number in numbers:
                    shutil.copy(pictures / name / f"{name}_{number}.png", tmp_path / "own" / split / name)
        pictures = tmp_path / "own"
    task = {
        str(sample.row["sample_id"]): sample.row["split"]
        for sample in class_folder(pictures, FORMATS["rgb_bytes"]).samples()
    }
    sets = build(pictures, tmp_path).sets
    assert dict(zip(sets["set_id"], sets["split"], strict=True)) == task
    assert set(task.values()) == {"train", "val", "test"}


def test_folders_of_any_depth_without_classes_and_a_subset(pictures, tmp_path):
    deep = tmp_path / "deep"
    shutil.copytree(pictures / "dark", deep / "2019" / "north")
    shutil.copytree(pictures / "light", deep / "2020")
    (deep / ".cache").mkdir()
    shutil.copy(pictures / "dark" / "dark_1.png", deep / ".cache")
    (deep / "outside.png").symlink_to(pictures / "dark" / "dark_2.png")
    found = build(deep, tmp_path)
    assert len(found.images) == 80 and "2019/north/dark_1" in set(found.images["image_id"])
    fewer = build(deep, tmp_path, max_files=30)
    assert len(fewer.images) == 30 and set(fewer.images["image_id"]) < set(found.images["image_id"])


def test_a_build_that_was_killed_goes_on_to_the_same_bytes(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "MAX_ROWS_PER_SHARD", 16)
    whole = build(pictures, tmp_path / "whole")
    wanted, written = files_of(tmp_path / "whole"), []
    write = writer.StoreWriter.write

    def killed(self, shard, *values, **more):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard)
        write(self, shard, *values, **more)

    monkeypatch.setattr(writer.StoreWriter, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        build(pictures, tmp_path / "cut")
    again = []
    monkeypatch.setattr(
        writer.StoreWriter, "write", lambda self, shard, *values: (again.append(shard), write(self, shard, *values))
    )
    found = build(pictures, tmp_path / "cut")
    assert len(again) == 3 and not set(again) & set(written), "what was written is not written again"
    assert files_of(tmp_path / "cut") == wanted and found.images.equals(whole.images)
    with Image.open(pictures / "dark" / "dark_5.png") as picture:
        Image.fromarray(255 - np.asarray(picture)).save(pictures / "dark" / "dark_5.png")
    assert build(pictures, tmp_path / "cut").manifest_hash != whole.manifest_hash, "a file has changed"


def test_one_broken_file_costs_itself_and_many_the_run(tmp_path, caplog):
    pictures = two_classes(tmp_path / "many", 60, ".png")
    (pictures / "dark" / "dark_3.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    with caplog.at_level("INFO"):
        found = build(pictures, tmp_path)
    assert len(found.images) == 119 and "dark/dark_3" not in set(found.images["image_id"])
    assert "dark_3.png" in caplog.text
    for number in range(10):
        (pictures / "light" / f"light_{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    with pytest.raises(
        TaskDataError, match=r"11 of 120 files in many cannot be read .*Remove them or fetch them again"
    ):
        build(pictures, tmp_path)


def test_sizes_are_cut_or_brought_to_one(tmp_path):
    folder = tmp_path / "sizes"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate([(40, 64), (64, 40), (80, 80), *[(40, 40)] * 20]):
        Image.fromarray(rng.integers(1, 255, (height, width, 3), np.uint8)).save(folder / f"p{number:02}.png")
    store = build(folder, tmp_path).images
    assert len(store) == 23
    opened = ImageSetStore.open(str(tmp_path / "stssd.zarr"))
    assert opened.shape("rgb-bytes") == (3, 40, 40), "the shorter side of the first"
    with Image.open(folder / "p00.png") as picture:
        middle = np.moveaxis(np.asarray(picture)[:, 12:52], -1, 0)
    np.testing.assert_array_equal(opened.read("rgb-bytes", np.array([0]))[0][0], middle)
    sized = build(folder, tmp_path / "resized", chip_px=20, resize=True)
    assert ImageSetStore.open(str(tmp_path / "resized/stssd.zarr")).shape("rgb-bytes") == (3, 20, 20)
    by_name = sized.images.set_index("image_id")["gsd_m"]
    assert by_name["p02"] == pytest.approx(10 * 80 / 20) and by_name["p05"] == pytest.approx(10 * 40 / 20)


def test_pictures_with_a_place_keep_it(tmp_path):
    folder = tmp_path / "placed"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(1, 255, (3, 32, 32), np.uint8)
    for number in range(30):
        where = Affine(10, 0, 420_000 + 20_000 * number, 0, -10, 5_203_000)
        with rasterio.open(
            folder / f"p{number}.tif", "w", driver="GTiff", count=3, dtype="uint8", height=32, width=32,
            crs="EPSG:32633", transform=where,
        ) as file:  # fmt: skip
            file.write(np.roll(pixels, number, axis=2))
    found = build(folder, tmp_path)
    assert found.images["lon"].between(13, 22).all() and found.sets.geometry.x.notna().all()
    assert (found.images["gsd_m"] == 10).all()


def twice(folder):
    shutil.copy(folder / "dark/dark_1.png", folder / "dark/dark_1.jpg")


def splits_beside_others(folder):
    for split in ("train", "test"):
        shutil.copytree(folder / "dark", folder / split / "dark")


def emptied(folder):
    for path in folder.rglob("*.png"):
        path.unlink()


def grey(folder):
    Image.new("L", (40, 40), 7).save(folder / "a.png")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (shutil.rmtree, "pictures.folder: no folder at"),
        (emptied, "no pictures (.jpg, .jpeg, .png"),
        (twice, "in several formats under one name, first dark/dark_1"),
        (splits_beside_others, "holds train/ and test/, and dark, light beside them"),
        (grey, "set pictures.format, pictures.file_bands"),
    ],
)
def test_what_cannot_be_pretrained_on_is_told_in_a_sentence(pictures, tmp_path, spoil, told):
    spoil(pictures)
    with pytest.raises(TaskDataError) as error:
        build(pictures, tmp_path)
    assert told in str(error.value)


def test_no_folder_is_told():
    with pytest.raises(InputError, match=r"pictures\.folder: name the folder"):
        build_pictures(PicturesParameters.model_validate({}), "nowhere")
