"""Deliveries as they come: several folders, masks and metadata beside the bands, links, endings, dates."""

from __future__ import annotations

import datetime as dt
import re
import time

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rasterio.transform import from_origin

from a2mae.config import CloudParameters
from a2mae.raster.read import RasterReader
from a2mae.raster.warp import Footprint, read_image
from a2mae.scenes import MaskKind
from a2mae.sensors import get_sensor
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.folder import read_folder
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.ingest.rules import FolderRule, date_regex, template_regex
from helpers.rasters import write_tif

BANDS = ("B02", "B03", "B04", "B08")
RULE = {
    "name": "s2", "files": "S2_{date}.tif", "sensor": "sentinel-2-l2a", "bands": list(BANDS), "scale": 1e-4,
    "offset": 0.0, "nodata": 0, "units": "reflectance",
}  # fmt: skip
S2 = {"bands": {"sentinel-2-l2a": BANDS}}


def read(folder, *rules, **more):
    parameters = IngestParameters(**{"folder": str(folder), "rules": rules, "workers": 2, **more})
    return read_folder(parameters, SensorTable(parameters.own_sensors(), parameters.bands, parameters.use_sensors))


def reasons(found):
    return {r.scene_id: r.reason for r in found.rejected}


# --- Sentinel-2's .SAFE: three folders, bands at several pixel sizes --------------------------------------------------

SIZES = {
    10: ("B02", "B03", "B04", "B08"),
    20: ("B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11", "B12", "SCL"),
    60: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B09", "B11", "B12", "SCL"),
}
SAFE_RULE = {
    "name": "safe", "files": "**/R*m/T*_{date}_{band}_{res}m.jp2", "sensor": "sentinel-2-l2a",
    "bands": {b: b for b in (*SIZES[60][:-1], "B08")}, "date_format": "%Y%m%dT%H%M%S", "scale": 1e-4, "offset": -0.1,
    "nodata": 0, "units": "reflectance", "mask": {"kind": "scl", "token": "SCL"},
}  # fmt: skip


