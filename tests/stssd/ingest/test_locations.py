"""Squares where enough scenes overlap, in the UTM zone of their centre, and nowhere else."""

from __future__ import annotations

import datetime as dt
import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box

from a2mae.raster.footprints import footprint_lonlat, project, transformer, utm_crs
from a2mae.scenes import BandAsset, Scene
from a2mae.sensors import Units, get_sensor
from a2mae.stssd.ingest.locations import check_footprint, find_locations
from a2mae.stssd.ingest.parameters import LocationParameters
from a2mae.tables import LOCATION_COLUMNS

S2, L8, NAIP = (get_sensor(i) for i in ("sentinel-2-l2a", "landsat-oli-c2-l2", "naip"))


def scene(name, left, top, side, *, sensor=S2, crs="EPSG:32633"):
    size = round(side / sensor.gsd_m)
    grid = Affine(sensor.gsd_m, 0, left, 0, -sensor.gsd_m, top)
    asset = BandAsset("B", "a.tif", 1, 1.0, 0.0, None, Units.REFLECTANCE, sensor.gsd_m, crs=crs)
    outline = footprint_lonlat(grid, (size, size), crs)
    return Scene(name, sensor.id, dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "", crs, sensor.gsd_m, outline, (asset,))


def find(scenes, sensors=(S2,), **changes):
    return find_locations(scenes, sensors, LocationParameters(**{"footprint_m": 1920.0, "min_scenes": 1, **changes}))


def test_grid_fills_exactly_aligned_scenes():
    found = find([scene("a", 1920 * 260, 1920 * 2422, 1920 * 3)])
    table = found.table
    assert sorted(zip(table["x_m"] / 1920, table["y_m"] / 1920, strict=True)) == [
        (x, y) for x in (260, 261, 262) for y in (2420, 2421, 2422)
    ]
    assert set(table["crs"]) == {"EPSG:32633"} and set(table["footprint_m"]) == {1920.0}
    assert [c for c in table.columns if c != "geometry"] == LOCATION_COLUMNS.names and table.crs.to_epsg() == 4326
    assert table["location_id"].is_unique and found.unused == ()
    row = table.iloc[0]
    x, y = transformer("EPSG:4326", row["crs"]).transform(row["lon"], row["lat"])
    assert (x, y) == (pytest.approx(row["x_m"] + 960), pytest.approx(row["y_m"] - 960))


def test_scenes_and_sensors_are_counted():
    scenes = [
        scene("a", 499_200, 4_650_240, 1920 * 4),
        scene("b", 499_200 + 1920, 4_650_240, 1920 * 4),
        scene("c", 499_200 + 1920 * 2, 4_650_240, 1920 * 4, sensor=L8),
        scene("far", 600_960, 4_500_480, 1920 * 4),
    ]
    columns = {(1, 1): 6 * 4 + 16, (2, 1): 4 * 4, (3, 1): 2 * 4, (1, 2): 3 * 4, (3, 2): 2 * 4}
    for (min_scenes, min_sensors), expected in columns.items():
        found = find(scenes, (S2, L8), min_scenes=min_scenes, min_sensors=min_sensors)
        assert len(found.table) == expected, (min_scenes, min_sensors)
    assert find(scenes, (S2, L8), min_scenes=2).unused == ("far",)
    with pytest.raises(ValueError, match=r"the best has 3 scenes\); lower ingest\.locations\.min_scenes"):
        find(scenes, (S2, L8), min_scenes=4)


