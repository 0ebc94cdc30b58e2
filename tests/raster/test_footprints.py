"""Outlines, pixel sizes and zones."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from a2mae.raster.footprints import (
    area_lonlat,
    bounds_lonlat,
    box_lonlat,
    footprint_lonlat,
    ground_size_m,
    pixel_size_m,
    project,
    transformer,
    utm_crs,
)


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


@given(west=st.integers(-1800, 1799), width=st.integers(1, 1799), south=st.integers(-89, 88))
def test_law_the_bounds_of_a_box_are_the_box_also_across_the_date_line(west, width, south):
    """In tenths of degrees."""
    east = (west + width + 1800) % 3600 - 1800
    stated = (west / 10, float(south), (1800 if east == -1800 else east) / 10, 90.0)
    ground = box_lonlat(*stated)
    assert ground.geom_type == ("MultiPolygon" if west + width > 1800 else "Polygon")
    assert ground.area == pytest.approx(width / 10 * (90 - south))
    assert bounds_lonlat(ground) == pytest.approx(stated)


@given(shift=st.integers(-30, 30), lat=st.integers(-70, 70))
@settings(max_examples=30, deadline=None)
def test_law_polygons_in_metres_are_the_same_ground_in_degrees(shift, lat):
    """A square of 40 km with a hole, near the date line or across it."""
    crs = "EPSG:32660" if lat >= 0 else "EPSG:32760"
    x, y = transformer("EPSG:4326", crs).transform(180, lat)
    square = shapely.box(x - 20_000, y - 20_000, x + 20_000, y + 20_000)
    square = shapely.affinity.translate(square.difference(square.centroid.buffer(5_000)), shift * 1_000)
    found = area_lonlat(square, crs)
    assert found.is_valid and -180 <= found.bounds[0] and found.bounds[2] <= 180
    assert project(found, crs).symmetric_difference(square).area < 1e-4 * square.area
    west, _, east, _ = bounds_lonlat(found)
    assert (east - west) % 360 < 3
    if abs(abs(shift) - 20) > 2:  # the meridian is no straight line
        assert (west > east) == (abs(shift) < 20)


def test_a_box_round_the_globe_stays_one():
    world = shapely.box(-170, -60, 170, 60)
    assert area_lonlat(world, "EPSG:4326").equals(world) and bounds_lonlat(world) == (-170, -60, 170, 60)
    beyond = area_lonlat(shapely.box(170, -10, 190, 10), "EPSG:4326")
    assert bounds_lonlat(beyond) == (170, -10, -170, 10)


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