def write_safe(root, when="20230601T102031", tile="T33UUU", left=399_960.0, without=()):
    product = f"S2A_MSIL2A_{when}_N0509_R065_{tile}_{when[:8]}T163400.SAFE"
    folder = root / product / f"GRANULE/L2A_{tile}_A041000_{when}/IMG_DATA"
    for gsd, bands in SIZES.items():
        for band in bands:
            if band not in without:
                path = folder / f"R{gsd}m" / f"{tile}_{when}_{band}_{gsd}m.jp2"
                write_tif(path, size=(1200 // gsd, 1200 // gsd), gsd=gsd, left=left, driver="JP2OpenJPEG", nodata=None,
                          QUALITY="100", REVERSIBLE="YES", blockxsize=1024, blockysize=1024, tiled=None,
                          compress=None)  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_bands_of_a_safe_are_joined_across_its_folders(tmp_path):
    for when in ("20230601T102031", "20230611T102031"):
        write_safe(tmp_path, when)
    found = read(tmp_path, SAFE_RULE)
    assert found.rejected == [] and len(found.scenes) == 2
    for scene in found.scenes:
        assert tuple(a.band for a in scene.bands) == get_sensor("sentinel-2-l2a").band_names
        gsd = {a.band: a.gsd_m for a in scene.assets}
        assert [gsd[b] for b in ("B02", "B08", "B05", "B8A", "B01", "B09", "SCL")] == [10, 10, 20, 20, 60, 60, 20]
        assert scene.mask.mask is MaskKind.SCL and (scene.gsd_m, scene.crs) == (10, "EPSG:32633")
    assert [s.datetime for s in found.scenes] == [dt.datetime(2023, 6, d, 10, 20, 31, tzinfo=dt.UTC) for d in (1, 11)]
    (scene, _) = read(tmp_path, {k: v for k, v in SAFE_RULE.items() if k != "mask"}, **S2).scenes
    assert [a.gsd_m for a in scene.assets] == [10] * 4, "R20m has all of them, R10m the finer ones"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_only_files_of_the_same_ground_are_joined(tmp_path):
    for tile, left, without in (("T33UUU", 399_960.0, ("B02",)), ("T33UVU", 499_980.0, ("B08",))):
        write_safe(tmp_path, tile=tile, left=left, without=without)
    found = read(tmp_path, SAFE_RULE)
    assert found.scenes == [] and set(reasons(found).values()) == {"missing_band"}
    folders = {}
    for name, left in (("a", 500_160.0), ("b", 520_160.0)):  # sites, side by side: B04 of one, the rest of the other
        for band in BANDS[:2] if name == "a" else BANDS[2:]:
            write_tif(tmp_path / "sites" / name / f"20230601_{band}.tif", left=left)
            folders[name] = left
    rule = {**RULE, "files": "sites/*/{date}_{band}.tif", "bands": {b: b for b in BANDS}}
    assert len(reasons(read(tmp_path, rule, **S2, exclude=[{"files": "**/*.jp2", "why": "other"}]))) == 3


# --- masks and metadata beside the bands ------------------------------------------------------------------------------


def test_a_mask_in_a_file_of_its_own(tmp_path):
    for date in ("20230601", "20230611"):
        write_tif(tmp_path / f"S2_{date}.tif", bands=4)
        write_tif(tmp_path / f"SCL_{date}.tif", gsd=20.0, size=(100, 100), dtype="uint8", nodata=None)
    (tmp_path / "SCL_20230611.tif").unlink()
    found = read(tmp_path, {**RULE, "mask": {"kind": "scl", "file": "SCL_{date}.tif"}}, **S2)
    (scene,) = found.scenes
    assert scene.mask.href.endswith("SCL_20230601.tif") and (scene.mask.gsd_m, scene.mask.band_index) == (20, 1)
    assert reasons(found) == {"S2_20230611": "missing_file"}, "its mask is not there; the other mask is no lost file"


def test_the_first_band_of_udm2_says_what_is_clear(tmp_path):
    write_tif(tmp_path / "a" / "S2_20230601.tif", bands=4, nodata=None, dtype="uint16")
    clear = np.ones((8, 200, 200), "uint8")
    clear[0, :, :50] = 0
    with rasterio.open(
        tmp_path / "a" / "S2_20230601_udm2.tif", "w", driver="GTiff", count=8, height=200, width=200, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(500_160, 4_649_280, 10, 10),
    ) as target:  # fmt: skip
        target.write(clear)
    mask = {"kind": "clear", "file": "S2_{date}_udm2.tif", "band_index": 1}
    found = read(tmp_path, {**RULE, "files": "**/S2_{date}.tif", "mask": mask}, **S2)
    (scene,) = found.scenes
    assert found.rejected == [] and scene.mask.mask is MaskKind.CLEAR
    sensor = get_sensor("sentinel-2-l2a").subset(BANDS)
    footprint = Footprint("here", "EPSG:32633", 500_160, 4_649_280, 2000)
    with RasterReader() as reader:
        image = read_image(reader, scene, sensor, footprint.grid(10), CloudParameters(buffer_m=0))
    assert image.cloud_fraction == 0.25 and not image.valid[:, :50].any() and image.valid[:, 50:].all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mask": {"kind": "scl", "token": "SCL"}}, r"A file of its own beside them: file, for example SCL_\{date\}"),
        ({"mask": {"kind": "scl", "asset": "scl"}}, "cannot be found so"),
        ({"mask": {"kind": "scl", "band_index": 5}, "files": "{date}_{band}.tif", "bands": {"a": "B02"}}, "token"),
        ({"mask": {"kind": "scl", "file": "a.tif", "token": "SCL"}}, "exactly one of band_index, file, token"),
    ],
)
def test_masks_that_no_file_could_give_are_refused_at_the_door(change, told):
    with pytest.raises(ValidationError, match=told):
        FolderRule(**{**RULE, **change})


def test_a_profile_needs_the_key_of_its_mask():
    with pytest.raises(ValidationError, match="give asset"):
        IngestParameters(stac_profiles=[{"name": "p", "match": {"id": "x"}, "sensor": "naip",
                                         "mask": {"kind": "scl", "token": "SCL"}}])  # fmt: skip


# --- links, endings, dates --------------------------------------------------------------------------------------------


