"""A folder of GeoTIFFs: rules make scenes, nothing is lost silently, one bad file stops no other."""

from __future__ import annotations

import datetime as dt
import math
import os

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from pydantic import ValidationError
from shapely.geometry import box

from a2mae.config import CloudParameters
from a2mae.errors import ReadError
from a2mae.raster.read import RasterReader
from a2mae.raster.warp import read_image
from a2mae.scenes import CloudTest, MaskKind
from a2mae.sensors import get_sensor
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.folder import read_folder
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.ingest.rules import template_regex
from helpers.rasters import write_tif

NAIP_RULE = {
    "name": "naip", "files": "naip/{place}_{date}.tif", "sensor": "naip", "bands": ["B1", "B2", "B3", "B4"],
    "scale": 1 / 255, "offset": 0.0, "units": "dn",
}  # fmt: skip
LANDSAT_RULE = {
    "name": "landsat", "files": "**/{scene}_{date}_{band}.tif", "sensor": "landsat-oli-c2-l2",
    "bands": {f"B{i}": f"SR_B{i}" for i in range(1, 8)}, "scale": 2.75e-5, "offset": -0.2, "nodata": 0,
    "units": "reflectance", "mask": {"kind": "qa_pixel", "token": "QA"}, "date_format": "%Y%m%dT%H%M%S",
    "platform": "landsat-8",
}  # fmt: skip


def read(folder, *rules, **more):
    parameters = IngestParameters(folder=str(folder), source={"kind": "folder"}, rules=rules, workers=2, **more)
    return read_folder(parameters, SensorTable(parameters.own_sensors(), parameters.bands, parameters.use_sensors))


def reasons(found):
    return {r.scene_id: r.reason for r in found.rejected}


def write_naip(folder, name="a_20200131", **changes):
    settings = {"bands": 4, "gsd": 1.0, "dtype": "uint8", **changes}
    return write_tif(folder / "naip" / f"{name}.tif", **settings)


def write_landsat(folder, scene="s1", tokens=(*(f"B{i}" for i in range(1, 8)), "QA"), **changes):
    for token in tokens:
        write_tif(folder / "l8" / f"{scene}_20200131T101112_{token}.tif", gsd=30.0, **changes)


def test_several_bands_in_a_file(tmp_path):
    write_naip(tmp_path)
    (scene,) = read(tmp_path, NAIP_RULE).scenes
    assert scene.sensor == "naip" and scene.scene_id == "naip__a_20200131"
    assert scene.datetime == dt.datetime(2020, 1, 31, tzinfo=dt.UTC)
    assert [(a.band, a.band_index) for a in scene.assets] == [("B1", 1), ("B2", 2), ("B3", 3), ("B4", 4)]
    assert scene.assets[0].scale == 1 / 255 and scene.assets[0].nodata == 0
    assert scene.crs == "EPSG:32633" and scene.gsd_m == 1.0 and scene.cloud_test is CloudTest.NONE
    assert scene.assets[0].affine.c == 500_160.0 and scene.assets[0].shape == (200, 200)


def test_one_band_per_file_with_mask(tmp_path):
    write_landsat(tmp_path)
    (scene,) = read(tmp_path, LANDSAT_RULE).scenes
    assert [a.band for a in scene.bands] == [f"SR_B{i}" for i in range(1, 8)]
    assert all(a.href.endswith(f"_B{i}.tif") for i, a in enumerate(scene.bands, 1))
    assert scene.mask.mask is MaskKind.QA_PIXEL and scene.mask.nodata is None
    assert scene.cloud_test is CloudTest.MASK
    assert scene.datetime == dt.datetime(2020, 1, 31, 10, 11, 12, tzinfo=dt.UTC)
    assert (scene.assets[0].scale, scene.assets[0].offset) == (2.75e-5, -0.2)


def test_band_order_follows_the_sensor_not_the_file(tmp_path):
    write_naip(tmp_path)
    (scene,) = read(tmp_path, {**NAIP_RULE, "bands": ["B3", "B2", "B1", "B4"]}).scenes
    assert [(a.band, a.band_index) for a in scene.assets] == [("B1", 3), ("B2", 2), ("B3", 1), ("B4", 4)]


def test_wanted_bands_only(tmp_path):
    write_naip(tmp_path)
    (scene,) = read(tmp_path, NAIP_RULE, bands={"naip": ["red", "B4"]}).scenes
    assert [(a.band, a.band_index) for a in scene.assets] == [("B3", 3), ("B4", 4)]


