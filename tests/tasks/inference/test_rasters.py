"""Rasters and mosaics of them, window by window."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from a2mae.config import CloudParameters
from a2mae.remote.policy import RemoteAccess
from a2mae.sensors import get_sensor
from a2mae.tasks.datasets.inputs import plan_bands
from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.inference.files import raster_from_file
from a2mae.tasks.inference.rasters import RasterWindows, mosaic, sample_of
from a2mae.tasks.inference.scenes import SceneRasters
from a2mae.tasks.inference.sources import warn_of_values
from helpers.task_samples import SENTINEL2, seen

from .conftest import L1C, RGB, TAUGHT, write_raster


def test_scenes_become_one_mosaic_the_first_on_top(scene, cover, tmp_path):
    counts = seen(np.random.default_rng(3), cover)
    east = write_raster(tmp_path / "east.tif", counts, origin=(500_000 + 80 * 10, 5_200_000 + 40 * 10))
    rasters = [raster_from_file(path, SENTINEL2, RGB) for path in (scene, east)]
    joined = mosaic(rasters)
    assert joined.shape == (84 + 40, 117 + 80)
    with RasterWindows(joined) as both, RasterWindows(rasters[0]) as first, RasterWindows(rasters[1]) as second:
        pixels, valid = both.read(0, 0, 124, 197)
        upper, seen_upper = first.read(0, 0, 84, 117)
        lower, _ = second.read(0, 0, 84, 117)
    np.testing.assert_allclose(pixels[:, 40:, :117][:, seen_upper], upper[:, seen_upper], atol=1e-6)
    np.testing.assert_allclose(pixels[:, :40, 80:], lower[:, :40], atol=1e-6)
    np.testing.assert_allclose(pixels[:, 40:84, 117:], lower[:, 40:, 37:], atol=1e-6)
    assert not valid[:40, :80].any()  # neither scene lies there
    assert not valid[60:85, 30:60].any()  # the first scene's hole, beside the second
    with pytest.raises(TaskDataError, match="a mosaic needs scenes of one sensor, found naip, sentinel-2-l2a"):
        mosaic([rasters[0], dataclasses.replace(rasters[1], sensor=get_sensor("naip"))])


def test_what_a_mask_hides_is_not_seen_and_windows_agree_with_the_whole(scene, cloudy_scene):
    """Clouds widened by 25 m on a grid of 10 m; fill is fill; a cloud beyond a window's edge reaches in."""
    plain = raster_from_file(scene, SENTINEL2, RGB)
    buffered = SceneRasters(None, {}, RemoteAccess(), CloudParameters(buffer_m=25.0))
    masked = buffered.one(cloudy_scene, SENTINEL2, RGB)
    with rasterio.open(cloudy_scene.mask.href) as source:
        classes = source.read(1)
    rows, columns = plain.shape
    with RasterWindows(plain) as before, RasterWindows(masked) as after:
        pixels, clear = before.read(0, 0, rows, columns)
        kept, valid = after.read(0, 0, rows, columns)
        for row in range(0, rows, 13):
            for column in range(0, columns, 17):
                part, seen_part = after.read(row, column, 13, 17)
                inside = np.s_[row : min(row + 13, rows), column : min(column + 17, columns)]
                height, width = valid[inside].shape
                np.testing.assert_array_equal(seen_part[:height, :width], valid[inside])
                np.testing.assert_array_equal(part[:, :height, :width], kept[:, *inside])
    fine = np.kron(classes, np.ones((2, 2), int))[:rows, :columns]
    hidden = np.isin(fine, (3, 8, 9)) & clear  # as in the store: what was not seen is no cloud
    near = ndimage.distance_transform_edt(~hidden) <= 2.5
    np.testing.assert_array_equal(valid, clear & ~near & (fine != 0))
    np.testing.assert_array_equal(kept, np.where(valid, pixels, 0))


def test_a_strip_of_a_wide_raster_is_read_in_pieces(tmp_path):
    """Resampling takes a matrix of the window's width squared: 8,000 columns at once took 256 MB for it."""

    counts = seen(np.random.default_rng(0), np.random.default_rng(1).integers(0, 3, (40, 8000)).astype(np.uint8))
    counts[:, :, 3000:3100] = 0
    raster = raster_from_file(write_raster(tmp_path / "wide.tif", counts), SENTINEL2, RGB)
    with RasterWindows(raster) as windows:
        tracemalloc.start()
        pixels, valid = windows.read(5, 100, 30, 8000)  # past the right edge
        peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        for column in (480, 2950, 7800):  # over the border of two pieces, into nodata, over the edge
            part, seen_there = windows.read(5, 100 + column, 30, 200)
            np.testing.assert_allclose(pixels[:, :, column : column + 200], part[:, :, : 8000 - column], atol=1e-6)
            np.testing.assert_array_equal(valid[:, column : column + 200], seen_there[:, : 8000 - column])
    assert not valid[:, 2900:3000].any() and not valid[:, 7900:].any() and valid.sum() == 30 * 7800
    assert peak_mb < 40


def test_a_raster_that_is_empty_in_its_middle_is_judged_by_another_window(tmp_path):
    values = np.zeros((3, 2100, 2100), np.uint16)
    values[:, 1400:, 1400:] = 30_000
    raster = raster_from_file(write_raster(tmp_path / "corner.tif", values), L1C, RGB, scale=1e-5, offset=0.0)
    assert np.allclose(sample_of(raster), 0.3) and sample_of(raster).size
    empty = raster_from_file(write_raster(tmp_path / "none.tif", values * 0), L1C, RGB, offset=0.0)
    assert sample_of(empty).shape == (3, 0)
    warn_of_values(empty, plan_bands(L1C, RGB, TAUGHT, bands_per_view=3), "")  # nothing is to be said of it
