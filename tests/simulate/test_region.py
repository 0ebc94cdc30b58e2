import numpy as np
import pytest
from pyproj import Transformer

from a2mae.simulate.ground.land_use import BIOMES
from a2mae.simulate.ground.landscape import make_landscape
from a2mae.simulate.parameters import RegionParameters
from a2mae.simulate.region import Grid, Region, utm_epsg, utm_zone


def _region(lon, lat, **more):
    asked = RegionParameters(name="r", lon=lon, lat=lat, biome="boreal", footprints=2, **more)
    return Region.place(asked, footprint_m=1920, margin_m=240)


def test_zones_and_hemispheres():
    assert [utm_zone(lon) for lon in (-180, -120.001, -120, 5.99, 6.0, 179.9)] == [1, 10, 11, 31, 32, 60]
    assert utm_epsg(34, south=True) == 32734
    assert _region(18.9, -33.5).epsg == 32734
    assert _region(12.3, 51.9).epsg == 32633


def test_footprints_lie_on_multiples_of_their_side():
    region = _region(12.3, 51.9)
    assert region.left_m % 1920 == 0
    assert region.top_m % 1920 == 0
    lon, lat = Transformer.from_crs(region.epsg, 4326, always_xy=True).transform(*region.center_m)
    assert (lon, lat) == pytest.approx((12.3, 51.9), abs=0.02)


def test_local_coordinates_have_their_origin_in_the_centre_and_move_against_the_shift():
    region = _region(12.3, 51.9)
    grid = region.block(10, margin_m=240)
    points = region.local(grid)
    assert points.x_m.mean() == pytest.approx(0, abs=1e-6)
    assert points.y_m[0] > points.y_m[-1]
    moved = region.local(grid, shift_m=(7.0, -3.0))
    assert np.allclose(moved.x_m, points.x_m - 7.0)
    assert np.allclose(moved.y_m, points.y_m + 3.0)


@pytest.mark.parametrize(("lon", "lat", "zone"), [(5.93, 46.8, 32), (-54.05, -25.4, 22), (18.8, -33.4, 34)])
def test_a_grid_of_another_zone_meets_the_same_ground(lon, lat, zone):
    region = _region(lon, lat)
    grid = region.covering(utm_epsg(zone, south=False), 30.0, phase_m=15.0, margin_m=240)
    assert (grid.left_m - 15) % 30 == 0
    assert (grid.top_m - 15) % 30 == 0
    assert (grid.top_m < 0) == (lat < 0)  # northern zones count the south negative
    points = region.local(grid)
    x, y = np.broadcast_arrays(points.x_m, points.y_m[:, None] if points.separable else points.y_m)
    to_degrees = Transformer.from_crs(region.epsg, 4326, always_xy=True)
    from_grid = Transformer.from_crs(grid.epsg, 4326, always_xy=True)
    for row, column in ((0, 0), (grid.height - 1, 5), (40, grid.width - 1)):
        expected = from_grid.transform(grid.left_m + (column + 0.5) * 30, grid.top_m - (row + 0.5) * 30)
        found = to_degrees.transform(x[row, column] + region.center_m[0], y[row, column] + region.center_m[1])
        assert found == pytest.approx(expected, abs=1e-9)
    reach = region.side_m / 2 + region.margin_m
    assert x.min() <= -reach + 15 and x.max() >= reach - 15
    assert y.min() <= -reach + 15 and y.max() >= reach - 15


def test_grids_divide_or_say_that_they_do_not():
    grid = Grid(32633, 0.0, 0.0, 10.0, 60, 60)
    assert grid.coarsen(60).height == 10
    fine = grid.refine(3, halo=2)
    assert (fine.left_m, fine.height) == (pytest.approx(-20 / 3), 184)
    with pytest.raises(ValueError, match="does not divide into 70 m"):
        grid.coarsen(70)


@pytest.mark.parametrize(("lon", "lat", "zone"), [(5.5, 65.0, 32), (-54.5, -60.0, 22)])
def test_a_large_tilted_grid_stays_on_the_landscape(lon, lat, zone):
    asked = RegionParameters(name="r", lon=lon, lat=lat, biome="boreal", footprints=10, landsat_zone=zone)
    region = Region.place(asked, footprint_m=1920, margin_m=240)
    half = region.side_m / 2 + region.margin_m
    landscape = make_landscape(0, "r", BIOMES["boreal"], half)
    grid = region.covering(utm_epsg(zone, south=False), 30.0, phase_m=15.0, margin_m=240)
    points = region.local(grid.refine(1, halo=1), shift_m=(90.0, -90.0))
    reach = max(np.abs(points.x_m).max(), np.abs(points.y_m).max())
    assert half < reach < -landscape.lattice.origin_m
