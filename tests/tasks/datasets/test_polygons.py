"""Polygon labels in every format and CRS: drawn where they lie, repaired or named, rejected where they are wrong."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from a2mae.errors import InputError
from a2mae.tasks.datasets.archive_labels import read_days
from a2mae.tasks.datasets.polygons import FolderLabels, draw_polygons
from a2mae.tasks.datasets.scene_folders import mask_folder
from a2mae.tasks.datasets.task_data import IGNORE, TaskData, TaskDataError
from a2mae.tasks.datasets.vector_files import VECTOR_SUFFIXES, read_features
from a2mae.tasks.datasets.writer import write_source
from helpers.labelled_scenes import CLASSES, LABELS, S2, SPLITS, UTM, corner, save, write_scenes

GRID = GeoBox((48, 40), Affine(10, 0, corner(0)[0], 0, -10, corner(0)[1]), UTM)
GROUND = FolderLabels(CLASSES, outside="ground")


def field(rows: tuple[int, int], columns: tuple[int, int], number: int = 0) -> BaseGeometry:
    """The pixels of a scene from one row and column to another."""
    left, top = corner(number)
    return shapely.box(left + 10 * columns[0], top - 10 * rows[1], left + 10 * columns[1], top - 10 * rows[0])


def frame(*shapes: tuple[object, BaseGeometry | None]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"class": [name for name, _ in shapes]}, geometry=[shape for _, shape in shapes], crs=UTM)


def write(path: Path, features: gpd.GeoDataFrame, crs: str = UTM) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = features.to_crs(crs)
    if path.suffix in (".parquet", ".geoparquet"):
        features.to_parquet(path)
    else:
        features.to_file(path, driver="GeoJSON" if path.suffix == ".json" else None)
    return path


def drawn(path: Path, labels: FolderLabels = GROUND) -> tuple[np.ndarray, dict[str, list[str]]]:
    """The classes, and what was told of features."""
    told: dict[str, list[str]] = {}
    return draw_polygons(path, GRID, labels, lambda what, where: told.setdefault(what, []).append(where)), told


def expected(background: int = 0) -> np.ndarray:
    target = np.full((48, 40), background, np.uint8)
    target[8:24, 4:12] = 1
    target[20:30, 8:20] = 2  # the later one lies on top
    return target


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3035"])
@pytest.mark.parametrize("suffix", VECTOR_SUFFIXES)
def test_every_format_in_any_crs_is_drawn_where_it_lies(tmp_path: Path, suffix: str, crs: str) -> None:
    features = frame(("roof", field((8, 24), (4, 12))), ("water", field((20, 30), (8, 20))))
    target, told = drawn(write(tmp_path / f"labels{suffix}", features, crs))
    np.testing.assert_array_equal(target, expected())
    assert not told
    target, _ = drawn(tmp_path / f"labels{suffix}", LABELS)
    np.testing.assert_array_equal(target, expected(IGNORE))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Five scenes with a roof and some water each, as polygons."""
    folder = write_scenes(tmp_path / "own")
    for number, split in enumerate(SPLITS):
        (folder / split / "masks" / f"s{number}.tif").unlink()
        if not any((folder / split / "masks").iterdir()):
            (folder / split / "masks").rmdir()
        features = frame(("roof", field((8, 24), (4, 12), number)), ("water", field((40, 44), (0, 40), number)))
        write(folder / split / "labels" / f"s{number}.gpkg", features)
    return folder


def written(folder: Path, path: Path, labels: FolderLabels) -> TaskData:
    write_source(path / "data", mask_folder(folder, S2, labels, chip_px=24))
    return TaskData(path / "data")


def test_ground_outside_is_unknown_and_its_share_is_told(scenes: Path, tmp_path: Path, caplog) -> None:
    with caplog.at_level("WARNING"):
        data = written(scenes, tmp_path, LABELS)
    targets = data.read_targets(np.arange(len(data.samples)))
    assert set(np.unique(targets)) == {1, 2, IGNORE}
    # four chips of a scene, the upper right one without a label; 16 x 8 + 4 x 40 of 48 x 40 pixels are known
    assert len(data.samples) == 15
    share = 1 - (16 * 8 + 4 * 40 + 4 * 8) / (4 * 24 * 24)  # the right chips overlap the left ones by 8 columns
    told = f"{share:.1%} of the pixels that were seen are unknown: neither trained on nor scored"
    assert told in data.spec.notes
    assert f"own: {told}" in caplog.messages
    assert "ground in no polygon: unknown (segment.data.outside)" in data.spec.notes
    assert any(note.startswith("chips without a label, left out: 5: train/s0-0-16, ") for note in data.spec.notes)
    assert "no training label of: ground" in data.spec.notes


