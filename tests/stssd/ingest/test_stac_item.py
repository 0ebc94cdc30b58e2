"""Items as providers write them: where a file lies, what its reference system is, which version of it counts."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import CRS
from shapely.geometry import box, mapping

from a2mae.errors import RejectedError
from a2mae.raster.footprints import known_crs, transformer
from a2mae.raster.header import read_header
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.ingest import ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.ingest.stac import read_stac_catalog
from a2mae.stssd.ingest.stac_item import finish
from a2mae.stssd.ingest.stac_profiles import Recogniser
from helpers.rasters import write_tif

from ..stac_parsing import parse

BANDS = ("B02", "B03", "B04", "B08")
FOUR = Recogniser(SensorTable({}, {"sentinel-2-l2a": BANDS}))
PLACE = {"locations": {"min_scenes": 2, "footprint_m": 960.0}, "bands": {"sentinel-2-l2a": BANDS}}


def item(folder, name="m01", date="2023-06-01", *, place="", **changes):
    """A Sentinel-2 item of four bands whose files lie beside it, projection fields left out."""
    assets = {}
    for band in BANDS:
        path = write_tif(folder / place / name / f"{band}.tif", **changes)
        assets[band] = {"href": f"./{path.relative_to(folder).as_posix()}", "type": "image/tiff"}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "sentinel-2-l2a", "links": [],
        "geometry": mapping(read_header(str(path)).footprint), "assets": assets,
        "properties": {"datetime": f"{date}T10:00:00Z", "platform": "sentinel-2a", "s2:processing_baseline": "03.00"},
    }  # fmt: skip


def read(folder, *items, **changes):
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    parameters = IngestParameters(**{"source": {"catalog": str(path)}, **PLACE, **changes})
    return read_stac_catalog(parameters, SensorTable({}, parameters.bands), default=None), parameters


def reasons(found):
    return {rejected.scene_id: rejected.reason for rejected in found.rejected}


SINUSOIDAL = CRS.from_proj4("+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs").to_wkt("WKT2_2019")


@pytest.mark.parametrize(
    "fields",
    [
        {"proj:code": "EPSG:None", "proj:wkt2": SINUSOIDAL},
        {"proj:code": None, "proj:epsg": None, "proj:projjson": CRS.from_wkt(SINUSOIDAL).to_json_dict()},
        {"proj:code": "http://localhost.invalid/crs", "proj:epsg": 999999, "proj:wkt2": SINUSOIDAL},
    ],
)
def test_a_code_that_is_none_falls_through_to_what_is_one(tmp_path, fields):
    left, top = transformer("EPSG:4326", SINUSOIDAL).transform(15.0, 42.0)
    one = item(tmp_path, crs=SINUSOIDAL, left=left, top=top)
    one["properties"] |= fields
    for asset in one["assets"].values():
        asset |= {"proj:shape": [200, 200], "proj:transform": [10, 0, left, 0, -10, top]}
    scene = finish(parse(one, FOUR), {})
    assert CRS.from_user_input(scene.crs).equals(CRS.from_wkt(SINUSOIDAL), ignore_axis_order=True)
    found, _ = read(tmp_path, one)
    assert (
        CRS.from_user_input(found.scenes[0].crs).coordinate_operation.method_name == "Sinusoidal"
    )  # and so says the file
    one["properties"] = {k: v for k, v in one["properties"].items() if "wkt" not in k and "json" not in k}
    found, _ = read(tmp_path, one)
    assert CRS.from_user_input(found.scenes[0].crs).coordinate_operation.method_name == "Sinusoidal", "the header alone"


def test_texts_that_name_files_and_servers_are_no_reference_systems(tmp_path):
    (tmp_path / "crs.wkt").write_text(CRS.from_epsg(4326).to_wkt())
    shift = 'BOUNDCRS[SOURCECRS[GEOGCRS["x"]],METHOD["NTv2"],PARAMETERFILE["nadgrid file","/etc/passwd"]]'
    grid = '{"type": "BoundCRS", "parameters": [{"name": "nadgrid file"}]}'
    texts = (
        "http://127.0.0.1:1/crs",
        "+init=/etc/passwd:1",
        "+proj=longlat +nadgrids=/etc/passwd",
        "WGS 84",
        shift,
        grid,
    )
    for text in (str(tmp_path / "crs.wkt"), *texts, "C:/a.wkt", "file:a.wkt:1", "https:a"):
        with pytest.raises(ValueError, match="is no coordinate reference system"):
            transformer(text, "EPSG:4326")


def test_names_of_reference_systems():
    for text in ("EPSG:32633", "urn:ogc:def:crs:EPSG::32633", "ESRI:54009", "OGC:CRS84", "IAU_2015:30100", SINUSOIDAL):
        assert known_crs(text).name


DATE_LINE = {"crs": "EPSG:32760", "left": 817_000.0, "top": 8_118_000.0, "size": (400, 400)}


@pytest.mark.parametrize("with_grid", [True, False])
def test_an_outline_round_the_world_is_split_where_it_was_meant(tmp_path, with_grid):
    one = item(tmp_path, **DATE_LINE)
    path = str(tmp_path / "m01" / "B02.tif")
    ground = read_header(path).footprint
    assert ground.geom_type == "MultiPolygon", "it crosses the date line"
    west, east = (part.bounds for part in sorted(ground.geoms, key=lambda p: -p.bounds[0]))
    _, south, _, north = ground.bounds
    one["geometry"] = mapping(box(east[2] + 1e-4, south - 1e-4, west[0] - 1e-4, north + 1e-4))  # the long way round
    if with_grid:
        one["properties"]["proj:epsg"] = 32760
        for asset in one["assets"].values():
            asset |= {"proj:shape": [400, 400], "proj:transform": list(read_header(path).transform[:6])}
    (scene,) = read(tmp_path, one)[0].scenes
    assert scene.geometry.area == pytest.approx(ground.area, rel=1e-6)
    beyond = shapely.transform(ground, lambda c: np.column_stack([c[:, 0] % 360, c[:, 1]]))
    one["geometry"] = mapping(beyond.convex_hull)  # 179.9 to 180.1
    (scene,) = read(tmp_path, one)[0].scenes
    assert scene.geometry.area == pytest.approx(ground.area, rel=1e-2)


def test_a_search_box_goes_across_the_date_line(tmp_path):
    items = [item(tmp_path, f"m{d}", f"2023-06-{d}", **DATE_LINE) for d in ("01", "11")]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    for one in items:
        for asset in one["assets"].values():
            asset["href"] = f"file://{tmp_path}/{asset['href'][2:]}"
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))

    def build(bbox):
        api = {"url": "https://example.org/stac", "bbox": bbox, "replay": str(tmp_path / "items.json")}
        source = {"kind": "stac_api", "api": api}
        return ingest(IngestParameters(**{"source": source, "hrefs": {"roots": [str(tmp_path)]}, **PLACE}))

    lon, lat = items[0]["geometry"]["coordinates"][0][0][0]
    assert abs(lon) > 179 and -18 < lat < -16
    assert len(build([179.0, -18, -179.0, -16]).locations) >= 1
    with pytest.raises(ValueError, match="outside_area 2"):
        build([-179.0, -18, 179.0, -16])  # the world without them
    for wrong in ([179.0, -16, -179.0, -18], [13.4, 53.0, 13.1, 53.3]):  # north and south, west and east exchanged
        with pytest.raises(ValueError, match="is not west, south, east, north"):
            build(wrong)


def test_an_alternate_is_taken_where_the_href_is_s3_or_not_allowed(tmp_path):
    one = item(tmp_path)
    for band, asset in one["assets"].items():
        asset["alternate"] = {"local": {"href": asset["href"]}, "gone": {"href": f"./gone/{band}.tif"}}
        asset["href"] = f"s3://eodata/Sentinel-2/{band}.tif"
    (scene,) = read(tmp_path, one)[0].scenes
    assert [a.href.endswith(f"m01/{a.band}.tif") for a in scene.bands] == [True] * 4
    for asset in one["assets"].values():
        asset["href"] = "D:/archive/x.tif"
    assert len(read(tmp_path, one)[0].scenes) == 1
    other = item(tmp_path, "m02")
    for mine, theirs in zip(one["assets"].values(), other["assets"].values(), strict=True):
        theirs["alternate"] = {"mirror": {"href": mine["alternate"]["local"]["href"]}}
    (scene,) = read(tmp_path, other)[0].scenes
    assert "m02/B02.tif" in scene.assets[0].href, "its own href comes first"
    (scene,) = read(tmp_path, other, hrefs={"alternates": ["none", "mirror"]})[0].scenes
    assert "m01/B02.tif" in scene.assets[0].href


def test_hrefs_are_read_as_they_are_written(tmp_path):
    spellings = {
        "pct": lambda href: href.replace(" ", "%20"),
        "back": lambda href: href.replace("./", ".\\").replace("/", "\\"),
        "up": lambda href: f"../{tmp_path.name}/{href[2:]}",
        "literal": lambda href: href,
        "abs": lambda href: f"D:/archive/{href[2:]}",
    }
    items = []
    for name, spell in spellings.items():
        one = item(tmp_path, name, place="my data 50%25" if name == "literal" else "my data")
        for asset in one["assets"].values():
            asset["href"] = spell(asset["href"])
        items.append(one)
    found, _ = read(tmp_path, *items)
    assert sorted(scene.scene_id for scene in found.scenes) == ["back", "literal", "pct", "up"]
    assert reasons(found) == {"abs": "bad_href"}
    assert "path of a Windows machine" in next(r.detail for r in found.rejected if r.scene_id == "abs")


def test_deprecated_items_and_older_processings_are_not_used(tmp_path):
    times = {"old": "2023-06-02T00:00:00Z", "new": "2023-09-01T12:30:00Z", "gone": "2024-01-01T00:00:00Z"}
    items = []
    for name, made in times.items():
        one = item(tmp_path, name)
        one["properties"] |= {"processing:datetime": made, "datetime": f"2023-06-01T10:00:0{len(items)}.25Z"}
        items.append(one)
    items[2]["properties"]["deprecated"] = True
    items.append(item(tmp_path, "later", "2023-06-11"))
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    done = ingest(IngestParameters(source={"catalog": str(tmp_path / "items.json")}, **PLACE))
    accepted = done.scenes[done.scenes["status"] == "accepted"]
    assert list(accepted["scene_id"]) == ["later", "new"]
    told = done.rejected.set_index("scene_id")
    assert dict(told["reason"]) == {"gone": "deprecated", "old": "superseded"}
    assert told.loc["old", "detail"] == "processed again on 2023-09-01 12:30: new"


def test_two_data_strips_of_a_tile_are_no_versions_of_each_other(tmp_path):
    items = [item(tmp_path, name) for name in ("a", "b", "c")]
    west, south, east, north = shapely.geometry.shape(items[0]["geometry"]).bounds
    middle = (west + east) / 2
    for one, part, hour in zip(items, (box(west, south, middle, north), box(middle, south, east, north)), (1, 2),
                               strict=False):  # fmt: skip
        one["geometry"] = mapping(part)
        one["properties"]["created"] = f"2023-06-02T0{hour}:00:00Z"
    items[2]["properties"]["datetime"] = "2023-07-01T10:00:00Z"
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    where = {"min_scenes": 2, "footprint_m": 480.0}
    done = ingest(
        IngestParameters(**{**PLACE, "source": {"catalog": str(tmp_path / "items.json")}, "locations": where})
    )
    assert not {"superseded"} & set(done.rejected["reason"])


def test_equal_ids_of_two_collections_are_told_apart(tmp_path):
    items = []
    for collection in ("s2-a", "s2-b"):
        one = item(tmp_path, "2023-06-01", place=collection)
        items.append({**one, "collection": collection})
    items.append({**item(tmp_path, "only"), "collection": "s2-b"})
    for one in items:
        one["properties"]["s2:product_type"] = "S2MSI2A"
    found, _ = read(tmp_path, *items, items[0])
    assert {s.scene_id for s in found.scenes} == {"only", "s2-a__2023-06-01", "s2-b__2023-06-01"}
    assert {s.scene_id: "s2-a" in s.assets[0].href for s in found.scenes if s.scene_id != "only"} == {
        "s2-a__2023-06-01": True, "s2-b__2023-06-01": False}  # fmt: skip


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ({"numberMatched": 240}, "holds 1 item of 240: it is one page of a search"),
        ({"context": {"matched": 240, "returned": 2}}, "holds 1 item of 240"),
        ({"links": [{"rel": "next", "href": "https://example.org/next"}]}, "and a link to a next page"),
    ],
)
def test_a_saved_page_of_a_search_says_that_there_is_more(tmp_path, caplog, page, told):
    document = {"type": "FeatureCollection", "features": [item(tmp_path)], **page}
    (tmp_path / "page.json").write_text(json.dumps(document))
    parameters = IngestParameters(source={"catalog": str(tmp_path / "page.json")}, **PLACE)
    found = read_stac_catalog(parameters, SensorTable({}, parameters.bands), default=None)
    assert len(found.scenes) == 1 and [r.reason for r in found.rejected] == ["incomplete"]
    assert told in found.rejected[0].detail and told in caplog.text
    document = {**document, "numberMatched": 1, "context": {"matched": 1}, "links": []}
    (tmp_path / "page.json").write_text(json.dumps(document))
    assert not read_stac_catalog(parameters, SensorTable({}, parameters.bands), default=None).rejected


@pytest.mark.parametrize("vertices", [60, 200, 2000])
def test_an_outline_of_thousands_of_crossings_takes_no_time(tmp_path, vertices):
    one = item(tmp_path)
    west, south, east, north = shapely.geometry.shape(one["geometry"]).bounds
    rng = np.random.default_rng(0)
    ring = np.column_stack([rng.uniform(west, east, vertices), rng.uniform(south, north, vertices)])
    one["geometry"] = {"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]}
    start = time.monotonic()
    (scene,) = read(tmp_path, one)[0].scenes
    assert time.monotonic() - start < 2
    assert scene.geometry.equals(read_header(str(tmp_path / "m01" / "B02.tif")).footprint)
    with pytest.raises(RejectedError):
        finish(parse(one, FOUR), {})


def tagged(folder, baseline, tags, stated=None, **properties):
    """An item whose files are tagged, and which states scale and offset itself or not."""
    one = item(folder, **{"name": "m01"})
    one["properties"] |= {"s2:processing_baseline": baseline, **properties}
    for asset in one["assets"].values():
        with rasterio.open(folder / asset["href"], "r+") as file:
            file.scales, file.offsets = (tags[0],), (tags[1],)
        if stated:
            asset["raster:bands"] = [dict(zip(("scale", "offset"), stated, strict=False))]
    return one


@pytest.mark.parametrize(
    ("baseline", "tags", "changes", "factors"),
    [
        ("05.09", (1.0, 0.0), {}, (1e-4, -0.1)),  # Planetary Computer: files without tags
        ("05.09", (np.float32(1e-4), np.float32(-0.1)), {}, (1e-4, -0.1)),  # Earth Search's Collection 1
        ("05.09", (1e-4, 0.0), {"sentinel2_offset": "flag"}, (1e-4, 0.0)),
        ("05.09", (1e-4, 0.0), {}, "B02.tif is tagged with scale 0.0001 and offset 0 (band 1), but processing baseline"
         " 05.09 says offset -0.1: state the right ones in a profile under ingest.stac_profiles, or set"
         " ingest.sentinel2_offset: flag"),
        ("03.00", (1e-4, -0.1), {}, "but processing baseline 03.00 says offset 0"),
    ],
)  # fmt: skip
def test_a_baseline_is_held_against_the_tags_of_its_files(tmp_path, baseline, tags, changes, factors):
    one = tagged(tmp_path, baseline, tags, **{"earthsearch:boa_offset_applied": True})
    found, _ = read(tmp_path, one, **changes)
    if isinstance(factors, str):
        (rejected,) = found.rejected
        assert rejected.reason == "scale_tags" and factors in rejected.detail
    else:
        (scene,) = found.scenes
        assert {(asset.scale, asset.offset) for asset in scene.bands} == {factors}


OWN = {"name": "mine", "match": {"collection": "mine"}, "sensor": "sentinel-2-l2a", "units": "reflectance"}


@pytest.mark.parametrize(
    ("stated", "tags", "factors"),
    [
        ((1e-4, -0.1), (1.0, 0.0), (1e-4, -0.1)),
        (None, (1e-4, -0.1), (1e-4, -0.1)),
        ((1.0, 0.0), (1e-4, -0.1), (1e-4, -0.1)),  # as programs write that know none
        ((1e-4,), (1e-4, -0.1), (1e-4, -0.1)),  # an item that is silent on one of them
        ((1e-4, 0.0), (1e-4, -0.1), "offset -0.1 (band 1), but its item says offset 0: state the right ones in a"),
        ((2e-4, -0.1), (1e-4, -0.1), "but its item says scale 0.0002"),
        (None, (1.0, 0.0), "counts without a scale in item or file"),
    ],
)
def test_an_item_is_held_against_the_tags_of_its_files_and_a_profile_decides(tmp_path, caplog, stated, tags, factors):
    one = tagged(tmp_path, "05.09", tags, stated)
    one["collection"] = "mine"
    found, _ = read(tmp_path, one, stac_profiles=[OWN])
    if isinstance(factors, tuple):
        (scene,) = found.scenes
        assert {(asset.scale, asset.offset) for asset in scene.bands} == {factors}
        assert not caplog.records
        return
    (rejected,) = found.rejected
    assert factors in rejected.detail
    found, _ = read(tmp_path, one, stac_profiles=[{**OWN, "scale": 3e-4, "offset": 0.0}])
    (scene,) = found.scenes
    assert {(asset.scale, asset.offset) for asset in scene.bands} == {(3e-4, 0.0)}
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (tags != (1.0, 0.0))
    assert all(
        "1 scene: what the profile says counts" in text and "but stac profile 'mine' says" in text for text in told
    )


@pytest.mark.parametrize("field", ["eo:bands", "bands"])
@pytest.mark.parametrize("names", [{"name": "B08"}, {"name": "b8"}, {"name": "nir"}, {"common_name": "nir"},
                                   {"eo:common_name": "nir", "name": "layer 1"}])  # fmt: skip
def test_an_asset_that_says_it_is_another_band_is_refused_with_both_names(tmp_path, field, names):
    one = item(tmp_path)
    one["assets"]["B02"][field] = [names]
    found, _ = read(tmp_path, one)
    assert not found.scenes and reasons(found) == {"m01": "band_order"}
    assert "asset 'B02' is taken for band B02, but the item calls it" in found.rejected[0].detail
    assert found.rejected[0].detail.endswith("which is B08: correct the key or the name in the item")


@pytest.mark.parametrize("names", [{"name": "B02"}, {"name": "b2", "common_name": "nir"}, {"name": "blue"}, {},
                                   {"name": "1", "common_name": "blue"}, {"name": "OLI_B5"}, {"name": None},
                                   {"name": "nbart_red_edge_1"}, {"common_name": "rededge"}])  # fmt: skip
def test_other_names_of_the_same_band_are_no_contradiction(tmp_path, names):
    one = item(tmp_path)
    one["assets"]["B02"]["eo:bands"] = [names]
    assert [scene.scene_id for scene in read(tmp_path, one)[0].scenes] == ["m01"]


def test_bands_that_share_a_common_name_are_told_by_their_own(tmp_path):
    """As Planetary Computer and Earth Search write the red edge."""
    wide = Recogniser(SensorTable({}, {"sentinel-2-l2a": ("B05", "B06", "B8A")}))
    one = item(tmp_path)
    path = one["assets"]["B02"]["href"]
    for key, name in (("B05", "B05"), ("rededge2", "rededge2"), ("B8A", "B8A")):
        one["assets"][key] = {
            "href": path,
            "type": "image/tiff",
            "eo:bands": [{"name": name, "common_name": "rededge"}],
        }
    assert [band.band for band in parse(one, wide).scene.bands] == ["B05", "B06", "B8A"]


@pytest.mark.parametrize("stated", [None, "", True, 1.5, ["a"], {}])
def test_an_item_without_an_id_is_refused(tmp_path, stated):
    one = item(tmp_path)
    found, _ = read(tmp_path, one | {"id": stated})
    assert not found.scenes and [rejected.reason for rejected in found.rejected] == ["bad_id"]
    del one["id"]
    assert not read(tmp_path, one)[0].scenes
    assert [scene.scene_id for scene in read(tmp_path, one | {"id": 7})[0].scenes] == ["7"]


@pytest.mark.parametrize("slashes", range(4))
def test_no_password_of_an_asset_stands_in_a_table(tmp_path, slashes):
    one = item(tmp_path)
    one["assets"]["B02"]["href"] = f"https:{'/' * slashes}user:geheim@host/x.tif"
    found, _ = read(tmp_path, one, **{"hrefs": {"schemes": ["file", "https"]}})
    assert len(found.rejected) == 1 and "geheim" not in found.rejected[0].detail
