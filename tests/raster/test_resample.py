"""Resampling on matrices against GDAL's warper, on real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject, transform
from scipy import ndimage

from a2mae.raster.read import RasterReader
from a2mae.raster.resample import find_map
from a2mae.scenes import BandAsset
from a2mae.sensors import Units

UTM_31, UTM_32 = "EPSG:32631", "EPSG:32632"


def write(path: Path, values: np.ndarray, transform: Affine, crs: str = UTM_31) -> BandAsset:
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[1], height=values.shape[0], count=1, dtype=values.dtype, crs=crs,
        transform=transform,
    ) as target:  # fmt: skip
        target.write(values, 1)
    return BandAsset("red", str(path), 1, 1.0, 0.0, 0.0, Units.REFLECTANCE, transform.a)


def by_gdal(asset: BandAsset, grid: GeoBox, resampling: Resampling = Resampling.cubic) -> np.ndarray:
    with rasterio.open(asset.href) as source:
        values = source.read(1).astype("float32")
        values[values == 0] = np.nan
        out = np.full(grid.shape, np.nan, "float32")
        reproject(
            values, out, src_transform=source.transform, src_crs=source.crs, src_nodata=np.nan, dst_nodata=np.nan,
            dst_transform=grid.affine, dst_crs=str(grid.crs), resampling=resampling, tolerance=0.001,
        )  # fmt: skip
    return out


@pytest.fixture
def landscape() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (1000 + 300 * ndimage.gaussian_filter(rng.normal(size=(260, 250)), 1.2) * 4).astype("uint16")


@pytest.mark.parametrize("gsd_m", [10.0, 20.0, 30.0, 5.0])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.3, -4.7)])
def test_same_zone_is_what_gdal_gives(
    tmp_path: Path, landscape: np.ndarray, gsd_m: float, shift: tuple[float, float]
) -> None:
    asset = write(tmp_path / "a.tif", landscape, Affine(10, 0, 500_000, 0, -10, 5_200_000))
    n = round(1200 / gsd_m)
    grid = GeoBox((n, n), Affine(gsd_m, 0, 500_600, 0, -gsd_m, 5_199_400), UTM_31)
    with RasterReader() as reader:
        ours = reader.read([asset], grid, shift_m=shift)[0]
    theirs = by_gdal(asset, GeoBox((n, n), Affine.translation(-shift[0], -shift[1]) @ grid.affine, UTM_31))
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, theirs, rtol=2e-4)


def test_other_zone_is_what_gdal_gives_and_where_the_projection_says(tmp_path: Path, landscape: np.ndarray) -> None:
    (x,), (y,) = transform(UTM_31, UTM_32, [700_000], [5_200_000])
    asset = write(tmp_path / "a.tif", landscape, Affine(30, 0, round(x) - 3000.0, 0, -30, round(y) + 3500.0), UTM_32)
    grid = GeoBox((64, 64), Affine(30, 0, 700_000, 0, -30, 5_200_000), UTM_31)
    with RasterReader() as reader:
        ours = reader.read([asset], grid)[0]
        classes = reader.read([asset], grid, categorical=True)[0]
    theirs = by_gdal(asset, grid)
    assert np.isfinite(ours).all()
    assert np.abs(ours - theirs).max() < 0.02 * (theirs.max() - theirs.min())
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9999
    nearest = by_gdal(asset, grid, Resampling.nearest)
    assert (classes != nearest).mean() < 0.005  # centres that fall on a border
    # A plane in the source's coordinates comes out as the projection has it, to a hundredth of a pixel.
    column = np.arange(250)[None] * np.ones((260, 1)) * 100 + 500
    ramp = write(tmp_path / "b.tif", column.astype("uint16"), Affine(30, 0, round(x) - 3000.0, 0, -30, round(y) + 3500.0), UTM_32)  # fmt: skip  # noqa: E501
    with RasterReader() as reader:
        got = reader.read([ramp], grid)[0]
    cols, rows = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    east, _ = transform(UTM_31, UTM_32, (700_000 + 30 * cols).ravel(), (5_200_000 - 30 * rows).ravel())
    expected = (np.array(east) - (round(x) - 3000.0)) / 30 - 0.5
    assert np.abs((got.ravel() - 500) / 100 - expected).max() < 0.01


@pytest.mark.parametrize("crs", [UTM_31, UTM_32])
def test_missing_pixels_stay_missing_and_do_not_bleed(tmp_path: Path, landscape: np.ndarray, crs: str) -> None:
    (x,), (y,) = transform(UTM_31, crs, [700_000], [5_200_000])
    holes = landscape.copy()
    holes[60:80, 70:95] = 0
    asset = write(tmp_path / "a.tif", holes, Affine(30, 0, round(x) - 1000.0, 0, -30, round(y) + 1000.0), crs)
    grid = GeoBox((64, 64), Affine(30, 0, 700_000, 0, -30, 5_200_000), UTM_31)
    with RasterReader() as reader:
        ours = reader.read([asset], grid)[0]
    theirs = by_gdal(asset, grid)
    assert np.isnan(ours).any() and np.isfinite(ours).any()
    assert (np.isnan(ours) != np.isnan(theirs)).mean() < 0.01
    both = np.isfinite(ours) & np.isfinite(theirs)
    assert np.abs(ours[both] - theirs[both]).max() < 0.25 * np.ptp(landscape)  # beside holes kernels differ
    assert ours[both].min() > float(landscape.min()) - 50 and ours[both].max() < float(landscape.max()) + 50


def test_footprint_over_the_edge_and_outside(tmp_path: Path, landscape: np.ndarray) -> None:
    asset = write(tmp_path / "a.tif", landscape, Affine(10, 0, 500_000, 0, -10, 5_200_000))
    with RasterReader() as reader:
        over = reader.read([asset], GeoBox((40, 40), Affine(10, 0, 499_800, 0, -10, 5_199_900), UTM_31))[0]
        outside = reader.read([asset], GeoBox((40, 40), Affine(10, 0, 400_000, 0, -10, 5_199_900), UTM_31))[0]
    assert np.isnan(over[:, :20]).all()
    assert np.array_equal(over[:, 20:], landscape[10:50, :20])
    assert np.isnan(outside).all()


def test_maps_that_are_no_quadratic_are_left_to_gdal() -> None:
    polar = find_map(
        Affine(1000, 0, -3e6, 0, -1000, 3e6), "EPSG:3413", Affine(0.5, 0, -180, 0, -0.1, 90), "EPSG:4326", (40, 600)
    )
    assert polar is None


@pytest.mark.parametrize("gsd_m", [10.0, 30.0])
@pytest.mark.parametrize(("crs", "lon"), [("EPSG:32701", -179.995), ("EPSG:32760", 179.99)])
def test_a_scene_in_degrees_is_read_on_both_sides_of_the_date_line(
    tmp_path: Path, crs: str, lon: float, gsd_m: float
) -> None:
    rows, columns = np.mgrid[0:440, 0:440]
    values = (2000 + 500 * np.sin(columns / 30) + 400 * np.cos(rows / 25)).astype("uint16")
    asset = write(tmp_path / "a.tif", values, Affine(9e-5, 0, 179.98, 0, -9e-5, -16.98), "EPSG:4326")
    (x,), (y,) = transform("EPSG:4326", crs, [lon], [-17.0])
    n = round(600 / gsd_m)
    grid = GeoBox((n, n), Affine(gsd_m, 0, round(x / 10) * 10, 0, -gsd_m, round(y / 10) * 10), crs)
    with RasterReader() as reader:
        found = reader.read([asset], grid)[0]
    east, north = grid.affine @ (np.arange(n) + 0.5, np.arange(n) + 0.5)
    lons, lats = (np.array(part) for part in transform(crs, "EPSG:4326", list(east), list(north)))
    column, row = ((lons % 360) - 179.98) / 9e-5 - 0.5, (-16.98 - lats) / 9e-5 - 0.5
    truth = 2000 + 500 * np.sin(column / 30) + 400 * np.cos(row / 25)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.diag(found), truth, atol=40 if gsd_m > 10 else 3)