def test_ground_outside_has_the_class_that_is_stated(scenes: Path, tmp_path: Path) -> None:
    data = written(scenes, tmp_path, GROUND)
    assert len(data.samples) == 20
    test = data.samples["sample_id"].tolist().index("test/s4-0-0")
    roof = np.zeros((24, 24), np.uint8)
    roof[8:24, 4:12] = 1
    np.testing.assert_array_equal(data.read_targets(np.array([test]))[0], roof)
    assert not any("unknown" in note for note in data.spec.notes)


def test_labels_of_one_class_alone_are_rejected(scenes: Path, tmp_path: Path) -> None:
    for number, split in enumerate(SPLITS):
        write(scenes / split / "labels" / f"s{number}.gpkg", frame(("roof", field((8, 24), (4, 12), number))))
    with pytest.raises(TaskDataError, match=r"training labels of 'own' are all 'roof'.*polygons, segment\.data\.out"):
        written(scenes, tmp_path, LABELS)


def test_a_class_unknown_to_the_folder_and_an_image_without_a_place_are_rejected(scenes: Path) -> None:
    other = FolderLabels(CLASSES, "kind")
    with pytest.raises(TaskDataError, match=r"feature 0 has no property 'kind', but class; set segment\.data\.class"):
        list(mask_folder(scenes, S2, other, chip_px=24).samples())
    strange = frame(("roof", field((8, 24), (4, 12))), ("rooof", field((8, 24), (4, 12))))
    write(scenes / "train" / "labels" / "s0.gpkg", strange)
    with pytest.raises(TaskDataError, match=r"s0\.gpkg: feature 1 has class 'rooof'; classes are ground, roof, water"):
        list(mask_folder(scenes, S2, LABELS, chip_px=24).samples())
    save(scenes / "train" / "images" / "s0.tif", np.full((3, 48, 40), 3000, np.uint16))
    with pytest.raises(TaskDataError, match=r"s0\.gpkg: its image has no CRS"):
        list(mask_folder(scenes, S2, LABELS, chip_px=24).samples())


def test_two_files_of_one_name_and_other_endings_are_told(scenes: Path) -> None:
    write(scenes / "train" / "labels" / "s0.shp", frame(("roof", field((8, 24), (4, 12)))))
    with pytest.raises(TaskDataError, match=r"s0\.gpkg and s0\.shp are files of one name: keep one"):
        mask_folder(scenes, S2, LABELS, chip_px=24)
    (scenes / "train" / "labels" / "s0.shp").unlink()
    (scenes / "train" / "labels" / "s0.gpkg").rename(scenes / "train" / "labels" / "s0.kml")
    with pytest.raises(TaskDataError, match=r"missing: s0 \(labels\)\. Endings .* labels/ \.gpkg \.shp \.parquet"):
        mask_folder(scenes, S2, LABELS, chip_px=24)


def test_what_is_torn_is_skipped_and_counted(scenes: Path) -> None:
    (scenes / "train" / "labels" / "s0.gpkg").write_bytes(b"no package")
    pd.DataFrame({"class": ["roof"]}).to_parquet(scenes / "train" / "labels" / "s1.parquet")
    (scenes / "train" / "labels" / "s1.gpkg").unlink()
    with pytest.raises(TaskDataError, match=r"2 of 5 files in own cannot be .*s0\.tif: .*s1\.tif: Missing geo"):
        list(mask_folder(scenes, S2, LABELS, chip_px=24).samples())


def test_invalid_geometry_is_repaired_or_left_out_and_named(tmp_path: Path) -> None:
    left, top = corner(0)
    bowtie = shapely.Polygon([(left, top), (left + 200, top - 200), (left + 200, top), (left, top - 200)])
    line = shapely.Polygon([(left, top), (left + 100, top), (left + 200, top)])
    features = frame(("roof", bowtie), ("water", None), ("water", line), ("water", field((40, 44), (0, 40))))
    for suffix in (".gpkg", ".geojson", ".parquet"):
        target, told = drawn(write(tmp_path / f"a{suffix}", features))
        assert told == {
            "geometries repaired": [f"a{suffix} feature 0"],
            "features without an area, left out": [f"a{suffix} feature 1", f"a{suffix} feature 2"],
        }
        assert (target == 1).sum() == pytest.approx(200, abs=20) and (target[40:44] == 2).all()
        assert target[2, 10] == 0 and target[10, 1] == 1  # two triangles, whose tips meet


