import dataclasses
import shutil

import numpy as np
import pytest
import rasterio
from PIL import Image

from a2mae.sensors import Units
from a2mae.tasks.samples.folders import FORMATS, ClassFolder, layout_named, split_of
from a2mae.tasks.samples.task_data import TaskData, TaskDataError
from a2mae.tasks.samples.writer import write_task_data
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
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(20):
            noise = rng.normal(level, 10, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(tmp_path / "set" / name / f"{name}_{number}.jpg")
    return tmp_path / "set"


def test_folder_per_class_becomes_task_data(pictures, tmp_path):
    folder = ClassFolder(pictures, RGB)
    assert len(folder) == 40
    write_task_data(tmp_path / "data", folder.spec, folder.samples())
    data = TaskData(tmp_path / "data")
    assert data.spec.class_names == ("dark", "light")
    assert data.spec.encoding.units is Units.DN
    read = data.read(np.arange(40))
    brightness = read.images.mean((1, 2, 3, 4))
    assert np.abs(brightness[read.targets == 0] - 40 / 255).max() < 0.03
    assert np.abs(brightness[read.targets == 1] - 200 / 255).max() < 0.03
    assert data.samples["lon"].isna().all()


def test_split_is_by_name_alone_and_in_proportion():
    names = [f"Forest/Forest_{number}" for number in range(5000)]
    splits = [split_of(name) for name in names]
    assert splits == [split_of(name) for name in names]
    assert 0.18 < splits.count("test") / 5000 < 0.22
    assert 0.08 < splits.count("val") / 5000 < 0.12


def test_one_corrupt_file_among_many_is_skipped_and_named(pictures):
    (pictures / "dark" / "dark_3.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    folder = ClassFolder(pictures, RGB, max_skipped_share=0.05)
    assert len(list(folder.samples())) == 39
    assert len(folder.skipped) == 1
    assert folder.skipped[0].startswith("dark/dark_3.jpg")


def test_too_many_corrupt_files_are_an_error(pictures):
    for number in range(5):
        (pictures / "dark" / f"dark_{number}.jpg").write_bytes(b"")
    with pytest.raises(TaskDataError, match=r"5 of 40 files .* cannot be read"):
        list(ClassFolder(pictures, RGB).samples())


def test_absent_folder_no_classes_empty_class(pictures, tmp_path):
    with pytest.raises(TaskDataError, match=r"classify\.data\.folder: no folder at"):
        ClassFolder(tmp_path / "nothing", RGB)
    (tmp_path / "flat").mkdir()
    with pytest.raises(TaskDataError, match="one folder per class"):
        ClassFolder(tmp_path / "flat", RGB)
    (pictures / "medium").mkdir()
    with pytest.raises(TaskDataError, match=r"no images .* in class medium"):
        ClassFolder(pictures, RGB)


def test_wrong_band_count_and_wrong_type_say_what_was_seen(pictures):
    with pytest.raises(TaskDataError, match="3 bands, but the stated format has 13"):
        list(ClassFolder(pictures, MS).samples())
    as_counts = with_encoding(RGB, dtype="uint16")
    with pytest.raises(TaskDataError, match=r"uint8 with values \d+ to \d+, but the stated format is uint16"):
        list(ClassFolder(pictures, as_counts).samples())


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
                list(ClassFolder(pictures, dataclasses.replace(layout, group=group)).samples())
        with pytest.raises(TaskDataError, match=rf"^{group}\.folder: no folder at"):
            ClassFolder(pictures / "nothing", layout_named("rgb_bytes", group=group))
        with pytest.raises(TaskDataError, match=rf"^{group}\.format: unknown format 'rgb'"):
            layout_named("rgb", group=group)


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
    samples = list(ClassFolder(few_ms, MS).samples())
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
        list(ClassFolder(few_ms, wrong).samples())
    already_scaled = with_encoding(MS, scale=1e-8)
    with pytest.raises(TaskDataError, match="reflectance is 0 to 1"):
        list(ClassFolder(few_ms, already_scaled).samples())


@pytest.mark.real_data
@needs_rgb
def test_eurosat_rgb_layout():
    folder = ClassFolder(EUROSAT_RGB, RGB)
    assert len(folder) == 27_000
    assert len(folder.spec.class_names) == 10
    first = next(folder.samples())
    with rasterio.open(EUROSAT_RGB / f"{first.row['sample_id']}.jpg") as source:
        np.testing.assert_array_equal(first.pixels[0], source.read())
