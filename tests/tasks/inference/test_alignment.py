import logging
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy import ndimage

from a2mae.config import RegistrationParameters
from a2mae.tasks.inference.class_map import aligned
from a2mae.tasks.inference.files import raster_from_file
from a2mae.tasks.inference.rasters import RasterWindows
from helpers.task_samples import SENTINEL2

RGB = ("red", "green", "blue")
FINE_M = 2.5
SETTINGS = RegistrationParameters()


def ground(seed, side_m=8000):
    """Fields with sharp edges on a grid of 2.5 m: reflectance times 10,000."""
    rng = np.random.default_rng(seed)
    side = int(side_m / FINE_M)
    seeds = rng.uniform(0, side, (400, 2))
    marks = np.zeros((side, side), bool)
    marks[tuple(seeds.astype(int).T)] = True
    nearest = ndimage.distance_transform_edt(~marks, return_distances=False, return_indices=True)
    return rng.uniform(300, 3000, (side, side))[tuple(nearest)]


def photograph(path, ground, *, gsd_m=10, moved_m=(0, 0), side_m=6000, seed=0, left_m=500_000):
    """The ground as a provider gives it: its content lies `moved_m` (east, north) of where its georeference says."""
    step, side = int(gsd_m / FINE_M), int(side_m / gsd_m)
    left, top = (int((1000 + move) / FINE_M) for move in (-moved_m[0], moved_m[1]))
    part = ground[top : top + side * step, left : left + side * step]
    pixels = part.reshape(side, step, side, step).mean((1, 3))
    noisy = pixels * np.array([1, 0.9, 0.8])[:, None, None] + np.random.default_rng(seed).normal(0, 20, (3, side, side))
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint16", nodata=0,
        crs="EPSG:32633", transform=Affine(gsd_m, 0, left_m, 0, -gsd_m, 5_200_000),
    ) as target:  # fmt: skip
        target.write(noisy.clip(1, 60_000).astype(np.uint16))
        for number, name in enumerate(("B04", "B03", "B02"), start=1):
            target.set_band_description(number, name)
    return raster_from_file(path, SENTINEL2, RGB)


@pytest.fixture(scope="module")
def land():
    return ground(0)


@pytest.mark.parametrize("gsd_m", [10, 20])
@pytest.mark.parametrize("moved_m", [(-10.0, 22.5), (17.5, -5.0)])
def test_a_displaced_date_is_moved_back(land, tmp_path, gsd_m, moved_m):
    """Sub-pixel, also where the dates have other pixels; what is then read lies on the first."""
    first = photograph(tmp_path / "first.tif", land)
    second = photograph(tmp_path / "second.tif", land, gsd_m=gsd_m, moved_m=moved_m, seed=1)
    found = aligned(first, second, SETTINGS)
    assert np.hypot(found.shift_m[0] + moved_m[0], found.shift_m[1] + moved_m[1]) < 0.15 * gsd_m
    assert replace(found, shift_m=(0.0, 0.0)) == second
    box = first.grid[200:300, 200:300]
    with RasterWindows(first) as a, RasterWindows(second) as b, RasterWindows(found) as c:
        wanted, before, after = (windows.on(box)[0] for windows in (a, b, c))
    assert np.abs(after - wanted).mean() < 0.5 * np.abs(before - wanted).mean()


def test_a_date_that_lies_right_is_left_as_it_is(land, tmp_path, caplog):
    first = photograph(tmp_path / "first.tif", land)
    second = photograph(tmp_path / "second.tif", land, seed=1)
    with caplog.at_level(logging.INFO):
        assert aligned(first, second, SETTINGS) == second
    assert "windows: left there" in caplog.text


def test_what_cannot_be_told_is_said_and_not_invented(land, tmp_path, caplog):
    first = photograph(tmp_path / "first.tif", land)
    other = photograph(tmp_path / "other.tif", ground(1), seed=1)
    with caplog.at_level(logging.WARNING):
        assert aligned(first, other, SETTINGS) == other
    assert "stays where its provider put it" in caplog.text
    plain = photograph(tmp_path / "plain.tif", np.full_like(land, 1500), seed=1)
    assert aligned(first, plain, SETTINGS) == plain
    elsewhere = photograph(tmp_path / "elsewhere.tif", land, left_m=600_000)
    with caplog.at_level(logging.WARNING):
        assert aligned(first, elsewhere, SETTINGS) == elsewhere
    assert "of 0 windows 0 tell" in caplog.text


def test_it_can_be_turned_off_and_has_a_reach(land, tmp_path):
    first = photograph(tmp_path / "first.tif", land)
    second = photograph(tmp_path / "second.tif", land, moved_m=(60.0, 0.0), seed=1)
    assert aligned(first, second, RegistrationParameters(enabled=False)) == second
    assert aligned(first, second, SETTINGS) == second  # six pixels: beyond three and a half
    far = aligned(first, second, RegistrationParameters(max_shift_px=8))
    assert far.shift_m == pytest.approx((-60, 0), abs=1.5)


def test_a_raster_smaller_than_a_window_is_one_window(land, tmp_path):
    first = photograph(tmp_path / "first.tif", land, side_m=1600)
    second = photograph(tmp_path / "second.tif", land, side_m=1600, moved_m=(10.0, 5.0), seed=1)
    assert aligned(first, second, SETTINGS).shift_m == pytest.approx((-10, -5), abs=1.5)
