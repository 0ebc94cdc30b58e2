"""Known shifts are recovered within their error; what cannot be told is not invented."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy import ndimage

from a2mae.config import RegistrationParameters
from a2mae.raster.footprints import transformer
from a2mae.raster.read import RasterReader
from a2mae.registration.correlate import Match, work_gsd_m
from a2mae.registration.pairs import BandStack, compare
from a2mae.scenes import BandAsset
from a2mae.sensors import Units

from .conftest import cut, scene

SETTINGS = RegistrationParameters()
NOW = dt.datetime(2023, 6, 1, tzinfo=dt.UTC)
REAL = Path(__file__).parents[3] / "shared" / "data"


def trusted(found: Match | None, coarser: float) -> bool:
    return (
        found is not None
        and not found.at_edge
        and found.error_m <= SETTINGS.max_error_px * coarser
        and found.significance >= SETTINGS.min_significance
    )


def picture(bands: np.ndarray, factor: int, valid: np.ndarray | None = None) -> BandStack:
    seen = np.ones(bands.shape[1:], dtype=bool) if valid is None else valid
    return BandStack(bands, seen, 5.0 * factor, 1920.0, NOW)


@pytest.mark.parametrize(("one", "other"), [(2, 2), (2, 6), (6, 2), (6, 6), (1, 6)])
@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -7), (-11, 16)])
def test_known_shifts_across_resolutions(one: int, other: int, down: int, right: int) -> None:
    image = scene(1)
    # Another season: every band is another function of what grows there, contrasts are reversed.
    season = np.stack([1 - image[0], image[2] * 0.5 + 0.2, 1 - image[1] ** 2])
    found = compare(picture(cut(image, one), one), picture(cut(season, other, down, right), other), SETTINGS)
    coarser = 5.0 * max(one, other)
    assert found is not None
    if max(abs(down), abs(right)) * 5 > SETTINGS.max_shift_px * coarser:
        assert not trusted(found, coarser)
        return
    assert trusted(found, coarser)
    away = np.hypot(found.shift_x_m + right * 5, found.shift_y_m - down * 5)
    assert away <= 0.1 * coarser


def test_clouds_are_not_matched() -> None:
    image, rng = scene(2), np.random.default_rng(0)
    blobs = [ndimage.gaussian_filter(rng.normal(size=(192, 192)), 14) for _ in range(2)]
    clouds = [b > np.quantile(b, 0.6) for b in blobs]
    bands = [
        np.where(c, np.float32(3), cut(image, 2, d, r)) for c, (d, r) in zip(clouds, ((0, 0), (3, 6)), strict=True)
    ]
    found = compare(picture(bands[0], 2, ~clouds[0]), picture(bands[1], 2, ~clouds[1]), SETTINGS)
    assert found is not None and trusted(found, 10)
    assert np.hypot(found.shift_x_m + 30, found.shift_y_m - 15) <= 1.5


def test_what_has_nothing_in_common_is_not_registered() -> None:
    wrong = 0
    for seed in range(12):
        one, other = picture(cut(scene(seed), 6), 6), picture(cut(scene(seed + 100), 6), 6)
        wrong += trusted(compare(one, other, SETTINGS), 30)
    assert wrong == 0
    flat = np.full((3, 64, 64), 0.3, dtype=np.float32)
    assert compare(picture(flat, 6), picture(cut(scene(0), 6), 6), SETTINGS) is None
    nothing = picture(cut(scene(0), 6), 6, np.zeros((64, 64), dtype=bool))
    assert compare(nothing, picture(cut(scene(0), 6), 6), SETTINGS) is None


def test_stripes_are_ambiguous_and_said_to_be() -> None:
    stripes = np.tile(np.sin(np.arange(720) / 3.0), (3, 720, 1))
    found = compare(picture(cut(stripes, 2), 2), picture(cut(stripes, 2, 0, 6), 2), SETTINGS)
    assert not trusted(found, 10)


def test_large_images_get_a_second_look_at_full_resolution() -> None:
    image = scene(4, side=1100)
    one, other = cut(image, 1, side=960), cut(image, 1, 3, -2, side=960)
    full = np.ones((960, 960), dtype=bool)
    found = compare(
        BandStack(one, full, 1.0, 960.0, NOW),
        BandStack(other, full, 1.0, 960.0, NOW),
        SETTINGS.model_copy(update={"max_shift_px": 6.0}),
    )
    assert work_gsd_m(1.0, 960.0) > 3
    assert found is not None and trusted(found, 1)
    assert np.hypot(found.shift_x_m - 2, found.shift_y_m - 3) <= 0.1


def told_shift(fixed: BandStack, moving: BandStack, coarser: float) -> np.ndarray:
    found = compare(fixed, moving, SETTINGS)
    assert found is not None and trusted(found, coarser)
    return np.array([found.shift_x_m, found.shift_y_m])


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "naip_nd").is_dir(), reason="../shared/data/naip_nd is not there")
@pytest.mark.parametrize("factor", [1, 2, 6])
def test_known_shift_put_into_real_dates_is_recovered(factor: int) -> None:
    dates = {}
    for path in sorted((REAL / "naip_nd").glob("*.tif")):
        with rasterio.open(path) as source:
            dates[path.stem[-8:]] = source.read().astype(np.float32)[:, 100:700, 200:800]
    assert len(dates) == 10
    fixed = picture(cut(dates.pop("20120731"), factor), factor)
    gsd, down, right = 5 * factor, 3 * factor - 1, -2 * factor - 1
    for date, image in dates.items():
        still = told_shift(fixed, picture(cut(image, factor), factor), gsd)
        moved = told_shift(fixed, picture(cut(image, factor, down, right), factor), gsd)
        # The dates have small offsets of their own: what counts is the difference.
        away_px = np.hypot(*(moved - still - 5 * np.array([-right, down]))) / gsd
        assert away_px <= 0.15, date


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "l9_s2_coastsat").is_dir(), reason="../shared/data/l9_s2_coastsat is not there")
def test_known_shift_put_into_two_real_sensors_of_two_utm_zones_is_recovered(tmp_path: Path) -> None:
    (landsat,), (sentinel,) = ((REAL / "l9_s2_coastsat").glob(f"*{name}_ms.tif") for name in ("L9", "S2"))
    with rasterio.open(landsat) as source, rasterio.open(sentinel) as other:
        crs, other_crs = str(source.crs), str(other.crs)
        east, north = source.xy(source.height // 2, source.width // 2)
        pixels, profile, place = other.read(), other.profile, other.transform
    assert crs != other_crs
    side, there, back = 3000.0, transformer(crs, other_crs), transformer(other_crs, crs)

    def read(path: Path, gsd: float, nodata: float) -> BandStack:
        grid = GeoBox((round(side / gsd),) * 2, Affine(gsd, 0, east - side / 2, 0, -gsd, north + side / 2), crs)
        bands = [BandAsset(str(k), str(path), k, 1.0, 0.0, nodata, Units.REFLECTANCE, gsd) for k in (2, 3, 4)]
        with RasterReader() as reader:
            values = reader.read(bands, grid)
        return BandStack(np.nan_to_num(values), ~np.isnan(values).any(axis=0), gsd, side, NOW)

    fixed = read(landsat, 15.0, -np.inf)
    still = told_shift(fixed, read(sentinel, 10.0, 0.0), 15)
    for k, (dx, dy) in enumerate([(7.3, -11.9), (-22.0, 15.0), (30.0, 30.0), (-3.1, 40.0)]):
        profile["transform"] = Affine.translation(dx, dy) @ place
        with rasterio.open(tmp_path / f"{k}.tif", "w", **profile) as target:
            target.write(pixels)
        moved = told_shift(fixed, read(tmp_path / f"{k}.tif", 10.0, 0.0), 15)
        # The zones' axes differ by five degrees here.
        x, y = there.transform(east, north)
        x, y = back.transform(x + dx, y + dy)
        assert np.hypot(*(moved - still + np.array([x - east, y - north]))) / 15 <= 0.15
