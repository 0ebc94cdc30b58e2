"""Labels of one's own on the image sets: laid where they lie, in their time; what no sample has is named."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import Resampling, reproject

from a2mae.errors import InputError
from a2mae.simulate.run import write_tiny_world
from a2mae.tasks.datasets.archive_labels import read_days, read_points
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.task_data import IGNORE, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.recognise.look import look_at
from a2mae.tasks.recognise.overlap import by_split
from helpers.built_world import build_world

UTM = "EPSG:32633"
BEFORE, AFTER = "2020-06-01", "2023-12-31"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Four locations with an image before and one after the changes."""
    root = tmp_path_factory.mktemp("world")
    write_tiny_world(root / "simulated", seed=5)
    return build_world(root / "simulated", root / "store.zarr")[0], root / "simulated"


def boxes(tables):
    """Left, bottom, right, top of each location, metres."""
    return [(p.x_m, p.y_m - p.footprint_m, p.x_m + p.footprint_m, p.y_m) for p in tables.locations.itertuples()]


def field(box, *, at=(0.25, 0.25), side=400):
    """A square in a location."""
    x, y = box[0] + at[0] * (box[2] - box[0]), box[1] + at[1] * (box[3] - box[1])
    return shapely.box(x, y, x + side, y + side)


@pytest.fixture
def fields(world):
    """A meadow and a wood in every location."""
    rows = [
        (name, field(box, at=at))
        for box in boxes(world[0])
        for name, at in (("meadow", (0.1, 0.1)), ("wood", (0.5, 0.5)))
    ]
    return gpd.GeoDataFrame({"class": [name for name, _ in rows]}, geometry=[shape for _, shape in rows], crs=UTM)


def asked(path, task="segment", archive=(), head=None, **data):
    options = {"task": task, "head": head or {"classify": "mean"}.get(task, "linear")}
    cut = {"chip_px": 64, "min_valid": 0.3, **dict(archive)}
    return TaskParameters.model_validate({**options, "data": {"labels": str(path), "archive": cut, **data}})


def read(options, world, folder):
    source = prepare(options, world[0], None)
    write_source(folder / "data", source)
    return TaskData(folder / "data")


def saved(frame, path):
    frame.to_file(path) if path.suffix != ".parquet" else frame.to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("name", "crs"), [("a.gpkg", UTM), ("a.shp", "EPSG:3857"), ("a.geojson", "EPSG:4326"), ("a.parquet", 4326)]
)
def test_polygons_of_any_kind_are_labels_where_they_lie(world, fields, tmp_path, name, crs):
    data = read(asked(saved(fields.to_crs(crs), tmp_path / name)), world, tmp_path)
    assert data.spec.class_names == ("meadow", "wood") and data.spec.source == name
    table = data.samples
    assert set(table["split"]) == {"train", "test"} and table.groupby("place")["split"].nunique().max() == 1
    assert table["place"].nunique() == 4 and table["day"].nunique() == 2, "every date of every location"
    targets, valid = data.read_targets(np.arange(len(table))), data.read(np.arange(len(table))).valid[:, 0]
    assert (targets[~valid] == IGNORE).all() and set(np.unique(targets)) == {0, 1, IGNORE}
    # The wood begins 96 pixels from the west and ends 96 from the north; this window begins at 64 and is of 64.
    whole = table[table["sample_id"].str.endswith("-64-64") & (table["day"] == table["day"].max())]
    shown = np.flatnonzero(np.isin(np.arange(len(table)), whole.index))
    for target, seen in zip(targets[shown], valid[shown], strict=True):
        wanted = np.zeros((64, 64), bool)
        wanted[: 96 - 64, 96 - 64 :] = True
        agree = (target == 1) == (wanted & seen)
        assert agree.mean() > 0.97, "on the pixel, whatever the CRS of the file"
    assert any(note.startswith(f"labels of {name} on images of sentinel-2-l2a") for note in data.spec.notes)


