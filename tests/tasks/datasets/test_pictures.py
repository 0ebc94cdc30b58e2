"""Image files are read by what they say of themselves and what was stated; values are those of the ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from a2mae.tasks.datasets.class_folders import class_folder
from a2mae.tasks.datasets.formats import FolderFormat, layout_named, settled
from a2mae.tasks.datasets.pictures import ImageFile, read_picture
from a2mae.tasks.datasets.task_data import TaskDataError
from helpers.labelled_scenes import UTM

BANDS = ("B02", "B03", "B04", "B08")
GROUND = np.random.default_rng(3).uniform(0.03, 0.5, (4, 24, 20)).astype(np.float32)


def write(path: Path, values: np.ndarray, *, tags=None, names=(), gsd_m=10.0, crs=UTM, **profile) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = dict(zip(("count", "height", "width"), values.shape, strict=True))
    at = Affine(gsd_m, 0, 500_000, 0, -gsd_m, 5_200_000)
    with rasterio.open(
        path, "w", driver="GTiff", dtype=values.dtype.name, crs=crs, transform=at, **shape, **profile
    ) as file:
        file.write(values)
        if tags:
            file.scales, file.offsets = [tags[0]] * len(values), [tags[1]] * len(values)
        for index, name in enumerate(names, start=1):
            file.set_band_description(index, name)
    return path


def read(path: Path, **stated) -> tuple[ImageFile, FolderFormat, np.ndarray]:
    """An image, the format it was read by, and its physical values."""
    layout = settled(layout_named("sentinel-2-l2a", group="segment.data", **stated), [path])
    picture = read_picture(path, layout, lambda *what: None)
    encoding = layout.sensor.encoding
    return picture, layout, picture.pixels * encoding.scale + encoding.offset


def counts(offset: float = 0.0) -> np.ndarray:
    return np.round((GROUND - offset) * 1e4).astype(np.uint16)


@pytest.mark.parametrize(
    ("values", "how", "stated"),
    [
        pytest.param(counts(), {"tags": (1e-4, 0.0)}, {}, id="tags of harmonised counts, nothing stated"),
        pytest.param(counts(), {"tags": (1e-4, 0.0)}, {"offset": 0.0}, id="tags and the same stated"),
        pytest.param(counts(), {}, {"offset": 0.0}, id="stated alone"),
        pytest.param(counts(-0.1), {}, {}, id="the format's own"),
        pytest.param(GROUND, {}, {}, id="floats are physical"),
        pytest.param(GROUND, {}, {"scale": 1.0, "offset": 0.0}, id="floats, and stated so as rules of ingest do"),
        pytest.param((GROUND * 1e4), {}, {"scale": 1e-4}, id="floats that hold counts, stated"),
        pytest.param((GROUND * 1e4), {"tags": (1e-4, 0.0)}, {}, id="floats that hold counts, tagged"),
        pytest.param((GROUND * 100).astype("float64"), {}, {"scale": 0.01, "offset": 0.0}, id="percent"),
    ],
)
def test_values_are_those_of_the_ground(tmp_path: Path, values, how, stated) -> None:
    _, _, physical = read(write(tmp_path / "a.tif", values, **how), bands=BANDS, **stated)
    np.testing.assert_allclose(physical, GROUND, atol=1.01e-4)


def test_a_scale_that_tags_contradict_is_rejected_with_both(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", counts(), tags=(1e-4, 0.0))
    with pytest.raises(
        TaskDataError, match=r"tagged with scale 0\.0001 and offset 0 .* segment\.data says offset -0\.1"
    ):
        read(path, bands=BANDS, offset=-0.1)


@pytest.mark.parametrize("tags", [(0.0, 5.0), (np.nan, 0.0), (1e-4, np.inf)])
@pytest.mark.parametrize("stated", [{}, {"offset": 0.0}])
def test_tags_that_decode_no_number_are_rejected(tmp_path: Path, tags, stated) -> None:
    path = write(tmp_path / "a.tif", counts(), tags=tags)
    with pytest.raises(TaskDataError, match=r"a\.tif is tagged with scale .* which decode no stored number"):
        read(path, bands=BANDS, **stated)


def test_files_of_two_offsets_are_brought_to_one(tmp_path: Path) -> None:
    """Sentinel-2 before and after processing baseline 04.00, each tagged with its own."""
    first = write(tmp_path / "a.tif", counts(), tags=(1e-4, 0.0))
    second = write(tmp_path / "b.tif", counts(-0.1), tags=(1e-4, -0.1))
    layout = settled(layout_named("sentinel-2-l2a", bands=BANDS), [first, second])
    for path in (first, second):
        pixels = read_picture(path, layout, lambda *what: None).pixels
        np.testing.assert_allclose(pixels * 1e-4, GROUND, atol=1.01e-4)
    told: list[tuple[str, str]] = []
    silent = read_picture(write(tmp_path / "c.tif", counts()), layout, lambda *what: told.append(what))
    np.testing.assert_allclose(silent.pixels * 1e-4, GROUND, atol=1.01e-4)
    assert told == [("files without scale and offset, read by those that the first is tagged with", "c.tif")]


def test_floats_that_hold_counts_and_are_called_nothing_are_rejected_with_their_range(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", GROUND * 1e4)
    with pytest.raises(
        TaskDataError, match=r"values are 3\d\d(\.\d)? to \d{4}, and 100% of B02 .*segment\.data\.scale"
    ):
        read(path, bands=BANDS)


def test_bands_are_taken_as_described_and_rejected_where_another_order_is_stated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", counts(-0.1)[::-1], names=[name.replace("B0", "B") for name in BANDS[::-1]])
    _, layout, physical = read(path)
    assert layout.sensor.band_names == BANDS[::-1]
    assert layout.notes[0] == "bands as the files describe them: B08, B04, B03, B02"
    np.testing.assert_allclose(physical, GROUND[::-1], atol=1.01e-4)
    with pytest.raises(TaskDataError, match=r"describes its band 1 as 'B8', but segment\.data\.file_bands says .* B02"):
        read(path, bands=BANDS)


def test_the_size_of_pixels_is_the_files_or_agrees(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", counts(-0.1), gsd_m=20.0)
    picture, layout, _ = read(path, bands=BANDS)
    assert (picture.gsd_m, layout.gsd_m) == (20, 20)
    assert layout.notes[-1] == "20 m per pixel, as the files are georeferenced"
    with pytest.raises(TaskDataError, match=r"pixels of 20 m on the ground, but segment\.data\.gsd_m says 10 m"):
        read(path, bands=BANDS, gsd_m=10)
    assert read(path, bands=BANDS, gsd_m=20)[0].gsd_m == 20


def test_pictures_that_do_not_say_their_pixel_size_have_an_assumed_one_that_is_told(tmp_path: Path, caplog) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    layout = settled(layout_named("rgb_bytes", group="classify.data"), [tmp_path / "a.png"])
    assert layout.notes == ("10 m per pixel is assumed: the pictures do not say it (classify.data.gsd_m)",)
    assert "10 m per pixel is assumed" in caplog.text
    assert settled(layout_named("rgb_bytes", gsd_m=0.3), [tmp_path / "a.png"]).notes == ()


def test_black_is_a_colour_and_alpha_a_mask(tmp_path: Path) -> None:
    """Digital numbers have no implied nodata; reflectance has, where all bands hold it."""
    picture = np.random.default_rng(0).integers(0, 3, (16, 16, 4)).astype(np.uint8)
    picture[..., 3] = 255
    picture[:4, :, 3] = 0
    Image.fromarray(picture).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png", layout_named("rgb_bytes"), lambda *what: None)
    np.testing.assert_array_equal(found.valid, picture[..., 3] > 0)
    np.testing.assert_array_equal(found.pixels, picture[..., :3].transpose(2, 0, 1))
    holes = counts(-0.1)
    holes[:, :3], holes[0, 5] = 0, 0
    valid = read(write(tmp_path / "b.tif", holes), bands=BANDS)[0].valid
    assert not valid[:3].any() and valid[3:].all()


def test_values_beyond_what_is_stored_are_told_then_rejected(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    layout = layout_named("sentinel-2-l2a", bands=BANDS)
    bright = GROUND.copy()
    bright[1, :2] = 7.5
    read_picture(write(tmp_path / "a.tif", bright), layout, lambda *what: told.append(what))
    assert told == [("images with more than 1% of a band beyond what the data set holds, clipped", "a.tif")]
    bright[1, :13] = 7.5
    with pytest.raises(TaskDataError, match=r"54% of B03 is beyond what uint16 of scale 0\.0001"):
        read_picture(write(tmp_path / "b.tif", bright), layout, lambda *what: None)


def test_a_data_set_of_one_value_is_rejected(tmp_path: Path) -> None:
    for name in ("crop", "lake"):
        for number in range(12):
            Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).save(tmp_path / f"{name}{number}.png")
            (tmp_path / "own" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{name}{number}.png").rename(tmp_path / "own" / name / f"{number}.png")
    with pytest.raises(TaskDataError, match=r"every pixel of every image is 0\.30.*, and there is nothing to learn"):
        list(class_folder(tmp_path / "own", layout_named("rgb_bytes", gsd_m=1)).samples())


def test_an_offset_that_only_the_format_states_is_told(tmp_path: Path, caplog) -> None:
    path = write(tmp_path / "a.tif", counts(-0.1))
    _, layout, _ = read(path, bands=BANDS)
    assert layout.notes[0].startswith("offset -0.1 of sentinel-2-l2a is assumed: the files do not say it")
    assert "segment.data.offset: 0.0" in caplog.text
    caplog.clear()
    assert read(path, bands=BANDS, offset=-0.1)[1].notes == ()
    assert read(write(tmp_path / "b.tif", counts(-0.1), tags=(1e-4, -0.1)), bands=BANDS)[1].notes == ()
    assert not caplog.records
