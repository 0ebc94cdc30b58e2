"""By which bands, scale and offset a user's raster is read, and what is said where that cannot be right."""

from __future__ import annotations

import re

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy

from a2mae.sensors import BUILTIN_SENSORS
from a2mae.tasks.datasets.inputs import plan_bands
from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.inference.files import keys_of_map, raster_from_file
from a2mae.tasks.inference.rasters import RasterWindows
from a2mae.tasks.registry import Task
from helpers.task_samples import REFLECTANCE, SENTINEL2, seen

from .conftest import L1C, RGB, STATISTICS, TAUGHT, l1c_counts, l1c_landscape, write_raster


@pytest.mark.parametrize("name", ["scene.vrt", "scene.png", "scene.tif"])
def test_a_vrt_is_not_read_whatever_its_name(scene, tmp_path, name):
    """It may name any file and address: a picture that shows /etc/passwd, a request to a server."""
    (tmp_path / "vrt").mkdir()
    with rasterio.open(scene) as source:
        copy(source, tmp_path / "vrt" / name, driver="VRT")
    with pytest.raises(TaskDataError, match=rf"{re.escape(name)} is a VRT, .* gdal_translate -of COG"):
        raster_from_file(tmp_path / "vrt" / name, SENTINEL2, RGB)


def test_bytes_taken_for_reflectance_are_warned_of(tmp_path, cover, caplog):
    counts = seen(np.random.default_rng(0), cover)
    raster_from_file(write_raster(tmp_path / "fine.tif", counts), SENTINEL2, RGB, offset=-0.1)
    assert not caplog.records
    in_bytes = (counts // 32).clip(0, 255).astype(np.uint8)
    path = write_raster(tmp_path / "bytes.tif", in_bytes)
    with rasterio.open(path, "r+") as target:
        target.scales = (1e-4,) * 3
    raster_from_file(path, SENTINEL2, RGB)
    (record,) = caplog.records
    assert "bytes.tif: values from 0" in record.getMessage() and "set embed.scale and" in record.getMessage()


def test_bad_rasters_are_refused_with_what_was_seen(tmp_path, cover):
    counts = seen(np.random.default_rng(0), cover)
    lost = write_raster(tmp_path / "lost.tif", counts, crs=None)
    with pytest.raises(TaskDataError, match=r"lost\.tif has no coordinate reference system"):
        raster_from_file(lost, SENTINEL2, RGB)
    degrees = write_raster(tmp_path / "degrees.tif", counts, crs="EPSG:4326")
    with pytest.raises(TaskDataError, match=r"outside what its CRS can express"):
        raster_from_file(degrees, SENTINEL2, RGB)
    unnamed = write_raster(tmp_path / "unnamed.tif", counts, names=())
    with pytest.raises(TaskDataError, match=r"no band described as 'B04' or 'red'.*3 bands are not the 12"):
        raster_from_file(unnamed, SENTINEL2, RGB)
    physical = REFLECTANCE[cover].transpose(2, 0, 1).astype(np.float32)
    wrong = write_raster(tmp_path / "wrong.tif", physical * 1e4, nodata=None)
    with pytest.raises(TaskDataError, match=r"values are 200 to 900 with median .*reflectance is 0 to 1"):
        raster_from_file(wrong, SENTINEL2, RGB)
    (tmp_path / "torn.tif").write_bytes(lost.read_bytes()[:40])
    with pytest.raises(TaskDataError, match=r"torn\.tif cannot be opened"):
        raster_from_file(tmp_path / "torn.tif", SENTINEL2, RGB)
    with pytest.raises(TaskDataError, match="not pretrained on 'naip'"):
        plan_bands(
            SENTINEL2.__class__("naip", "", 1, SENTINEL2.bands, SENTINEL2.encoding), RGB, STATISTICS, bands_per_view=3
        )


def test_floats_with_nan_and_files_with_their_own_scale(tmp_path, cover):
    physical = REFLECTANCE[cover].transpose(2, 0, 1).astype(np.float32)
    physical[:, :5] = np.nan
    floats = raster_from_file(write_raster(tmp_path / "f.tif", physical, nodata=None), SENTINEL2, RGB)
    counts = np.round(np.nan_to_num(physical) / 2e-5).astype(np.uint16)
    path = write_raster(tmp_path / "s.tif", counts)
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = (2e-5,) * 3, (0.0,) * 3
    scaled = raster_from_file(path, SENTINEL2, RGB)
    for raster in (floats, scaled):
        with RasterWindows(raster) as windows:
            pixels, valid = windows.read(0, 0, 84, 117)
        assert not valid[:5].any()
        assert valid[5:].all()
        np.testing.assert_allclose(pixels[:, 5:], physical[:, 5:], atol=2e-5)


def test_what_the_user_states_holds_for_floats_and_is_held_against_tags(tmp_path):
    percent = write_raster(tmp_path / "percent.tif", (l1c_landscape() * 100).astype(np.float32))
    with RasterWindows(raster_from_file(percent, L1C, RGB, scale=0.01, offset=0.0)) as windows:
        pixels, _ = windows.read(0, 0, 64, 64)
    np.testing.assert_allclose(pixels, l1c_landscape(), atol=6e-5)
    tagged = write_raster(tmp_path / "tagged.tif", l1c_counts(), scale=5e-5, offset=0.3)
    with pytest.raises(TaskDataError, match=r"tagged with scale 5e-05 and offset 0\.3 .* embed says scale 0\.0001"):
        raster_from_file(tagged, L1C, RGB, scale=1e-4)


def test_an_offset_that_only_the_sensor_states_is_warned_of_with_the_key_to_set(tmp_path, caplog):
    path = write_raster(tmp_path / "mine.tif", l1c_counts(L1C.encoding.offset))
    raster_from_file(path, L1C, RGB)
    (record,) = caplog.records
    assert "mine.tif states no scale and offset: it is read by the offset of sentinel-2-l1c, -0.1" in record.message
    assert "set embed.offset (0.0, or -0.1 if it is right)" in record.message
    caplog.clear()
    raster_from_file(path, L1C, RGB, offset=-0.1)
    raster_from_file(path, L1C, RGB, stated=L1C)  # as the training's files are: said by data.offset
    raster_from_file(write_raster(tmp_path / "tags.tif", l1c_counts(), scale=1e-4, offset=0.0), L1C, RGB)
    assert not caplog.records


def test_messages_name_the_keys_of_the_stage_that_reads(tmp_path):
    path = write_raster(tmp_path / "counts.tif", l1c_counts().astype(np.float32))
    with pytest.raises(TaskDataError, match=r"0 to 1: set embed\.scale and embed\.offset, write .* set embed\.sensor"):
        raster_from_file(path, L1C, RGB)
    with pytest.raises(TaskDataError, match=r"0 to 1: write .* or set detect_change\.map\.sensor"):
        raster_from_file(path, L1C, RGB, keys=keys_of_map(Task.DETECT_CHANGE))
    with pytest.raises(TaskDataError, match=r"describe the bands, or set segment\.map\.sensor"):
        raster_from_file(path, L1C, ("nir",), keys=keys_of_map(Task.SEGMENT))
    dark = write_raster(tmp_path / "bytes.tif", (l1c_counts() // 64).astype(np.uint8), scale=1e-4, offset=0.0)
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("a2mae.tasks.inference.files.logger.warning", lambda text, *values: said.append(text % values))
        raster_from_file(dark, L1C, RGB, keys=keys_of_map(Task.SEGMENT))
    assert "land reaches 0.1" in said[0] and said[0].endswith("or set segment.map.sensor")
    assert "rule or item" not in said[0]
    with pytest.raises(TaskDataError, match=r"it knows sentinel-2-l1c: set embed\.sensor to one of these"):
        plan_bands(BUILTIN_SENSORS["sentinel-2-l2a"], RGB, TAUGHT, bands_per_view=3)