def test_a_stated_class_for_the_ground_outside(world, fields, tmp_path):
    path = saved(fields[fields["class"] == "wood"], tmp_path / "woods.gpkg")
    data = read(asked(path, class_names=["open", "wood"], outside="open"), world, tmp_path)
    targets = data.read_targets(np.arange(len(data.samples)))
    valid = data.read(np.arange(len(data.samples))).valid[:, 0]
    np.testing.assert_array_equal(targets != IGNORE, valid)
    assert (targets == 0).sum() > 5 * (targets == 1).sum() > 0


def table_of(world, tmp_path, **columns):
    """Points in the middle of every location, and one 200 m east of each."""
    places = [(box[0] + 960 + 200 * east, box[1] + 960) for box in boxes(world[0]) for east in (0, 1)]
    points = gpd.GeoSeries(gpd.points_from_xy(*zip(*places, strict=True)), crs=UTM).to_crs(4326)
    frame = pd.DataFrame({"lon": points.x, "lat": points.y, **columns})
    frame.to_csv(tmp_path / "plots.csv", index=False)
    return tmp_path / "plots.csv"


def test_points_with_values_are_their_own_pixels(world, tmp_path):
    path = table_of(world, tmp_path, biomass=[10.0, 20, 30, 40, 50, 60, 70, 80])
    data = read(asked(path, "estimate", value_property="biomass", units="t/ha"), world, tmp_path)
    targets = data.read_targets(np.arange(len(data.samples)))
    known = np.isfinite(targets)
    assert str(data.spec.quantity) == "biomass, t/ha"
    assert known.sum(axis=(1, 2)).max() <= 2 and set(targets[known]) <= {10.0, 20, 30, 40, 50, 60, 70, 80}
    wide = read(asked(path, "estimate", value_property="biomass", buffer_m=50), world, tmp_path)
    assert np.isfinite(wide.read_targets(np.arange(len(wide.samples)))).sum() > 50 * known.sum()


@pytest.mark.parametrize(("task", "head"), [("estimate", "mean"), ("classify", "mean")])
def test_a_point_is_the_label_of_the_image_around_it(world, tmp_path, task, head):
    labels = {"class": ["a", "b"] * 4} if task == "classify" else {"value": np.arange(8) * 1.5}
    data = read(asked(table_of(world, tmp_path, **labels), task, {"chip_px": 32}, head), world, tmp_path)
    assert data.image_shape[-2:] == (32, 32) and not data.spec.per_pixel
    targets = data.read_targets(np.arange(len(data.samples)))
    assert targets.shape == (len(data.samples),) and len(data.samples) >= 10
    assert len(np.unique(targets)) == (2 if task == "classify" else len(np.unique(targets)))
    # the window is centred on the point: 16 pixels on each side
    assert (
        data.samples["sample_id"].str.contains("-80-80").any()
        and data.samples["sample_id"].str.contains("-80-100").any()
    )


def raster_of(world, path, crs, values):
    """A raster over all locations; `values` of easting and northing in metres."""
    all_boxes = np.array(boxes(world[0]))
    (west, south), (east, north) = all_boxes[:, :2].min(axis=0), all_boxes[:, 2:].max(axis=0)
    shape = (round((north - south) / 10), round((east - west) / 10))
    x = west + 10 * (np.arange(shape[1]) + 0.5)
    y = north - 10 * (np.arange(shape[0]) + 0.5)
    numbers = values(*np.meshgrid(x, y))
    source = GeoBox(shape, Affine(10, 0, west, 0, -10, north), UTM)
    grid = source.to_crs(crs) if crs != UTM else source
    out = np.full(grid.shape, np.nan if numbers.dtype.kind == "f" else 255, numbers.dtype)
    reproject(
        numbers, out, src_transform=source.affine, src_crs=UTM, dst_transform=grid.affine, dst_crs=crs,
        dst_nodata=out.flat[0], resampling=Resampling.nearest,
    )  # fmt: skip
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=out.shape[0], width=out.shape[1], dtype=out.dtype, crs=crs,
        transform=grid.affine, nodata=float(out.flat[0]) if out.dtype.kind == "f" else 255,
    ) as target:  # fmt: skip
        target.write(out, 1)
    return path


