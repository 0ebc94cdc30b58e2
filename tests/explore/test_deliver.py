"""The folder that an office gets, as its tools open it: GDAL, pyogrio, pystac, XML."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pystac
import pystac.validation
import pytest
import rasterio
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from shapely.geometry import Point, box, shape

from a2mae.explore.areas import NOTHING, PLACES, RANDOM
from a2mae.explore.deliver import MapOutputs, deliver
from a2mae.explore.parameters import DeliverParameters
from a2mae.tasks.transitions import transition_colors, transition_names

from .conftest import COLOURS, NAMES, ORIGIN, UTM, patchy, write_map

CONFUSION = {
    "class_names": list(NAMES.values()),
    "by_place": [[place, i, j, 40 if i == j else 3 + place] for place in range(4) for i in range(3) for j in range(3)],
}


@pytest.fixture
def outputs(mapped):
    return [MapOutputs("segment", "Segmentation", *mapped, CONFUSION)]


def made(outputs, folder, **options):
    deliver(DeliverParameters.model_validate({"bootstrap": 100, **options}), outputs, folder)
    return folder


def test_a_map_becomes_a_folder_with_everything_in_it(outputs, classes, tmp_path):
    zones = gpd.GeoDataFrame(geometry=[box(ORIGIN[0], ORIGIN[1] - 300, ORIGIN[0] + 400, ORIGIN[1])], crs=UTM)
    zones.to_file(tmp_path / "zones.gpkg")
    folder = made(outputs, tmp_path / "out", zones=str(tmp_path / "zones.gpkg"), smallest_m2=400)
    assert sorted(path.name for path in (folder / "segment").iterdir()) == [
        "areas.csv", "confidence.qml", "confidence.tif", "map.qml", "map.tif", "polygons.gpkg", "polygons.parquet",
        "polygons.qml", "segment.json", "zones.gpkg", "zones.parquet",
    ]  # fmt: skip
    with rasterio.open(folder / "segment" / "map.tif") as found:
        np.testing.assert_array_equal(found.read(1), classes)
    about = json.loads((folder / "deliverables.json").read_text())["segment"]
    polygons = pyogrio.read_dataframe(folder / "segment" / "polygons.gpkg")
    assert about["polygons"] == len(polygons) == len(gpd.read_parquet(folder / "segment" / "polygons.parquet"))
    assert len(pyogrio.read_dataframe(folder / "segment" / "zones.gpkg")) == about["zones"] == 1
    assert polygons["area_ha"].sum() == pytest.approx((classes != 255).sum() / 100, rel=2e-3)


def test_the_same_map_gives_the_same_bytes(outputs, tmp_path):
    first, second = (made(outputs, tmp_path / name) for name in ("first", "second"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 11
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


def test_areas_say_what_their_errors_are_known_from(outputs, mapped, tmp_path):
    by_places = pd.read_csv(made(outputs, tmp_path / "places") / "segment" / "areas.csv")
    assert set(by_places["design"]) == {PLACES}
    assert (by_places["estimated_low_ha"] <= by_places["estimated_high_ha"]).all()
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 70, 200), rng.integers(0, 90, 200)
    points = [Point(ORIGIN[0] + 10 * c + 5, ORIGIN[1] - 10 * r - 5) for r, c in zip(rows, columns, strict=True)]
    truth = [NAMES[int(value)] for value in rng.integers(0, 3, 200)]
    gpd.GeoDataFrame({"kind": truth}, geometry=points, crs=UTM).to_file(tmp_path / "points.gpkg")
    named = [{"task": "segment", "points": str(tmp_path / "points.gpkg"), "class_property": "kind"}]
    by_points = pd.read_csv(made(outputs, tmp_path / "points", references=named) / "segment" / "areas.csv")
    assert set(by_points["design"]) == {RANDOM}
    other = [
        MapOutputs("segment", "Segmentation", *mapped, {"class_names": ["a", "b", "c"], "by_place": [[0, 0, 0, 1]]})
    ]
    assert set(pd.read_csv(made(other, tmp_path / "other") / "segment" / "areas.csv")["design"]) == {NOTHING}


def test_of_transitions_tables_and_styles_have_those_that_occur(classes, tmp_path):
    names = dict(enumerate(transition_names(["water", "forest", "field"])))
    colours = dict(enumerate(transition_colors(list(COLOURS.values()))))
    maps = write_map(tmp_path / "made", classes, names=names, colours=colours)
    tested = {"class_names": list(names.values()), "by_place": [[p, k, k, 20 + p] for p in range(3) for k in (0, 1, 2)]}
    tested["by_place"] += [[0, 6, 1, 5]]
    there = [names[value] for value in (0, 1, 2, 6)]
    for confusion, rows in (({}, there[:3]), (tested, there)):
        place = made([MapOutputs("detect_transitions", "Semantic change", *maps, confusion)], tmp_path / str(len(rows)))
        place /= "detect_transitions"
        assert pd.read_csv(place / "areas.csv")["class"].tolist() == rows, "mapped, or found among the test places"
        entries = ET.parse(place / "map.qml").getroot().findall("pipe/rasterrenderer/colorPalette/paletteEntry")
        assert [entry.get("label") for entry in entries] == there[:3]
    mapped = made([MapOutputs("segment", "Segmentation", *maps, {})], tmp_path / "segment") / "segment"
    assert len(pd.read_csv(mapped / "areas.csv")) == 10, "classes of the user's own list stay"


def test_styles_are_those_of_the_map(outputs, tmp_path):
    place = made(outputs, tmp_path / "out") / "segment"
    entries = ET.parse(place / "map.qml").getroot().findall("pipe/rasterrenderer/colorPalette/paletteEntry")
    assert {int(e.get("value")): (e.get("label"), e.get("color")) for e in entries} == {
        value: (name, "#{:02x}{:02x}{:02x}".format(*COLOURS[value])) for value, name in NAMES.items()
    }
    polygons = ET.parse(place / "polygons.qml").getroot()
    renderer = polygons.find("renderer-v2")
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "class")
    symbols = {s.get("name"): s for s in renderer.findall("symbols/symbol")}
    for category, colour in zip(renderer.findall("categories/category"), COLOURS.values(), strict=True):
        option = symbols[category.get("symbol")].find("layer/Option/Option[@name='color']")
        assert option.get("value") == "{},{},{},200".format(*colour)
    assert {c.get("value") for c in renderer.findall("categories/category")} == set(
        gpd.read_file(place / "polygons.gpkg")["class"]
    )
    ramp = ET.parse(place / "confidence.qml").getroot().findall(".//colorrampshader/item")
    assert [float(item.get("value")) for item in ramp] == [0, 0.25, 0.5, 0.75, 1]


def test_items_are_valid_stac_and_tell_what_the_files_hold(outputs, tmp_path):
    folder = made(outputs, tmp_path / "out")
    catalog = pystac.Catalog.from_file(str(folder / "catalog.json"))
    (item,) = catalog.get_items()
    for entry in (catalog, item):
        # The extensions' schemas are on the network: the core is checked from pystac's own copies.
        content = entry.to_dict(include_self_link=False)
        content["stac_extensions"] = []
        pystac.validation.validate_dict(content)
    assert len(item.stac_extensions) == 3
    assert item.properties["start_datetime"] == "2021-06-01T10:00:00+00:00"
    assert item.datetime.isoformat() == "2024-06-01T10:00:00+00:00"
    assert shape(item.geometry).contains(Point(15.003, 46.95))
    item.make_asset_hrefs_absolute()
    assert set(item.assets) == {
        "areas_csv", "confidence_qml", "confidence_tif", "map_qml", "map_tif", "polygons_gpkg", "polygons_parquet",
        "polygons_qml",
    }  # fmt: skip
    for name in ("map_tif", "confidence_tif"):
        asset = item.assets[name]
        with rasterio.open(asset.href) as source:
            placed = ProjectionExtension.ext(asset)
            assert (placed.code, tuple(placed.shape)) == (UTM, source.shape)
            assert placed.transform == pytest.approx(list(source.transform)[:6])
            (band,) = RasterExtension.ext(asset).bands
            assert (band.nodata, band.scale) == (source.nodata, source.scales[0])
            assert str(getattr(band.data_type, "value", band.data_type)) == source.dtypes[0]
    for name in ("map_tif", "polygons_gpkg", "polygons_parquet"):
        found = ClassificationExtension.ext(item.assets[name]).classes
        assert [(one.value, one.title) for one in found] == list(NAMES.items())
        assert found[2].name == "field_meadow" and found[0].color_hint == "265CB2"


def test_a_map_of_unknown_dates_has_the_time_of_its_file(tmp_path):
    path, confidence = write_map(tmp_path, patchy((20, 20)))
    with rasterio.open(path, "r+") as target:
        target.update_tags(DATETIMES="[null]")
    folder = made([MapOutputs("segment", "Segmentation", path, confidence, {})], tmp_path / "out")
    (item,) = pystac.Catalog.from_file(str(folder / "catalog.json")).get_items()
    assert item.datetime is not None and "start_datetime" not in item.properties


def test_a_failed_delivery_leaves_the_one_before(outputs, tmp_path):
    folder = made(outputs, tmp_path / "out")
    before = (folder / "catalog.json").read_bytes()
    with pytest.raises(ValueError, match=r"deliver\.zones"):
        made(outputs, folder, zones=str(tmp_path / "absent.gpkg"))
    assert (folder / "catalog.json").read_bytes() == before
