"""Outlines, pixel sizes and zones."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from a2mae.raster.footprints import footprint_lonlat, ground_size_m, pixel_size_m, project, transformer, utm_crs


@pytest.mark.parametrize(
    ("lon", "lat", "expected"),
    [(0, 0, "EPSG:32631"), (-180, 10, "EPSG:32601"), (179.9, -1, "EPSG:32760"),
     (180, 5, "EPSG:32601"), (12, 50, "EPSG:32633")],
)  # fmt: skip
def test_utm_zones(lon, lat, expected):
    assert utm_crs(lon, lat) == expected


@given(lon=st.floats(-179.99, 179.99), lat=st.floats(-79, 79), size=st.integers(10, 3000))
@settings(max_examples=50, deadline=None)
def test_law_there_and_back(lon, lat, size):
    crs = utm_crs(lon, lat)
    x, y = transformer("EPSG:4326", crs).transform(lon, lat)
    grid = Affine(10, 0, x, 0, -10, y)
    outline = footprint_lonlat(grid, (size, size), crs)
    assert outline.bounds[0] >= -180 and outline.bounds[2] <= 180
    back = project(outline, crs)
    assert back.area == pytest.approx((size * 10) ** 2, rel=1e-3)
    assert np.allclose(back.bounds, (x, y - size * 10, x + size * 10, y), atol=5)


def test_across_the_date_line_in_two_parts():
    outline = footprint_lonlat(Affine(10, 0, 99_960, 0, -10, 8_300_020), (10_980, 10_980), "EPSG:32701")
    assert outline.geom_type == "MultiPolygon"
    assert outline.bounds[0] == -180 and outline.bounds[2] == 180
    assert all(part.bounds[2] - part.bounds[0] < 2 for part in outline.geoms)


def test_pixel_sizes():
    assert pixel_size_m(Affine(30, 0, 0, 0, -30, 0), (9, 9), "EPSG:32633") == (30, 30)
    assert pixel_size_m(Affine(10, 0, 0, 0, -10, 0), (9, 9), "EPSG:2263") == pytest.approx((3.048, 3.048), rel=1e-4)
    width, height = pixel_size_m(Affine(1e-4, 0, 2.8, 0, -1e-4, 60), (9, 9), "EPSG:4326")
    assert height == pytest.approx(11.14, rel=1e-3) and width == pytest.approx(5.58, rel=1e-3)


@pytest.mark.parametrize("lat", [0.0, 30.0, -47.0, 53.0, 70.0])
def test_metres_of_web_mercator_are_shorter_on_the_ground(lat):
    x, y = transformer("EPSG:4326", "EPSG:3857").transform(14.0, lat)
    size = ground_size_m(Affine(10, 0, x - 500, 0, -10, y + 500), (100, 100), "EPSG:3857")
    assert size == pytest.approx(10 * np.cos(np.radians(lat)), rel=0.005)
    assert ground_size_m(Affine(0.3, 0, 400_000, 0, -0.3, 5_900_000), (100, 100), "EPSG:32633") == 0.3


def test_a_pole_is_an_error():
    with pytest.raises(ValueError, match="pole"):
        footprint_lonlat(Affine(1000, 0, -500_000, 0, -1000, 500_000), (1000, 1000), "EPSG:3031")