@given(
    lon=st.floats(-180, 180), lat=st.floats(-70, 70), side_m=st.floats(8_000, 60_000),
    footprint=st.sampled_from([960.0, 1920.0, 3840.0]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_law_squares_are_on_the_grid_in_their_zone_and_inside(lon, lat, side_m, footprint):
    crs = utm_crs(lon, lat)
    x, y = transformer("EPSG:4326", crs).transform(lon, lat)
    whole = scene("a", x, y, side_m - side_m % 10, crs=crs)
    table = find([whole], footprint_m=footprint).table
    assert len(table) >= 1
    assert (table["x_m"] % footprint == 0).all() and (table["y_m"] % footprint == 0).all()
    assert [utm_crs(a, b) for a, b in zip(table["lon"], table["lat"], strict=True)] == list(table["crs"])
    for zone, rows in table.groupby("crs"):
        # Within the edge tolerance of the scene, and two squares of a zone never overlap.
        reach = shapely.buffer(project(whole.geometry, str(zone)), footprint / 50)
        squares = [box(r.x_m, r.y_m - footprint, r.x_m + footprint, r.y_m) for r in rows.itertuples()]
        assert all(reach.covers(square) for square in squares)
        assert shapely.union_all(squares).area == pytest.approx(len(squares) * footprint**2)


def test_two_zones_share_a_scene_across_their_border():
    x, y = transformer("EPSG:4326", "EPSG:32633").transform(18.0, 50.0)
    table = find([scene("a", x - 10_000, y + 10_000, 20_000)]).table
    assert set(table["crs"]) == {"EPSG:32633", "EPSG:32634"}
    assert 70 <= len(table) <= 100  # of 108 squares' worth of ground


def test_the_date_line_and_both_hemispheres():
    x, y = transformer("EPSG:4326", "EPSG:32601").transform(-180.0, 0.0)
    table = find([scene("a", x - 10_000, y + 10_000, 20_000, crs="EPSG:32601")]).table
    assert set(table["crs"]) == {"EPSG:32601", "EPSG:32701", "EPSG:32660", "EPSG:32760"}
    assert table.geometry.is_valid.all() and table.total_bounds[0] >= -180 and table.total_bounds[2] <= 180


def test_points_lie_on_every_sensors_grid():
    whole = scene("a", 500_160, 4_649_280, 1920 * 10, sensor=L8)
    lon, lat = whole.geometry.centroid.coords[0]
    table = find([whole], (S2, L8), mode="points", points=[(lon, lat), (lon, lat), (lon + 3, lat)]).table
    assert len(table) == 1  # given twice, and one beside the scene
    assert table["x_m"][0] % 30 == 0 and table["y_m"][0] % 30 == 0
    assert (table["lon"][0], table["lat"][0]) == (pytest.approx(lon, abs=3e-4), pytest.approx(lat, abs=3e-4))


def test_polygons_restrict_the_grid(tmp_path):
    whole = scene("a", 500_160, 4_649_280, 1920 * 10)
    inside = whole.geometry.centroid.buffer(0.05)
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(inside)}]}))  # fmt: skip
    table = find([whole], mode="polygons", polygons=str(path)).table
    assert 0 < len(table) < 100 and table.geometry.within(inside.buffer(1e-4)).all()
    with pytest.raises(ValueError, match="is not a file"):
        find([whole], mode="polygons", polygons=str(tmp_path / "no.geojson"))
    with pytest.raises(ValueError, match="is not a file"):
        find([whole], mode="polygons", polygons="x" * 1000)
    gpd.GeoSeries([inside], crs=4326).to_crs("EPSG:3857").to_file(tmp_path / "area.shp")
    again = find([whole], mode="polygons", polygons=str(tmp_path / "area.shp")).table
    assert again["location_id"].tolist() == table["location_id"].tolist()
    (tmp_path / "area.prj").unlink()
    with pytest.raises(ValueError, match=r"area.shp' has no CRS: write it with its own"):
        find([whole], mode="polygons", polygons=str(tmp_path / "area.shp"))


def test_caps_are_drawn_with_the_seed():
    scenes = [scene("big", 500_160, 4_649_280, 1920 * 20), scene("small", 600_960, 4_500_480, 1920 * 2)]
    capped = find(scenes, max_per_group=4).table
    assert len(capped) == 8  # four of the big one's 400 beside the small one's four
    first, again, other = (find(scenes, max_locations=10, seed=s).table for s in (1, 1, 2))
    assert len(first) == 10
    pd.testing.assert_frame_equal(pd.DataFrame(first), pd.DataFrame(again))
    assert set(first["location_id"]) != set(other["location_id"])
    apart = find(scenes, min_distance_m=5000.0).table
    x, y = (apart.loc[apart["x_m"] < 590_000, c].to_numpy() for c in ("x_m", "y_m"))
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    assert len(x) > 20 and distance[distance > 0].min() >= 4990


def test_spacing():
    assert len(find([scene("a", 499_200, 4_650_240, 1920 * 10)], spacing_m=3840.0).table) == 25
    assert len(find([scene("a", 499_200, 4_650_240, 1920 * 2)], spacing_m=960.0).table) == 9


def test_the_side_must_fit_every_sensor():
    check_footprint(1920, [S2, L8, NAIP])
    with pytest.raises(ValueError, match=r"footprint_m = 1000 .* landsat-oli-c2-l2 \(30 m\).* 990 or 1020 would be"):
        check_footprint(1000, [S2, L8, NAIP])


@pytest.mark.parametrize(
    "values",
    [{"mode": "points"}, {"mode": "polygons"}, {"footprint_m": -1}, {"points": [(200, 0)]},
     {"min_scenes": 0}, {"mod": "grid"}],
)  # fmt: skip
def test_settings_that_cannot_be_meant(values):
    with pytest.raises(ValueError, match="validation error"):
        LocationParameters(**values)