def test_linked_folders_are_followed_inside_the_roots_and_told_elsewhere(tmp_path):
    for folder, date in (("in", "20230601"), ("nas", "20230611"), ("secret", "20230621")):
        write_tif(tmp_path / folder / "x" / f"S2_{date}.tif", bands=4)
    links = {"nas": "nas", "twice": "nas/x", "out": "secret", "loop": "in", "again": "in/x"}
    for name, target in links.items():
        (tmp_path / "in" / name).symlink_to(tmp_path / target)
    found = read(tmp_path / "in", {**RULE, "files": "**/S2_{date}.tif"}, hrefs={"roots": [str(tmp_path / "nas")]}, **S2)
    assert [s.scene_id for s in found.scenes] == ["nas__x__S2_20230611", "x__S2_20230601"]
    assert reasons(found) == {
        "loop": "linked_twice",
        "again": "linked_twice",
        "twice": "linked_twice",
        "out": "bad_href",
    }
    assert "ingest.hrefs.roots" in next(r.detail for r in found.rejected if r.scene_id == "out")


@pytest.mark.parametrize("ending", [".TIF", ".Tif", ".tif"])
def test_endings_may_be_in_upper_case(tmp_path, ending):
    write_tif(tmp_path / f"S2_20230601{ending}", bands=4)
    found = read(tmp_path, RULE, **S2)
    assert [s.scene_id for s in found.scenes] == ["S2_20230601"] and found.rejected == []
    assert re.fullmatch(template_regex("a.b/C.tif"), "A.b/C.tif") is None, "the ending alone"


def test_a_date_is_what_its_format_reads(tmp_path):
    for row in (0, 200):
        write_tif(tmp_path / f"S2_2023-06-01-{row:010d}-0000000000.tif", bands=4, top=4_649_280.0 - 10 * row)
    write_tif(tmp_path / "S2_June-0-0.tif", bands=4)
    found = read(tmp_path, {**RULE, "files": "S2_{date}-*-*.tif", "date_format": "%Y-%m-%d"}, **S2)
    assert {s.datetime for s in found.scenes} == {dt.datetime(2023, 6, 1, tzinfo=dt.UTC)} and len(found.scenes) == 2
    assert reasons(found) == {"S2_June-0-0": "no_date"}, "no date, rather than no rule"


FORMATS = (
    "%Y%m%d",
    "%Y-%m-%d",
    "%Y%m%dT%H%M%S",
    "%d.%m.%y",
    "%Y%j",
    "%d %b %Y",
    "%B-%d-%Y %I%p",
    "%Y-%m-%dT%H:%M:%S.%f%z",
)


@given(st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2060, 1, 1)), st.sampled_from(FORMATS))
@settings(max_examples=200, deadline=None)
def test_law_a_date_matches_what_its_format_writes_and_no_less(when, date_format):
    text = when.replace(tzinfo=dt.UTC).strftime(date_format)
    found = re.fullmatch(f"a_(?P<date>{date_regex(date_format)})[-_].*", f"a_{text}-0000-12_3.tif")
    assert found is not None and found["date"] == text
    assert dt.datetime.strptime(found["date"], date_format)


def test_years_that_no_image_is_of(tmp_path):
    write_tif(tmp_path / "S2_00010101.tif", bands=4)
    assert reasons(read(tmp_path, RULE, **S2)) == {"S2_00010101": "no_date"}


def test_names_that_are_no_text_cost_their_file(tmp_path):
    write_tif(tmp_path / "S2_20230601.tif", bands=4)
    (tmp_path / b"S2_\xff.tif".decode("utf-8", "surrogateescape")).write_bytes(b"")
    found = read(tmp_path, RULE, **S2)
    assert len(found.scenes) == 1 and [r.reason for r in found.rejected] == ["bad_href"]
    assert "no UTF-8" in found.rejected[0].detail and found.rejected[0].scene_id.encode()


def test_a_pipe_among_the_files_keeps_nobody_waiting(tmp_path):
    import os

    write_tif(tmp_path / "S2_20230601.tif", bands=4)
    os.mkfifo(tmp_path / "S2_20230611.tif")
    start = time.monotonic()
    assert reasons(read(tmp_path, RULE, **S2)) == {"S2_20230611": "missing_file"} and time.monotonic() - start < 5