def test_points_and_lines_are_rejected_or_widened(tmp_path: Path) -> None:
    left, top = corner(0)
    spot, road = shapely.Point(left + 105, top - 105), shapely.LineString([(left, top - 300), (left + 400, top - 300)])
    features = frame(("roof", spot), ("water", road))
    for crs in (UTM, "EPSG:4326"):
        path = write(tmp_path / "a.geojson", features, crs)
        with pytest.raises(TaskDataError, match=r"feature 0 is a Point, which has no area: .*segment\.data\.buffer_m"):
            drawn(path)
        target, told = drawn(path, FolderLabels(CLASSES, outside="ground", buffer_m=30))
        assert not told
        assert (target == 1).sum() == pytest.approx(np.pi * 3**2, abs=3) and target[10, 13] == 1 and target[10, 14] == 0
        assert (target[27:33] == 2).all() and not (target[[26, 33]] == 2).any()
    mixed = shapely.GeometryCollection([spot, field((1, 2), (1, 2))])
    with pytest.raises(TaskDataError, match="feature 0 is a GeometryCollection: labels are polygons, points or lines"):
        drawn(write(tmp_path / "b.geojson", frame(("roof", mixed))))


def test_polygons_beside_their_image_are_rejected_and_an_empty_file_is_an_image_without_any(tmp_path: Path) -> None:
    beside = frame(("roof", field((8, 24), (44, 60))), ("roof", field((8, 24), (0, 9), number=1)))
    with pytest.raises(TaskDataError, match=r"none of its 2 features touches its image.*a file without") as told:
        drawn(write(tmp_path / "a.gpkg", beside, "EPSG:4326"))
    assert "exchanged" not in str(told.value)
    target, _ = drawn(write(tmp_path / "empty.gpkg", beside[:0]))
    assert (target == 0).all()


def test_features_that_reach_further_than_the_images_crs(tmp_path: Path) -> None:
    world, antipode = shapely.box(-179, -80, 179, 80), shapely.box(-170, -50, -160, -40)
    features = gpd.GeoDataFrame({"class": ["water", "roof"]}, geometry=[world, antipode], crs="EPSG:4326")
    features.to_file(tmp_path / "a.gpkg")
    assert (drawn(tmp_path / "a.gpkg")[0] == 2).all()
    features = features.to_crs("EPSG:4326").iloc[1:]
    features.to_file(tmp_path / "b.gpkg")
    with pytest.raises(TaskDataError, match=r"none of its 1 features touches its image"):
        drawn(tmp_path / "b.gpkg")
    far = gpd.GeoDataFrame({"class": ["roof"]}, geometry=[shapely.box(5e5, 5e6, 5.1e5, 5.1e6)], crs="EPSG:2193")
    far.to_file(tmp_path / "c.gpkg")  # New Zealand's, in which the image has no place
    with pytest.raises(TaskDataError, match=r"none of its 1 features touches its image"):
        drawn(tmp_path / "c.gpkg")


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_swapped_axes_are_recognised(tmp_path: Path, crs: str) -> None:
    features = frame(("roof", field((8, 24), (4, 12)))).to_crs(crs)
    features = features.set_geometry(shapely.transform(features.geometry.array, lambda xy: xy[:, ::-1]), crs=crs)
    features.to_file(tmp_path / "a.geojson")
    with pytest.raises(TaskDataError, match=r"none of its 1 features touches.*With x and y exchanged they would"):
        drawn(tmp_path / "a.geojson")


