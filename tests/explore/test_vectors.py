"""Polygons of class maps: the whole map once, borders shared, the same however it is cut into strips."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import rasterize, shapes
from scipy import ndimage

from a2mae.explore import vectors
from a2mae.explore.vectors import regions, write_polygons
from a2mae.tasks.inference.read_map import class_pixels_m2, open_class_map

from .conftest import ORIGIN, UTM, patchy, write_map

STRUCTURE = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


def traced(found, **options):
    each = list(regions(found, **options))
    geometry, value, probability = (
        np.concatenate([getattr(batch, name) for batch in each]) for name in ("geometry", "value", "mean_probability")
    )
    return geometry, value, probability, np.concatenate([batch.area_m2 for batch in each])


@given(
    classes=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 255])),
    rows=st.integers(1, 10),
)
@settings(deadline=None, max_examples=40)
def test_law_every_region_is_one_polygon_and_the_strips_leave_no_trace(tmp_path_factory, classes, rows):
    found = open_class_map(*write_map(tmp_path_factory.mktemp("law"), classes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "_STRIP_ROWS", rows)
        geometry, value, _, _ = traced(found)
    expected = sum(ndimage.label(classes == number, STRUCTURE)[1] for number in (0, 1))
    assert len(geometry) == expected
    assert shapely.is_valid(geometry).all()
    assert shapely.coverage_is_valid(geometry)
    assert shapely.area(geometry).sum() == 100 * (classes != 255).sum()
    if expected:
        drawn = rasterize(zip(geometry, value, strict=True), classes.shape, 255, transform=found.affine, dtype="uint8")
        np.testing.assert_array_equal(drawn, classes)


@pytest.mark.parametrize("rows", [1, 7, 16, 1000])
def test_polygons_are_those_of_the_whole_raster(mapped, classes, rows, monkeypatch):
    monkeypatch.setattr(vectors, "_STRIP_ROWS", rows)
    found = open_class_map(*mapped)
    geometry, value, probability, _ = traced(found)
    whole = [
        (shapely.geometry.shape(outline), int(number))
        for outline, number in shapes(classes, mask=classes != 255, transform=found.affine)
    ]
    ours, theirs = (
        {(shapely.normalize(polygon.simplify(0)).wkb, int(number)) for polygon, number in some}
        for some in (zip(geometry, value, strict=True), whole)
    )
    assert ours == theirs
    np.testing.assert_allclose(probability, 0.8, atol=1e-6)


def test_a_region_has_the_mean_probability_of_its_pixels(tmp_path, classes, monkeypatch):
    monkeypatch.setattr(vectors, "_STRIP_ROWS", 11)
    counts = np.random.default_rng(3).integers(100, 251, classes.shape).astype(np.uint8)
    found = open_class_map(*write_map(tmp_path / "made", classes, counts))
    for polygon, value, probability, _ in zip(*traced(found), strict=True):
        inside = rasterize([polygon], classes.shape, transform=found.affine) == 1
        assert (classes[inside] == value).all()
        assert probability == pytest.approx(counts[inside].mean() / 250, abs=1e-5)


def test_without_confidence_the_probability_is_not_known(mapped):
    _, _, probability, _ = traced(open_class_map(mapped[0]))
    assert np.isnan(probability).all()


def test_less_than_the_smallest_mapping_unit_goes_to_a_neighbour(mapped, classes):
    found = open_class_map(*mapped)
    geometry, _, _, area = traced(found, smallest_m2=1000)
    alone = [polygon for polygon, m2 in zip(geometry, area, strict=True) if m2 < 990]
    touching = [(shapely.length(shapely.intersection(polygon, geometry)) > 0).sum() > 1 for polygon in alone]
    assert not any(touching), "only ground without any neighbour may be smaller"
    assert shapely.area(geometry).sum() == 100 * (classes != 255).sum()


@pytest.mark.parametrize("rows", [9, 1000])
def test_simplified_polygons_leave_no_gap_between_neighbours(mapped, monkeypatch, rows):
    monkeypatch.setattr(vectors, "_STRIP_ROWS", rows)
    found = open_class_map(*mapped)
    exact, _, _, _ = traced(found, smallest_m2=1000)
    simple, _, _, area = traced(found, smallest_m2=1000, simplify_m=30)
    assert shapely.coverage_is_valid(simple)
    assert shapely.get_num_coordinates(simple).sum() < shapely.get_num_coordinates(exact).sum() * 0.7
    assert shapely.union_all(simple).area == pytest.approx(shapely.area(simple).sum())
    assert area.sum() == pytest.approx(shapely.area(simple).sum(), rel=1e-3)


def test_both_files_hold_the_polygons_and_are_the_same_bytes_each_time(mapped, classes, tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "_WRITTEN_AT_ONCE", 100)
    found = open_class_map(*mapped)
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        package, parquet = tmp_path / name / "polygons.gpkg", tmp_path / name / "polygons.parquet"
        count = write_polygons(found, package, parquet, layer="segment")
        contents.append((package.read_bytes(), parquet.read_bytes()))
    assert contents[0] == contents[1]
    one, other = gpd.read_file(package, layer="segment"), gpd.read_parquet(parquet)
    assert len(one) == len(other) == count > 100
    assert pyogrio.read_info(package)["crs"] == UTM and other.crs == UTM
    for frame in (one, other):
        assert set(frame["class"]) == {"water", "forest", "field & meadow"}
        np.testing.assert_allclose(frame["area_ha"] * 10_000, frame["area_m2"])
    assert one.geometry.geom_equals(other.geometry).all()
    assert one["area_m2"].sum() == pytest.approx(sum(class_pixels_m2(found)[1].values()), rel=1e-6)


def test_areas_are_those_of_the_ground_also_where_a_projection_stretches(tmp_path, classes):
    """Web Mercator's metres are not those of the ground."""
    small = open_class_map(*write_map(tmp_path / "made", classes, crs="EPSG:3857", pixel=10.0))
    _, _, _, area = traced(small)
    lat = 2 * np.arctan(np.exp(ORIGIN[1] / 6378137)) - np.pi / 2
    scale = np.cos(lat) ** 2  # of a sphere; the ellipsoid differs by less than a percent
    assert area.sum() == pytest.approx((classes != 255).sum() * 100 * scale, rel=0.01)


def test_a_map_of_nothing_gives_files_without_features(tmp_path):
    found = open_class_map(*write_map(tmp_path / "made", np.full((20, 30), 255, np.uint8)))
    package, parquet = tmp_path / "polygons.gpkg", tmp_path / "polygons.parquet"
    assert write_polygons(found, package, parquet, layer="segment") == 0
    assert len(gpd.read_file(package)) == len(gpd.read_parquet(parquet)) == 0


def test_a_raster_without_classes_is_refused(tmp_path):
    _, confidence = write_map(tmp_path, patchy((20, 20)))
    with pytest.raises(ValueError, match=r"confidence.tif is no class map: a georeferenced uint8 raster"):
        open_class_map(confidence)
    other, _ = write_map(tmp_path / "other", patchy((20, 21)))
    with pytest.raises(ValueError, match=r"confidence.tif is not of the grid of .*: draw the map again"):
        open_class_map(other, confidence)