def test_one_bad_file_stops_no_other(tmp_path):
    write_naip(tmp_path, "good_20200131")
    whole = write_naip(tmp_path, "cut_20200131", size=(400, 400))
    os.truncate(whole, whole.stat().st_size * 2 // 3)
    (tmp_path / "naip" / "noise_20200131.tif").write_bytes(b"II*\0" + bytes(range(256)))
    write_naip(tmp_path, "nocrs_20200131", crs=None)
    write_naip(tmp_path, "three_20200131", bands=3)
    write_naip(tmp_path, "coarse_20200131", gsd=30.0)
    write_naip(tmp_path, "undated_2020-01-31")
    (tmp_path / "naip" / "notes.txt").write_text("remember the milk")
    write_landsat(tmp_path, tokens=("B1", "B2"))
    found = read(tmp_path, NAIP_RULE, LANDSAT_RULE)
    assert [s.scene_id for s in found.scenes] == ["naip__good_20200131"]
    assert reasons(found) == {
        "naip__cut_20200131": "corrupt",
        "naip__noise_20200131": "corrupt",
        "naip__nocrs_20200131": "no_crs",
        "naip__three_20200131": "missing_band",
        "naip__coarse_20200131": "gsd_mismatch",
        "naip__undated_2020-01-31": "no_date",
        "naip/notes.txt": "no_rule",
        "l8__landsat__20200131T101112__s1": "missing_band",
    }
    assert all(r.detail for r in found.rejected)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_file_cut_short_anywhere_is_found(tmp_path, interleave):
    path = write_naip(tmp_path, size=(300, 300), interleave=interleave)
    size = path.stat().st_size
    for keep in (size - 1, size // 2):
        os.truncate(path, keep)
        assert list(reasons(read(tmp_path, NAIP_RULE)).values()) == ["corrupt"]


@pytest.mark.parametrize(
    ("scale", "offset"), [(0.0, 0.0), (math.nan, 0.0), (1e300, 0.0), (1e-4, math.inf), (1e-4, -1e300)]
)
def test_tags_that_decode_nothing_cost_their_scene(tmp_path, scale, offset):
    for name in ("good_20200131", "odd_20200131"):
        path = write_naip(tmp_path, name)
        with rasterio.open(path, "r+") as target:
            target.scales = (scale,) * 4 if "odd" in name else (0.004,) * 4
            target.offsets = (offset,) * 4 if "odd" in name else (0.0,) * 4
    rule = {k: v for k, v in NAIP_RULE.items() if k not in ("scale", "offset")}
    found = read(tmp_path, rule)
    assert [s.scene_id for s in found.scenes] == ["naip__good_20200131"]
    assert reasons(found) == {"naip__odd_20200131": "bad_metadata"}


def test_unknown_sensor_and_units(tmp_path):
    write_naip(tmp_path)
    found = read(tmp_path, {**NAIP_RULE, "sensor": "nap"})
    assert reasons(found) == {"naip__a_20200131": "unknown_sensor"}
    assert "Did you mean 'naip'" in found.rejected[0].detail
    assert list(reasons(read(tmp_path, {**NAIP_RULE, "units": "reflectance"})).values()) == ["units_mismatch"]


def test_a_rule_that_takes_no_file_is_warned_of(tmp_path, caplog):
    write_naip(tmp_path)
    found = read(tmp_path, NAIP_RULE, LANDSAT_RULE)
    assert len(found.scenes) == 1
    (record,) = (record for record in caplog.records if "takes no file" in record.message)
    (flagged,) = (record for record in caplog.records if "as alpha" in record.message)
    assert record.levelname == "WARNING"
    assert "files of naip flag a band as alpha that their rule names" in flagged.message  # four bytes: GDAL's default
    assert "rule 'landsat' takes no file" in record.message and "'**/{scene}_{date}_{band}.tif'" in record.message


def test_a_mistyped_band_names_its_neighbour(tmp_path):
    write_naip(tmp_path)
    (rejected,) = read(tmp_path, {**NAIP_RULE, "bands": ["B1", "B2", "B03", "B4"]}).rejected
    assert rejected.reason == "missing_band" and "'B03': did you mean 'B3'?" in rejected.detail
    (rejected,) = read(tmp_path, {**NAIP_RULE, "bands": ["B1", "B2", "B4", None]}, bands={"naip": ("B3",)}).rejected
    assert "did you mean" not in rejected.detail, "the others are bands of the sensor, only not wanted"


def test_counts_without_a_scale_are_not_guessed(tmp_path):
    write_naip(tmp_path)
    rule = {k: v for k, v in NAIP_RULE.items() if k not in ("scale", "offset")}
    assert list(reasons(read(tmp_path, rule)).values()) == ["no_scale"]


@pytest.mark.parametrize(
    ("stated", "declared", "expected"),
    [
        ("file", -9999.0, -9999.0),
        ("none", 0.0, None),
        ("-inf", None, -math.inf),
        ("nan", None, math.nan),
        (7, 0.0, 7.0),
    ],
)
def test_nodata_of_every_kind(tmp_path, stated, declared, expected):
    write_naip(tmp_path, dtype="float32", nodata=declared)
    (scene,) = read(tmp_path, {**NAIP_RULE, "nodata": stated}).scenes
    got = scene.assets[0].nodata
    assert (got is None) if expected is None else np.array_equal([got], [expected], equal_nan=True)


def test_probability_in_the_same_file(tmp_path):
    write_naip(tmp_path, bands=5)
    rule = {**NAIP_RULE, "bands": ["B1", "B2", "B3", "B4", None],
            "mask": {"kind": "probability", "band_index": 5, "scale": 0.01}}  # fmt: skip
    (scene,) = read(tmp_path, rule).scenes
    assert (scene.mask.band_index, scene.mask.scale, scene.mask.nodata) == (5, 0.01, None)


def test_degrees_give_metres_and_the_true_outline(tmp_path):
    write_naip(tmp_path, crs="EPSG:4326", gsd=1e-5, left=12.0, top=48.0)
    (scene,) = read(tmp_path, NAIP_RULE).scenes
    assert scene.gsd_m == pytest.approx(math.sqrt(1.1119 * 0.7453), rel=0.01)  # 1e-5 degrees north and east at 48 N
    assert scene.geometry.equals_exact(box(12.0, 47.998, 12.002, 48.0), 1e-9) or scene.geometry.symmetric_difference(
        box(12.0, 47.998, 12.002, 48.0)
    ).area == pytest.approx(0, abs=1e-12)


def test_excluded_files_are_counted(tmp_path):
    write_naip(tmp_path)
    for i in range(3):
        write_tif(tmp_path / "labels" / f"{i}.tif")
    found = read(tmp_path, NAIP_RULE, exclude=[{"files": "labels/**", "why": "labels"}])
    assert [(r.reason, r.detail) for r in found.rejected] == [("excluded", "3 files match 'labels/**': labels")]


def test_links_out_of_the_folder_are_rejected(tmp_path):
    outside = write_naip(tmp_path / "outside")
    inside = tmp_path / "in" / "naip"
    inside.mkdir(parents=True)
    (inside / "a_20200131.tif").symlink_to(outside)
    assert reasons(read(tmp_path / "in", NAIP_RULE)) == {"naip__a_20200131": "bad_href"}


def test_landsat_metadata_gives_date_and_factors(tmp_path):
    write_landsat(tmp_path)
    (tmp_path / "l8" / "s1_MTL.txt").write_text(
        'GROUP = L1\n  SPACECRAFT_ID = "LANDSAT_8"\n  DATE_ACQUIRED = 2015-08-04\n'
        '  SCENE_CENTER_TIME = "16:19:21.7917421Z"\n'
        "  CLOUD_COVER = 11.08\n  SUN_ELEVATION = 30.0\n"
        + "".join(f"  REFLECTANCE_MULT_BAND_{i} = 2.0E-05\n  REFLECTANCE_ADD_BAND_{i} = -0.1\n" for i in range(1, 8))
    )
    found = read(tmp_path, {**LANDSAT_RULE, "landsat_mtl": "{scene}_MTL.txt", "platform": ""})
    (scene,) = found.scenes
    assert (scene.assets[0].scale, scene.assets[0].offset) == (pytest.approx(4e-5), pytest.approx(-0.2))  # / sin 30
    assert scene.platform == "landsat-8" and scene.cloud_cover_pct == 11.08
    assert scene.datetime == dt.datetime(2015, 8, 4, 16, 19, 21, 791742, tzinfo=dt.UTC)
    (tmp_path / "l8" / "s1_MTL.txt").unlink()
    assert set(reasons(read(tmp_path, {**LANDSAT_RULE, "landsat_mtl": "{scene}_MTL.txt"})).values()) == {"no_metadata"}


def test_a_folder_must_be_there_and_hold_something(tmp_path):
    with pytest.raises(ValueError, match=r"ingest\.folder=PATH"):
        read_folder(IngestParameters(source={"kind": "folder"}), SensorTable({}))
    with pytest.raises(ValueError, match="is not a folder"):
        read(tmp_path / "nowhere", NAIP_RULE)
    with pytest.raises(ValueError, match="is not a folder"):
        read("x" * 1000, NAIP_RULE)
    with pytest.raises(ValueError, match="holds no file"):
        read(tmp_path, NAIP_RULE)


@pytest.mark.parametrize(
    "change",
    [
        {"regex": "x"},
        {"files": None},
        {"bands": {"b1": "B1"}},
        {"cloud_test": "mask"},
        {"mask": {"kind": "scl"}},
        {"mask": {"kind": "none", "band_index": 1}},
        {"colour": "red"},
    ],
)
def test_rules_that_cannot_be_meant(change):
    with pytest.raises(ValidationError):
        IngestParameters(rules=[{**NAIP_RULE, **change}])


def test_patterns():
    import re

    def match(template, path):
        found = re.fullmatch(template_regex(template), path)
        return None if found is None else found.groupdict()

    assert match("a/{d}_*.tif", "a/2020_x.y.tif") == {"d": "2020"}
    assert match("a/*.tif", "a/b/c.tif") is None
    assert match("**/{n}.tif", "a/b/c.tif") == {"n": "c"} == match("**/{n}.tif", "c.tif")
    assert match("{n}/{n}.tif", "a/b.tif") is None and match("{n}/{n}.tif", "a/a.tif") == {"n": "a"}
    assert match("a?.tif", "a/.tif") is None and match("a.tif", "axtif") is None


def test_bands_that_a_file_describes_in_another_order_are_rejected(tmp_path):
    for name, described in (("right", ["red", "green", "B1", "NIR"]), ("wrong", ["NIR", "red", "green", "blue"])):
        with rasterio.open(write_naip(tmp_path, f"{name}_20200131"), "r+") as file:
            for index, text in enumerate(described, start=1):
                file.set_band_description(index, text)
    found = read(tmp_path, {**NAIP_RULE, "bands": ["B3", "B2", "B1", "B4"]})
    assert [scene.scene_id for scene in found.scenes] == ["naip__right_20200131"]
    (rejected,) = found.rejected
    assert rejected.reason == "band_order"
    assert "describes its band 1 as 'NIR', but rule 'naip' says that it is B3" in rejected.detail


def test_tags_that_contradict_a_rule_are_rejected_with_both(tmp_path):
    for name, scale in (("same", 1 / 255), ("other", 1e-4)):
        with rasterio.open(write_naip(tmp_path, f"{name}_20200131"), "r+") as file:
            file.scales = [scale] * 4
    found = read(tmp_path, NAIP_RULE)
    assert [scene.scene_id for scene in found.scenes] == ["naip__same_20200131"]
    assert [(r.reason, "rule 'naip' says scale 0.00392157" in r.detail) for r in found.rejected] == [
        ("scale_tags", True)
    ]


@pytest.mark.parametrize("kept", [["B1", "B2", "B3", "B4"], ["B3", "B2"]])
def test_a_near_infrared_band_that_is_flagged_as_alpha_masks_nothing(tmp_path, kept):
    """Water is 0 in it: lakes would be missing from every image, unasked."""
    path = write_naip(tmp_path, nodata=None)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*file.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
        nir = file.read(4)
        nir[:50] = 0
        file.write(nir, 4)
    rule = {**NAIP_RULE, "bands": ["B3", "B2", "B1", "B4"]}
    (scene,) = read(tmp_path, rule, bands={"naip": kept}).scenes
    grid = GeoBox(scene.assets[0].shape, scene.assets[0].affine, scene.crs)
    sensor = get_sensor("naip").subset(kept)
    with RasterReader() as reader:
        assert read_image(reader, scene, sensor, grid, None).seen.all()
    if "B4" in kept:
        return
    (scene,) = read(tmp_path, {**rule, "bands": ["B3", "B2", "B1", None]}, bands={"naip": kept}).scenes
    with RasterReader() as reader, pytest.raises(ReadError, match="band 4 is flagged as alpha, but holds more"):
        read_image(reader, scene, sensor, grid, None)
    with rasterio.open(path, "r+") as file:
        file.write(np.where(nir, 255, 0).astype(np.uint8), 4)
    with RasterReader() as reader:
        np.testing.assert_array_equal(read_image(reader, scene, sensor, grid, None).seen, nir > 0)


def test_a_cloud_mask_that_is_flagged_as_alpha_hides_no_clear_ground(tmp_path):
    """GDAL flags the fourth of four bands of bytes as alpha, and 0 is clear in a mask."""
    path = write_naip(tmp_path, nodata=None)
    with rasterio.open(path, "r+") as file:
        clouds = np.zeros((200, 200), np.uint8)
        clouds[:50] = 1
        file.write(clouds, 4)
        file.colorinterp = [*file.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
    rule = {**NAIP_RULE, "bands": ["B3", "B2", "B1", None], "mask": {"kind": "binary", "band_index": 4}}
    (scene,) = read(tmp_path, rule, bands={"naip": ["B3", "B2", "B1"]}).scenes
    grid = GeoBox(scene.assets[0].shape, scene.assets[0].affine, scene.crs)
    with RasterReader() as reader:
        image = read_image(
            reader, scene, get_sensor("naip").subset(["B3", "B2", "B1"]), grid, CloudParameters(buffer_m=0)
        )
    assert image.seen.all()
    np.testing.assert_array_equal(image.cloud, clouds == 1)