def test_a_raster_of_classes_in_another_crs(world, tmp_path):
    path = raster_of(world, tmp_path / "map.tif", "EPSG:32632", lambda x, y: ((x // 500) % 2).astype(np.uint8) * 10)
    data = read(asked(path, class_names=["even", "odd"], class_values=[0, 10]), world, tmp_path)
    targets = data.read_targets(np.arange(len(data.samples)))
    assert set(np.unique(targets)) == {0, 1, IGNORE} and 0.3 < (targets[targets != IGNORE] == 1).mean() < 0.7
    place = world[0].locations.set_index("location_id")["x_m"]
    for row, target in zip(data.samples.itertuples(), targets, strict=True):
        column = int(row.sample_id.rsplit("-", 1)[1])
        odd = ((place[row.place] + 10 * (column + np.arange(64) + 0.5)) // 500) % 2
        known = target != IGNORE
        assert (target == np.broadcast_to(odd, target.shape))[known].mean() > 0.93
    with pytest.raises(TaskDataError, match=r"map\.tif: labels 10 are outside the 2 values 0 even, 1 odd"):
        prepare(asked(path, class_names=["even", "odd"]), world[0], None)
    with pytest.raises(TaskDataError, match=r"segment\.data\.class_names: name the classes that the numbers of .*map"):
        prepare(asked(path), world[0], None)


@pytest.mark.parametrize("head", ["linear", "mean"])
def test_a_raster_of_values_in_degrees(world, tmp_path, head):
    path = raster_of(world, tmp_path / "height.tif", "EPSG:4326", lambda x, y: (x % 1000).astype(np.float32) / 50)
    data = read(asked(path, "estimate", head=head, value_property="height", units="m"), world, tmp_path)
    targets = data.read_targets(np.arange(len(data.samples)))
    assert targets.ndim == (3 if head == "linear" else 1)
    assert np.nanmin(targets) >= 0 and np.nanmax(targets) < 20.1
    assert np.nanmean(targets) == pytest.approx(10, abs=1.5)


def test_values_whose_tags_decode_no_number_are_refused(world, tmp_path):
    path = raster_of(world, tmp_path / "height.tif", "EPSG:4326", lambda x, y: (x % 1000).astype(np.float32) / 50)
    with rasterio.open(path, "r+") as file:
        file.scales = [0.0]
        file.offsets = [1.0]
    with pytest.raises(TaskDataError, match=r"height\.tif is tagged with scale 0 .* which decode no stored number"):
        prepare(asked(path, "estimate", value_property="height", units="m"), world[0], None)


def test_labels_hold_in_their_time(world, fields, tmp_path):
    early = fields.assign(start="2019-01-01", end="2020-12-31")
    late = fields.assign(start="2023-01-01", end=None)
    late["class"] = late["class"].map({"meadow": "wood", "wood": "meadow"})
    both = pd.concat([early, late], ignore_index=True)
    data = read(asked(saved(both, tmp_path / "years.gpkg")), world, tmp_path)
    first = data.samples["day"] == data.samples["day"].min()
    by_date = [data.read_targets(np.flatnonzero(rows)) for rows in (first, ~first)]
    assert all(set(np.unique(t)) == {0, 1, IGNORE} for t in by_date)
    place = data.samples["sample_id"].str.extract(r"-(\d+-\d+)$")[0]
    for one in set(place[first]) & set(place[~first]):
        before, after = (data.read_targets(np.flatnonzero((place == one) & rows)) for rows in (first, ~first))
        known = (before[0] != IGNORE) & (after[0] != IGNORE)
        assert (before[0][known] == 1 - after[0][known]).all(), "what holds at another time is not laid"
    assert not any("hold on no day" in note for note in data.spec.notes)


def test_labels_that_hold_at_other_times_are_transitions_between_them(world, fields, tmp_path):
    """The meadow becomes a wood, the wood stays."""
    became = fields[fields["class"] == "meadow"].assign(**{"class": "wood", "start": "2022-01-01", "end": None})
    was = fields.assign(start=None, end=[None if name == "wood" else "2021-12-31" for name in fields["class"]])
    path = saved(gpd.GeoDataFrame(pd.concat([was, became], ignore_index=True), crs=UTM), tmp_path / "times.gpkg")
    data = read(asked(path, "detect_transitions"), world, tmp_path)
    assert data.spec.class_names == ("meadow", "wood") and data.image_shape[0] == 2
    assert (data.samples["day_before"] < 19_000).all() and (data.samples["day"] > 19_000).all()
    names = np.array(data.spec.label_names)
    codes = data.read_targets(np.arange(len(data.samples)))
    assert set(names[np.unique(codes[codes != IGNORE])]) == {"meadow → wood", "wood stays"}
    census = by_split(prepare(asked(path, "detect_transitions"), world[0], None))
    shown = {name: sum(counts.values()) for name, counts in census.classes.items()}
    assert sum(census.samples.values()) == len(data.samples) and list(shown) == ["meadow", "wood"]
    became = (codes == list(names).index("meadow → wood")).any(axis=(1, 2))
    assert shown == {"meadow": became.sum(), "wood": len(data.samples)}
    assert not any("hold on no day" in note for note in data.spec.notes)
    undated = saved(fields, tmp_path / "undated.gpkg")
    for options, message in (
        (
            asked(undated, "detect_transitions"),
            r"no feature says when its class holds.*: give it columns start and end",
        ),
        (asked(tmp_path / "a.tif", "detect_transitions"), "is of one date as a raster, and of two as features"),
        (asked(path, "detect_transitions", archive={"allow_future": True}), "is of the image's own day: leave archive"),
    ):
        with pytest.raises(TaskDataError, match=message):
            prepare(options, world[0], None)


def test_what_is_to_come_is_learnt_only_where_that_is_said(world, fields, tmp_path):
    path = saved(fields.assign(start="2023-01-01"), tmp_path / "later.gpkg")
    now = read(asked(path), world, tmp_path)
    assert now.samples["day"].nunique() == 1 and (now.samples["day"] > 19_000).all()
    ahead = read(asked(path, archive={"allow_future": True}), world, tmp_path)
    assert ahead.samples["day"].nunique() == 2
    assert "labels may be later than the image (allow_future)" in ahead.spec.notes
    over = saved(fields.assign(end="2020-01-01"), tmp_path / "over.gpkg")
    with pytest.raises(
        TaskDataError,
        match=r"hold on no day of an image \(2020-\d\d-\d\d, 2023.*; coregister\.recipes .*\), left out: 8: over",
    ):
        prepare(asked(over, archive={"allow_future": True}), world[0], None)


def test_images_of_a_time_alone(world, fields, tmp_path):
    path = saved(fields, tmp_path / "a.gpkg")
    data = read(asked(path, archive={"start": "2021-01-01"}), world, tmp_path)
    assert data.samples["day"].nunique() == 1
    with pytest.raises(
        TaskDataError, match=r"segment\.data\.archive\.start and end: no image of sentinel-2-l2a from 2021-"
    ):
        prepare(asked(path, archive={"start": "2021-01-01", "end": "2021-12-31"}), world[0], None)


def test_labels_that_no_sample_has_are_named_with_the_reason(world, fields, tmp_path):
    box = boxes(world[0])[0]
    extra = [
        field((0, 0, 1, 1), side=500),  # far away
        field(box, at=(0.3, 0.7), side=3),  # between the middles of pixels
        field(box, at=(0.1, 0.1), side=400),  # on the first meadow, as wood
        None,
    ]
    more = gpd.GeoDataFrame({"class": ["wood"] * 4}, geometry=extra, crs=UTM)
    path = saved(pd.concat([fields, more], ignore_index=True), tmp_path / "a.gpkg")
    notes = read(asked(path), world, tmp_path).spec.notes
    found = {note.split(":")[0]: note.rsplit(": ", 1)[1] for note in notes if "a.gpkg feature" in note}
    assert found == {
        "labels outside every location, left out": "a.gpkg feature 8",
        "labels that cover the middle of no pixel, left out": "a.gpkg feature 9",
        "labels that differ on the same ground, of which the later one counts": "a.gpkg feature 0 and 10",
        "labels whose ground later ones cover, left out": "a.gpkg feature 0",
        "features without an area, left out": "a.gpkg feature 11",
    }


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_labels_under_later_ones_are_named_as_such(world, fields, tmp_path, task):
    """They were said to lie where no image was seen, or to cover no pixel."""
    path = saved(pd.concat([fields] * 3, ignore_index=True), tmp_path / "a.gpkg")
    notes = prepare(asked(path, task), world[0], None).spec.notes
    (note,) = (note for note in notes if "cover" in note)
    assert note.startswith("labels whose ground later ones cover, left out: 16: a.gpkg feature 0, a.gpkg feature 1")
    assert not any("no image was seen" in note for note in notes)


def test_labels_on_nodata_are_named(world, fields, tmp_path, monkeypatch):
    from a2mae.tasks.datasets.store_samples import StoreImages

    path = saved(fields, tmp_path / "a.gpkg")
    whole = StoreImages.valid

    def hidden(self, image):
        valid = whole(self, image).copy()
        valid[:96] = False  # the north, where the woods are
        return valid

    monkeypatch.setattr(StoreImages, "valid", hidden)
    source = prepare(asked(path, archive={"min_valid": 0.0}), world[0], None)
    (note,) = (note for note in source.spec.notes if "no image was seen" in note)
    assert note.endswith(": 4: a.gpkg feature 1, a.gpkg feature 3, a.gpkg feature 5, a.gpkg feature 7")


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (
            "degrees",
            r"a\.gpkg says EPSG:32633, which is in metres, and what it holds lies within 12\.2.*, which are degrees: ",
        ),
        (
            "swapped",
            r"plots\.csv: none of its 8 features lies on one of the 4 locations.*With x and y exchanged they would",
        ),
        ("metres", r"a\.gpkg: feature 0 lies at 31.*, which are no degrees\."),
        (
            "mixed",
            r"a\.gpkg mixes geometries: feature 0 is a Polygon, feature 8 a Point; write points to a file of their",
        ),
        ("collection", r"a\.gpkg: feature 8 is a GeometryCollection: labels are polygons, points or lines"),
        ("tangle", r"a\.gpkg: feature 8 crosses or touches itself more than 20,000 times"),
        ("line", r"a\.gpkg: feature 8 is a LineString, which has no area: .* segment\.data\.buffer_m"),
        ("empty", r"a\.gpkg holds no features, and segment\.data\.labels needs some with a label each"),
        ("unknown", r"a\.gpkg: feature 1 has class 'wood'; classes are meadow, forest: add it to segment\.data"),
        ("none", r"a\.gpkg: feature 0 has no property 'class', but kind; set segment\.data\.class_property"),
        ("one", r"a\.gpkg: 'class' names 1 class\(es\) \(wood\), two are needed to tell apart"),
        ("text", r"a\.gpkg: feature 0: value is 'meadow', expected a number; leave it empty where it is not known"),
        (
            "nan",
            r"a\.gpkg: no label lies on an image that was seen; features without a value, left out: 8: a\.gpkg fea",
        ),
        ("day", r"a\.gpkg: feature 0: start is 'spring', expected a day as 2021-06-04"),
        ("backwards", r"a\.gpkg: feature 0 ends \(2020-01-01\) before it starts \(2021-01-01\)"),
        ("columns", r"plots\.csv has the columns east, north, class; needed are lon and lat, in degrees"),
        ("coordinate", r"plots\.csv, line 3: lon is 'west', expected degrees as a number"),
        (
            "elsewhere",
            r"a\.gpkg: none of its 8 features lies on one of the 4 locations\. They lie within .* of the same CRS\.$",
        ),
        ("torn", r"a\.gpkg cannot be read: it is no gpkg"),
        (
            "change",
            r"detect_change\.data\.labels: detect_change compares two dates, and a label on the archive tells classes",
        ),
        ("sensor", r"the image-set store has no sensor 'landsat-oli-c2-l2'; it has sentinel-2-l2a"),
        ("raster", r"map\.tif lies within .* and the 4 locations within .* of the same CRS: none lies on it"),
        (
            "chain",
            r"segment\.data\.labels: labels lie on image sets, and no stage of this environment's chain makes any",
        ),
    ],
)
def test_what_cannot_be_labels_is_named(world, fields, tmp_path, breakage, message):
    path, tables = tmp_path / "a.gpkg", world[0]
    options, frame = asked(path), fields
    if breakage == "degrees":
        frame = fields.to_crs(4326).set_crs(UTM, allow_override=True)
    elif breakage == "metres":
        frame = fields.set_crs(4326, allow_override=True)
    elif breakage == "elsewhere":
        frame = fields.set_geometry(fields.translate(50_000, 0))
    elif breakage in ("mixed", "collection", "line", "tangle"):
        middle = fields.geometry[0].centroid
        shape = {
            "mixed": middle,
            "collection": shapely.GeometryCollection([middle, fields.geometry[1]]),
            "line": shapely.LineString([middle, fields.geometry[1].centroid]),
            "tangle": shapely.LineString(np.random.default_rng(0).uniform(0, 400, (2_000, 2)) + middle.coords),
        }[breakage]
        frame = pd.concat([fields, gpd.GeoDataFrame({"class": ["wood"]}, geometry=[shape], crs=UTM)], ignore_index=True)
        if breakage == "tangle":
            options = asked(path, buffer_m=5.0)
    elif breakage == "empty":
        frame = fields[:0]
    elif breakage == "unknown":
        options = asked(path, class_names=["meadow", "forest"])
    elif breakage == "none":
        frame = fields.rename(columns={"class": "kind"})
    elif breakage == "one":
        frame = fields[fields["class"] == "wood"]
    elif breakage == "text":
        frame, options = fields.rename(columns={"class": "value"}), asked(path, "estimate")
    elif breakage == "nan":
        frame, options = fields.assign(value=np.nan), asked(path, "estimate")
    elif breakage == "day":
        frame = fields.assign(start="spring")
    elif breakage == "backwards":
        frame = fields.assign(start="2021-01-01", end="2020-01-01")
    elif breakage == "change":
        options = asked(path, "detect_change")
    elif breakage == "sensor":
        options = asked(path, archive={"sensors": ["landsat-oli-c2-l2"]})
    elif breakage == "chain":
        tables = None
    saved(frame, path)
    if breakage == "torn":
        path.write_bytes(b"XML" + path.read_bytes()[3:])
    elif breakage in ("swapped", "columns", "coordinate"):
        csv = table_of(world, tmp_path, **{"class": ["a", "b"] * 4})
        if breakage == "swapped":
            pd.read_csv(csv).rename(columns={"lon": "lat", "lat": "lon"}).to_csv(csv, index=False)
        elif breakage == "columns":
            pd.read_csv(csv).rename(columns={"lon": "east", "lat": "north"}).to_csv(csv, index=False)
        else:
            lines = csv.read_text().splitlines()
            csv.write_text("\n".join([*lines[:2], "west," + lines[2].split(",", 1)[1], *lines[3:]]))
        options = asked(csv)
    elif breakage == "raster":
        with rasterio.open(
            tmp_path / "map.tif", "w", driver="GTiff", count=1, height=4, width=4, dtype="uint8", crs=UTM,
            transform=Affine(10, 0, 100_000, 0, -10, 5_000_000),
        ) as target:  # fmt: skip
            target.write(np.zeros((4, 4), np.uint8), 1)
        options = asked(tmp_path / "map.tif", class_names=["a", "b"])
    with pytest.raises(TaskDataError, match=message):
        prepare(options, tables, None)


def days_of(*stated, dtype=None):
    points = gpd.points_from_xy([13.5] * len(stated), [53.2] * len(stated))
    frame = gpd.GeoDataFrame({"start": pd.Series(stated, dtype=dtype)}, geometry=points, crs=4326)
    return read_days(Path("a.gpkg"), frame, "start").astype(str).tolist()


def test_a_day_is_year_month_day_in_any_column():
    for one in (
        "2023-06-01", "2023-6-1", "2023/06/01 00:00:00", "20230601", 20230601, dt.date(2023, 6, 1),
        "2023-06-01T23:30:00Z", "2023-05-31T23:30:00-05:00", pd.Timestamp("2023-06-01T12:00"),
        pd.Timestamp("2023-05-31T23:30", tz="America/New_York"),
    ):  # fmt: skip
        assert days_of(one, None) == ["2023-06-01", "NaT"], one
    assert days_of("0001-01-01", "9999-12-31") == ["0001-01-01", "9999-12-31"]
    assert days_of("2023-06-01", dtype="category") == ["2023-06-01"]
    assert days_of(None, None) == days_of(np.nan, np.nan) == ["NaT", "NaT"]


@pytest.mark.parametrize(
    "one",
    [
        2023, 45078, 1685577600, 2023.5, "2023", "45078", "2023-06", "01.06.2023", "13.06.2023", "01/06/2023",
        "01/06/23", "1.6.23", "now", "today", "June 2023", "2023-152", "2023-06-31", "2023-06-01 25:00", "-5",
        "0000-01-01", "10000-01-01", "9999-12-31T23:00-05:00", "", True, dt.time(12), ["2023-06-01"],
        np.datetime64("30000-01-01", "s"), np.datetime64("-0005-01-01", "s"),
    ],
)  # fmt: skip
def test_what_is_no_day_is_refused_by_the_task_and_by_the_look(one):
    kind = one.dtype if isinstance(one, np.datetime64) else object
    said = r"'(10000-01-01|9999.*)'" if str(one).startswith("9999") else ".*"
    with pytest.raises(TaskDataError, match=rf"^a\.gpkg: feature 0: start is {said}, expected a day as 2021-06-04$"):
        days_of(one, dtype=kind)


def test_the_look_refuses_the_days_that_the_task_refuses(world, fields, tmp_path):
    for stated in ("01.06.2023", 45078, "10000-01-01"):
        path = saved(fields.to_crs(4326).assign(start=stated), tmp_path / "a.geojson")
        told = f"a.geojson: feature 0: start is '{stated}', expected a day as 2021-06-04"
        for door in (look_at, lambda path: prepare(asked(path), world[0], None)):
            with pytest.raises(InputError, match=told):
                door(path)
    far = fields.assign(start=np.array(["30000-01-01"] * 8, "datetime64[s]"))
    with pytest.raises(InputError, match=r"feature 0: start is '30000-01-01', expected a day"):
        look_at(saved(far, tmp_path / "a.parquet"))
    early = saved(fields.assign(start=["2023-06-01", *["2021-01-31"] * 7]), tmp_path / "b.parquet")
    assert look_at(early).days == "start 2021-01-31 to 2023-06-01"


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.geojson", "a.parquet"])
def test_true_and_false_are_two_classes_to_the_task_and_to_the_look(world, fields, tmp_path, name):
    path = saved(fields.to_crs(4326).assign(**{"class": fields["class"] == "wood", "wet": True}), tmp_path / name)
    columns = look_at(path).columns
    assert columns["class"].counts == {"false": 4, "true": 4} and columns["class"].span is None
    assert columns["wet"].counts == {"true": 8}
    assert prepare(asked(path), world[0], None).spec.class_names == tuple(columns["class"].counts)


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.geojson", "a.parquet"])
def test_true_and_false_stay_classes_where_a_feature_has_neither(fields, tmp_path, name):
    """They came as 1 and 0."""
    wet = pd.array([True, False, None, True, False, None, True, False], dtype="boolean")
    path = saved(fields.to_crs(4326).assign(wet=wet), tmp_path / name)
    assert look_at(path).columns["wet"].counts == {"false": 3, "true": 3}


def test_labels_and_a_folder_are_two_places(tmp_path):
    with pytest.raises(ValueError, match="labels lie on the image sets, and folder names other images"):
        asked(tmp_path / "a.gpkg", folder=str(tmp_path))


def test_points_are_told_by_the_line_of_the_file_and_read_without_spaces(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text('lon, lat ,class\n13,50,"wood "\n\n14,51, wood\n')
    assert read_points(path)["class"].tolist() == ["wood", "wood"]
    path.write_text('lon,lat,class\n\n13,50,"wood\nwet"\n1_4,51,wood\n')
    with pytest.raises(TaskDataError, match=r"points\.csv, line 5: lon is '1_4', expected degrees as a number"):
        read_points(path)


def test_days_in_a_column_of_other_capitals_are_refused_and_other_things_are_not(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("lon,lat,class,Start,END\n13,50,wood,2020-01-01,house 3\n")
    features = read_points(path)
    with pytest.raises(TaskDataError, match=r"has days in a column 'Start', which is read as 'start' alone: rename it"):
        read_days(path, features, "start")
    assert np.isnat(read_days(path, features, "end")).all()
