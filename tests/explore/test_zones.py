"""Classes within polygons of one's own, and points whose true class is known."""

from __future__ import annotations

import logging

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely.geometry import Point, box

from a2mae.explore import zones
from a2mae.explore.zones import reference_counts, zonal_statistics
from a2mae.tasks.inference.read_map import open_class_map

from .conftest import NAMES, ORIGIN, UTM

WEST, NORTH = ORIGIN


def pixels(left, top, right, bottom):
    """A square of whole pixels."""
    return box(WEST + 10 * left, NORTH - 10 * bottom, WEST + 10 * right, NORTH - 10 * top)


def write(path, geometry, crs=UTM, **columns):
    gpd.GeoDataFrame(columns, geometry=geometry, crs=crs).to_file(path)
    return path


@pytest.mark.parametrize("block", [5, 2048])
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857"])
def test_every_zone_has_its_hectares_and_shares(mapped, classes, tmp_path, block, crs):
    squares = [(2, 3, 30, 20), (0, 0, 90, 70), (80, 60, 100, 80)]
    frame = gpd.GeoDataFrame({"owner": ["a", "b", "c"]}, geometry=[pixels(*square) for square in squares], crs=UTM)
    frame.to_crs(crs).to_file(tmp_path / "zones.gpkg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zones, "_BLOCK_PX", block)
        found = zonal_statistics(open_class_map(*mapped), tmp_path / "zones.gpkg")
    assert found.crs == UTM and found["owner"].tolist() == ["a", "b", "c"]
    for row, (left, top, right, bottom) in zip(found.itertuples(), squares, strict=True):
        inside = classes[top : min(bottom, 70), left : min(right, 90)]
        seen = inside[inside != 255]
        assert row.seen_share == pytest.approx(len(seen) / ((right - left) * (bottom - top)), abs=2e-3)
        assert row.mean_probability == pytest.approx(0.8, abs=1e-5)
        assert row.largest_class == NAMES[int(np.bincount(seen).argmax())]
        assert row.water_share == pytest.approx((seen == 0).mean(), abs=2e-3)
        assert row.water_ha == pytest.approx((seen == 0).sum() / 100, rel=2e-3)


def test_ground_that_nobody_saw_has_no_shares(mapped, classes, tmp_path):
    rows, columns = np.nonzero(classes == 255)
    hole = pixels(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    found = zonal_statistics(open_class_map(*mapped), write(tmp_path / "zones.gpkg", [hole]))
    assert found["seen_share"].tolist() == [0] and found["largest_class"].isna().all()
    assert found["water_share"].isna().all() and found["water_ha"].tolist() == [0]


def test_zones_outside_the_map_are_counted(mapped, tmp_path, caplog):
    far = shapely.transform(pixels(0, 0, 5, 5), lambda xy: xy + 50_000)
    path = write(tmp_path / "zones.gpkg", [pixels(0, 0, 5, 5), far])
    with caplog.at_level(logging.WARNING):
        zonal_statistics(open_class_map(*mapped), path)
    assert caplog.messages == ["deliver.zones: 1 polygon of zones.gpkg lie outside map.tif"]
    only = write(tmp_path / "far.gpkg", [far])
    with pytest.raises(
        ValueError, match=r"none of the 1 polygon of .*far.gpkg touches map.tif; they lie within 550000"
    ):
        zonal_statistics(open_class_map(*mapped), only)


@pytest.mark.parametrize(
    ("geometry", "columns", "sentence"),
    [
        ([Point(WEST, NORTH)], {}, r"feature 0 of .* has a Point; Polygon or MultiPolygon was expected"),
        ([shapely.Polygon()], {}, r"feature 0 of .* has no geometry; Polygon or MultiPolygon was expected"),
        ([], {}, r"zones.gpkg has no features"),
        ([pixels(0, 0, 5, 5)], {"seen_share": [1]}, r"has columns that the statistics take, rename them: seen_share"),
    ],
)
def test_zones_that_are_none_are_refused(mapped, tmp_path, geometry, columns, sentence):
    path = write(tmp_path / "zones.gpkg", geometry, **columns)
    with pytest.raises(ValueError, match=rf"deliver.zones: .*{sentence}"):
        zonal_statistics(open_class_map(*mapped), path)


def test_files_that_hold_no_zones_are_refused(mapped, tmp_path):
    found = open_class_map(*mapped)
    (tmp_path / "zones.gpkg").write_text("no database")
    with pytest.raises(ValueError, match=r"deliver.zones: .*zones.gpkg cannot be read: it is no gpkg"):
        zonal_statistics(found, tmp_path / "zones.gpkg")
    (tmp_path / "zones.kml").write_text("<kml/>")
    with pytest.raises(ValueError, match=r"deliver.zones: .*zones.kml is none of .gpkg, .shp"):
        zonal_statistics(found, tmp_path / "zones.kml")


def test_points_are_counted_by_what_is_mapped_and_what_is_true(mapped, classes, tmp_path, caplog):
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 70, 60), rng.integers(0, 90, 60)
    points = [Point(WEST + 10 * c + 5, NORTH - 10 * r - 5) for r, c in zip(rows, columns, strict=True)]
    truth = rng.integers(0, 3, 60)
    path = write(tmp_path / "points.gpkg", points, **{"class": [NAMES[int(t)] for t in truth]})
    counts = reference_counts(open_class_map(*mapped), path, "class")
    known = classes[rows, columns] != 255
    for mapped_class in range(3):
        for true_class in range(3):
            here = (classes[rows, columns] == mapped_class) & (truth == true_class)
            assert counts[mapped_class, true_class] == here.sum()
    assert counts.sum() == known.sum() < 60
    assert f"{60 - known.sum()} points of points.gpkg lie where the map has no class" in caplog.text


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"class": ["town"]}, r"names 'town'; classes of the map are water, forest, field & meadow"),
        ({"kind": ["water"]}, r"has no property 'class', but kind; set class_property beside it"),
        ({}, r"no point of .*points.gpkg has a property: give every one its class as 'class'"),
    ],
)
def test_points_that_name_no_class_are_refused(mapped, tmp_path, columns, sentence):
    path = write(tmp_path / "points.gpkg", [Point(WEST + 5, NORTH - 5)], **columns)
    with pytest.raises(ValueError, match=sentence):
        reference_counts(open_class_map(*mapped), path, "class")


def test_points_beside_the_map_are_refused(mapped, tmp_path):
    path = write(tmp_path / "points.gpkg", [Point(WEST - 5, NORTH + 5)], **{"class": ["water"]})
    with pytest.raises(ValueError, match=r"none of the points of .*points.gpkg lies where map.tif has a class"):
        reference_counts(open_class_map(*mapped), path, "class")