def geojson(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_geojson_of_any_shape_is_read_or_named(tmp_path: Path) -> None:
    shape = frame(("roof", field((8, 24), (4, 12)))).to_crs("EPSG:4326").geometry.iloc[0].__geo_interface__
    feature = {"type": "Feature", "properties": {"class": "roof"}, "geometry": shape}
    collection = {"type": "FeatureCollection", "features": [feature]}
    whole, _ = drawn(geojson(tmp_path / "a.geojson", collection))
    assert (whole == 1).sum() == 16 * 8
    for document in (feature, collection | {"crs": None}):  # a feature alone; "no CRS" before RFC 7946
        np.testing.assert_array_equal(drawn(geojson(tmp_path / "a.geojson", document))[0], whole)
    with pytest.raises(TaskDataError, match=r"no feature has a property, as in .* a bare geometry: write .* 'class'$"):
        drawn(geojson(tmp_path / "a.geojson", shape))
    nobody = {"type": "Feature", "properties": None, "geometry": shape}
    with pytest.raises(TaskDataError, match=r"feature 1 has no 'class': give every feature its class"):
        drawn(geojson(tmp_path / "a.geojson", collection | {"features": [feature, nobody]}))
    with pytest.raises(OSError, match="not recognized"):
        drawn(geojson(tmp_path / "a.geojson", {"hello": 1}))


def test_polygons_in_metres_that_are_called_degrees_are_rejected(tmp_path: Path) -> None:
    shape = field((8, 24), (4, 12)).__geo_interface__
    feature = {"type": "Feature", "properties": {"class": "roof"}, "geometry": shape}
    with pytest.raises(TaskDataError, match=r"feature 0 lies at 500040, 5\.19976e\+06, which are no degrees"):
        drawn(geojson(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": [feature]}))


def test_the_coordinate_that_is_no_degree_is_named(tmp_path: Path) -> None:
    shape = {"type": "Polygon", "coordinates": [[[13.5, 53.2], [500, 53.2], [13.5, 53.3], [13.5, 53.2]]]}
    feature = {"type": "Feature", "properties": {"class": "roof"}, "geometry": shape}
    with pytest.raises(TaskDataError, match=r"feature 0 lies at 500, 53\.3, which are no degrees"):
        drawn(geojson(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": [feature]}))


def test_days_in_geojson_come_as_they_are_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = ["01/06/23", "2023/06/01", "10000-01-01", "2023-06-01T12:00:00+02:00"]
    for one in said:  # alone: GDAL finds one type for a column
        feature = {"type": "Feature", "properties": {"start": one}, "geometry": None}
        path = geojson(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": [feature]})
        assert read_features(path)["start"].tolist() == [one]
    read_features(write(tmp_path / "a.gpkg", frame(("roof", field((8, 24), (4, 12))))))
    assert not caplog.records


def rewritten(path: Path, value: object, column: str = "DATETIME") -> Path:
    """A GeoPackage whose only day is what no program writes."""
    write(path, frame(("roof", field((8, 24), (4, 12)))).assign(day=pd.Timestamp("2023-06-01")))
    with closing(sqlite3.connect(path)) as file:
        for name in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
            file.create_function(name, 1, lambda _: 0)
        file.execute("update a set day = ?", (value,))
        file.execute("pragma writable_schema = 1")
        file.execute(f"update sqlite_master set sql = replace(sql, 'DATETIME', '{column}') where name = 'a'")
        file.commit()
    return path


@pytest.mark.parametrize("column", ["DATE", "DATETIME"])
@pytest.mark.parametrize("value", ["10000-01-01", "2022-02-31", "rubbish", 20220301, -1, 1e9])
def test_a_day_that_no_calendar_has_is_refused(tmp_path: Path, value: object, column: str) -> None:
    """GDAL left out what it could not read, and the label held from the beginning."""
    path = rewritten(tmp_path / "a.gpkg", value, column)
    said = "a date in it is none of the years 1 to 9999|a value is not of its column's type|feature 0: day is"
    with pytest.raises((OSError, TaskDataError), match=said):
        read_days(path, read_features(path), "day")


@pytest.mark.parametrize("value", [None, ""])
def test_no_day_is_none(tmp_path: Path, value: object) -> None:
    path = rewritten(tmp_path / "a.gpkg", value)
    assert np.isnat(read_days(path, read_features(path), "day")).all()


@pytest.mark.parametrize(("part", "rest"), [("a.shp", 150), ("a.shp", 20), ("a.dbf", 40), ("a.dbf", -20)])
def test_a_cut_shapefile_is_refused(tmp_path: Path, part: str, rest: int) -> None:
    write(tmp_path / "a.shp", frame(("roof", field((8, 24), (4, 12)))))
    whole = (tmp_path / part).read_bytes()
    (tmp_path / part).write_bytes(whole[:rest])
    stated = len(whole) - (part == "a.dbf")  # after its rows stands an end-of-file byte
    told = rf"{part} is cut: it holds {len(whole[:rest])} bytes, expected {32 if rest == 20 else stated}; copy it again"
    with pytest.raises(OSError, match=told):
        drawn(tmp_path / "a.shp")


def test_a_shapefile_without_its_table_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.shp", frame(("roof", field((8, 24), (4, 12)))))
    (tmp_path / "a.dbf").unlink()
    with pytest.raises(TaskDataError, match=r"in a file without its table: copy the \.dbf beside it, and give every"):
        drawn(tmp_path / "a.shp")


def test_numbers_name_classes_too(tmp_path: Path) -> None:
    labels = FolderLabels(("0", "1", "2"), outside="0")
    for values in ((1, 2), (1.0, 2.0), ("1", "2")):
        features = frame(*zip(values, (field((8, 24), (4, 12)), field((20, 30), (8, 20))), strict=True))
        np.testing.assert_array_equal(drawn(write(tmp_path / "a.gpkg", features), labels)[0], expected())


def test_a_file_says_where_its_coordinates_lie_and_has_one_layer(tmp_path: Path) -> None:
    features = frame(("roof", field((8, 24), (4, 12))))
    write(tmp_path / "a.shp", features)
    (tmp_path / "a.prj").unlink()
    with pytest.raises(TaskDataError, match=r"a\.shp has no CRS: write it with the one"):
        drawn(tmp_path / "a.shp")
    for layer in ("fields", "roads"):
        features.to_file(tmp_path / "a.gpkg", layer=layer)
    with pytest.raises(TaskDataError, match=r"a\.gpkg holds the layers fields, roads, .* a file of its own"):
        drawn(tmp_path / "a.gpkg")


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp"])
def test_a_file_that_names_another_is_not_followed(tmp_path: Path, suffix: str) -> None:
    """GDAL takes a VRT of layers by its content, whatever its name, and opens the files and addresses in it."""
    secret = write(tmp_path / "secret.geojson", frame(("roof", field((8, 24), (4, 12)))))
    layer = f'<OGRVRTLayer name="secret"><SrcDataSource>{secret}</SrcDataSource></OGRVRTLayer>'
    (tmp_path / f"a{suffix}").write_text(f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>")
    with pytest.raises(OSError, match=f"it is no {suffix[1:]}: it begins with b'<OGRVRT"):
        drawn(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("kind", ["tangle", "star", "line", "there_and_back"])
def test_a_feature_that_crosses_itself_a_million_times_is_rejected_at_once(tmp_path: Path, kind: str) -> None:
    """To repair 2,500 corners of a tangle takes GEOS a minute, to widen such a line two, a line on itself longer."""
    left, top = corner(0)
    xy = np.random.default_rng(0).uniform(0, 400, (2_500, 2))
    if kind == "star":
        turns = np.arange(2_500) * 1_249 * 2 * np.pi / 2_500
        xy = 200 + 190 * np.column_stack([np.cos(turns), np.sin(turns)])
    elif kind == "there_and_back":
        xy[:, 1] = 100
    area = kind in ("tangle", "star")
    shape = (shapely.Polygon if area else shapely.LineString)(xy + np.array([left, top - 400]))
    path = write(tmp_path / "labels.gpkg", frame(("roof", shape)))
    started = time.monotonic()
    with pytest.raises(TaskDataError, match=r"labels\.gpkg: feature 0 crosses or touches itself more than 20,000"):
        drawn(path, replace(GROUND, buffer_m=5))
    assert time.monotonic() - started < 10


def test_an_outline_of_many_corners_that_touches_itself_is_repaired(tmp_path: Path) -> None:
    left, top = corner(0)
    turns = np.linspace(0, 2 * np.pi, 20_000)
    east = np.array([60, 0])
    round_about = np.column_stack([np.cos(turns), np.sin(turns)]) * 60
    eight = np.concatenate([round_about + east, -round_about - east]) + np.array([left + 200, top - 240])
    target, told = drawn(write(tmp_path / "labels.gpkg", frame(("roof", shapely.Polygon(eight)))))
    assert told == {"geometries repaired": ["labels.gpkg feature 0"]}
    assert (target == 1).sum() == pytest.approx(2 * np.pi * 36, rel=0.05)


@pytest.mark.parametrize("kind", ["zigzag", "points"])
def test_what_lies_side_by_side_is_widened_within_seconds(tmp_path: Path, kind: str) -> None:
    """GEOS takes minutes to widen it as a whole: every piece of the outline crosses hundreds of others."""
    left, top = corner(0)
    count = 4_000 if kind == "zigzag" else 10_000
    xy = np.column_stack([np.arange(count) % 2 * 140.0, np.arange(count) * 0.02]) + np.array([left + 50, top - 300])
    shape = shapely.LineString(xy)
    if kind == "points":
        xy = np.random.default_rng(0).uniform(0, 400, (count, 2)) + np.array([left, top - 400])
        shape = shapely.MultiPoint(xy)
    path = write(tmp_path / "labels.gpkg", frame(("roof", shape)))
    started = time.monotonic()
    target, _ = drawn(path, replace(GROUND, buffer_m=20))
    assert time.monotonic() - started < 20
    assert (target == 1).mean() > 0.1
    if kind == "zigzag":
        assert (target[22:30, 7:17] == 1).all()
        assert (target == 1).sum() == pytest.approx(1.8 * 1.2 * 100, rel=0.1)


MOON = (
    'GEOGCRS["Moon (2015) - Sphere / Ocentric",DATUM["Moon (2015) - Sphere",ELLIPSOID["Moon",1737400,0]],'
    'CS[ellipsoidal,2],AXIS["latitude",north],AXIS["longitude",east],ANGLEUNIT["degree",0.0174532925199433]]'
)
LOCAL = 'LOCAL_CS["mine",UNIT["metre",1]]'


@pytest.mark.parametrize("crs", [MOON, LOCAL])
@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_a_crs_of_no_place_on_earth_is_named(tmp_path: Path, suffix: str, crs: str) -> None:
    features = frame(("roof", field((8, 24), (4, 12)))).set_crs(crs, allow_override=True)
    path = tmp_path / f"a{suffix}"
    features.to_parquet(path) if suffix == ".parquet" else features.to_file(path)
    with pytest.raises(TaskDataError, match=rf"a\{suffix} has the CRS '.*', from which no way leads to longitude"):
        drawn(path)


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".geojson"])
@pytest.mark.parametrize("value", [np.inf, -1e308])
def test_a_coordinate_beyond_all_ground_names_its_feature(tmp_path: Path, suffix: str, value: float) -> None:
    left, top = corner(0)
    wrong = shapely.Polygon([(left, top), (left + 200, top), (left + 200, value), (left + 100, top - 300)])
    features, path = frame(("roof", field((8, 24), (4, 12))), ("water", wrong)), tmp_path / f"a{suffix}"
    if suffix == ".geojson":
        path.write_text(features.to_json())  # Infinity, as JSON does not know it and GDAL reads it
    elif suffix == ".gpkg":
        features.to_file(path)
    else:
        features.to_parquet(path)
    with pytest.raises(TaskDataError, match=rf"a\{suffix}: feature 1 has the coordinate -?(inf|1e\+308), and no grou"):
        drawn(path)


@pytest.mark.parametrize("ending", [".shx", ".dbf", ".prj", ".cpg", ".DBF"])
def test_a_pipe_beside_a_shapefile_is_not_waited_for(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "a.shp", frame(("roof", field((8, 24), (4, 12)))))
    (tmp_path / f"a{ending.lower()}").unlink(missing_ok=True)
    os.mkfifo(tmp_path / f"a{ending}")
    with pytest.raises(
        InputError, match=rf"a\{ending} is read along with a\.shp, and it is no regular file but a pipe"
    ):
        drawn(tmp_path / "a.shp")


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize(
    "values", [pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int64())), pa.array([{"a": 1}] * 2),
               pa.array([["a", "b"]] * 2)]
)  # fmt: skip
def test_a_column_of_lists_structs_or_maps_names_no_class(tmp_path: Path, values: pa.Array, stated: bool) -> None:
    path = write(tmp_path / "a.parquet", frame(("roof", field((8, 24), (4, 12))), ("roof", field((30, 34), (4, 12)))))
    table = pq.read_table(path)
    told = dict(table.schema.metadata)
    if not stated:  # as programs write it that know nothing of pandas
        told.pop(b"pandas")
    table = pa.table({"class": values, "geometry": table["geometry"]}).replace_schema_metadata(told)
    pq.write_table(table, path)
    with pytest.raises(
        TaskDataError, match=r"a\.parquet: .*'class'.* (holds lists, structs or maps|no text or number)"
    ):
        drawn(path)


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    feature = {"type": "Feature", "properties": {"class": "roof"}, "geometry": None}
    path = geojson(tmp_path / os.fsdecode(b"s\xff.geojson"), feature)
    with pytest.raises(InputError, match=r"s\\udcff\.geojson' has bytes in its name that are no UTF-8: rename it"):
        drawn(path)
