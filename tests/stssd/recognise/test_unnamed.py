"""Names that no provider has given: dates and bands are found in them, and what the files do not say is asked."""

from __future__ import annotations

import os
import time

import pytest
import yaml

from a2mae.commands.environment import propose
from a2mae.errors import InputError
from a2mae.scenes import MaskKind
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.folder import read_folder
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.recognise import look
from a2mae.stssd.recognise.layout import footprint_for
from a2mae.stssd.recognise.names import band_in, dates_in, pattern_of
from a2mae.stssd.recognise.recognise import recognise, state
from helpers.deliveries import write

S2 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")


def only(folder):
    (product,) = recognise(folder).products
    return product


def ingested(folder, **stated):
    """What ingest finds with the environment that is proposed after these answers."""
    recognition = recognise(folder)
    (product,) = recognition.products
    environment = propose(recognition, "mine", [state(product, **stated)])
    assert environment.to_state == []
    parameters = IngestParameters(**yaml.safe_load(environment.files["parameters_ingest.yml"])["ingest"])
    found = read_folder(parameters, SensorTable(parameters.own_sensors()))
    assert {one.reason for one in found.rejected} <= {"excluded"}, found.rejected
    return found.scenes


@pytest.mark.parametrize(
    ("name", "date", "read"),
    [
        ("lake_13jan2020_fine.tif", "13jan2020", "%d%b%Y"),
        ("lake-13-Jan-2020.tif", "13-Jan-2020", "%d-%b-%Y"),
        ("2020-01-13/B04.tif", "2020-01-13", "%Y-%m-%d"),
        ("x_20200113_7.tif", "20200113", "%Y%m%d"),
        ("x_13012020.tif", "13012020", "%d%m%Y"),
        ("x.2020.01.13.tif", "2020.01.13", "%Y.%m.%d"),
        ("S2_2020-01-13-22-01-55_ms.tif", "2020-01-13-22-01-55", "%Y-%m-%d-%H-%M-%S"),
        ("MOD_A2020013.tif", "2020013", "%Y%j"),
    ],
)
def test_a_date_is_found_in_a_name(name, date, read):
    (found,) = dates_in(name)
    assert (name[found.start : found.end], found.date_format) == (date, read)


@pytest.mark.parametrize(
    "name", ["Betula_spec._1_15679_WEFL.tif", "tile_20201399.tif", "naip_2019.tif", "a_123456789.tif"]
)
def test_other_numbers_are_no_dates(name):
    assert dates_in(name) == []


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("x_20200113_SR_B4.tif", "SR_B4"),
        ("L8-B10-Elkton.tiff", "B10"),
        ("a/red.tif", "red"),
        ("S2_QA_PIXEL.tif", "QA_PIXEL"),
        ("b1_x_B8A.tif", "B8A"),
        ("field.tif", None),
        ("predator.tif", None),
    ],
)
def test_a_band_is_a_word_of_its_own(name, band):
    span = band_in(name)
    assert (None if span is None else name[slice(*span)]) == band


def test_a_pattern_takes_what_it_is_made_of_and_nothing_else():
    none = lambda _: None  # noqa: E731
    assert pattern_of(["plot-17.tif", "plot-18.tif"], [], none, none) == ("files", "plot-*.tif")
    assert pattern_of(["a/x_1.tif", "b/x_2.tif"], ["c.tif"], none, none) == ("files", "*/x_*.tif")
    assert pattern_of(["a_1.tif", "a_2.tif"], ["a_3.tif"], none, none) == ("regex", r"(?:a_1\.tif|a_2\.tif)")


def test_descriptions_of_an_earth_engine_export_say_sensor_bands_and_mask(tmp_path):
    for date in ("2021-06-01", "2021-07-01"):
        write(tmp_path / f"tile_{date}.tif", bands=14, low=200, high=4000, descriptions=(*S2, "SCL", "QA60"))
    scenes = ingested(tmp_path)
    assert {scene.sensor for scene in scenes} == {"sentinel-2-l2a"} and len(scenes) == 2
    assert {(a.scale, a.offset, a.nodata) for a in scenes[0].bands} == {(1e-4, 0.0, 0.0)}
    assert (scenes[0].mask.mask, scenes[0].mask.band_index) == (MaskKind.SCL, 13)


def test_an_offset_is_told_by_dark_pixels_or_asked(tmp_path):
    write(tmp_path / "dark" / "S2_L2A_20220601.tif", bands=12, low=200, high=4000, descriptions=S2)
    write(tmp_path / "bright" / "S2_L2A_20220601.tif", bands=12, low=1300, high=4000, descriptions=S2)
    dark, bright = only(tmp_path / "dark").rule["offset"], only(tmp_path / "bright").rule["offset"]
    assert dark.value == 0.0 and "which no surface has" in dark.evidence
    assert not bright.known and "both possible" in bright.evidence


def test_landsat_of_earth_engine_has_usgs_factors_and_its_floats_none(tmp_path):
    bands = ("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "QA_PIXEL")
    write(tmp_path / "counts" / "x_20210601.tif", bands=6, gsd=30, low=8000, high=20_000, descriptions=bands)
    write(
        tmp_path / "floats" / "x_20210601.tif", bands=6, gsd=30, low=0.01, high=0.5, dtype="float32", descriptions=bands
    )
    (scene,) = ingested(tmp_path / "counts")
    assert scene.sensor == "landsat-oli-c2-l2-5b" and scene.mask.band_index == 6
    assert {(a.scale, a.offset) for a in scene.bands} == {(2.75e-5, -0.2)}
    (scene,) = ingested(tmp_path / "floats")
    assert {(a.scale, a.offset) for a in scene.bands} == {(1.0, 0.0)}


def test_bands_of_odc_stac_in_dated_folders(tmp_path):
    for date in ("2021-06-01", "2021-07-01"):
        for band in ("B02", "B03", "B04", "B08", "B12", "SCL"):
            kind = {"dtype": "uint8", "low": 4, "high": 6} if band == "SCL" else {"low": 200}
            write(tmp_path / date / f"{band}.tif", nodata=0, **kind)
    scenes = ingested(tmp_path)
    assert [f"{scene.datetime:%Y-%m-%d}" for scene in scenes] == ["2021-06-01", "2021-07-01"]
    assert scenes[0].sensor == "sentinel-2-l2a-5b" and scenes[0].mask.mask is MaskKind.SCL


def test_tags_of_scale_and_offset_are_read(tmp_path):
    import rasterio

    path = write(tmp_path / "S2_L2A_20210601.tif", bands=12, descriptions=S2, low=1300)
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = (1e-4,) * 12, (-0.1,) * 12
    assert {(a.scale, a.offset) for a in ingested(tmp_path)[0].bands} == {(1e-4, -0.1)}


def test_what_the_files_do_not_say_is_asked_and_an_answer_says_what_follows(tmp_path):
    write(tmp_path / "scene_20210601.tif", bands=12, low=150)
    product = only(tmp_path)
    assert product.unknown == ("sensor", "bands", "units", "scale", "offset", "cloud_test")
    assert product.rule["sensor"].suggestion == "sentinel-2-l2a"
    told = state(product, sensor="sentinel-2-l2a")
    assert told.unknown == ("bands", "scale") and told.rule["offset"].value == 0.0 and told.rule["nodata"].value == 0
    (scene,) = ingested(tmp_path, sensor="sentinel-2-l2a", bands=list(told.rule["bands"].suggestion), scale=1e-4)
    assert scene.cloud_test.value == "brightness" and len(scene.bands) == 12


def test_a_sensor_that_nobody_knows_is_described_by_its_bands(tmp_path):
    write(tmp_path / "flight_20210601.tif", bands=4, gsd=0.0833, side_m=20, dtype="uint8", low=5, high=250)
    assert only(tmp_path).unknown == ("sensor", "bands"), "neither photometric tags nor alpha say the order"
    (scene,) = ingested(tmp_path, sensor="my-drone", bands=["nir", "green", None, "red"])
    assert [(a.band, a.band_index) for a in scene.bands] == [("nir", 1), ("green", 2), ("red", 4)]
    assert scene.sensor == "my-drone" and scene.bands[0].scale == 1 / 255


def test_a_picture_in_8_bits_is_not_the_reflectance_of_its_satellite(tmp_path):
    write(tmp_path / "S2_L2A_20210601.tif", bands=3, dtype="uint8", low=5, high=250, descriptions=("B4", "B3", "B2"))
    product = only(tmp_path)
    assert product.unknown == ("sensor",) and "8 bits are a picture" in product.rule["sensor"].evidence
    assert product.rule["units"].value == "dn"


def test_days_and_months_that_can_be_swapped_are_asked(tmp_path):
    for date in ("03-04-2021", "05-06-2021"):
        write(tmp_path / f"S2_L2A_{date}.tif", bands=12, descriptions=S2, low=150)
    assert only(tmp_path).unknown == ("date_format",)
    write(tmp_path / "S2_L2A_25-06-2021.tif", bands=12, descriptions=S2, low=150)
    assert only(tmp_path).rule["date_format"].value == "%d-%m-%Y"


def test_products_of_one_folder_are_told_apart(tmp_path):
    write(tmp_path / "S2_L2A_20210601.tif", bands=12, descriptions=S2, low=150)
    write(tmp_path / "air_20210601.tif", bands=4, gsd=1, dtype="uint8", low=5, high=250)
    write(tmp_path / "labels_20210601.tif", dtype="uint8", low=0, high=4)
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / "cube.h5").write_bytes(b"\x89HDF")
    recognition = recognise(tmp_path)
    assert {product.name for product in recognition.products} == {"s2-l2a", "air"}
    assert [aside.why.split(":")[0] for aside in recognition.asides] == [
        "labels",
        "HDF5, which is not read",
        "no raster that is read",
    ]


def test_class_folders_are_data_of_a_task(tmp_path):
    for name in ("forest", "river", "town"):
        for k in range(3):
            write(tmp_path / name / f"{name}_{k}.tif", bands=3, side_m=640)
    recognition = recognise(tmp_path)
    assert recognition.products == () and "3 class folders without dates" in recognition.asides[0].why


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_none(tmp_path):
    for path, told in (("nowhere", "is not there"), ("", "holds no file")):
        with pytest.raises(InputError, match=told):
            recognise(tmp_path / path)
    (tmp_path / "a.zip").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    with pytest.raises(InputError, match=r"is a file, .* add --unpack"):
        recognise(tmp_path / "a.zip")
    with pytest.raises(InputError, match=r"holds no GeoTIFF, .* \(1 \.zip\)"):
        recognise(tmp_path)


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    write(tmp_path / "a.tif")
    monkeypatch.setattr(look.os, "scandir", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\): change its access"):
        recognise(tmp_path)


def test_many_files_are_looked_at_in_part_and_that_is_said(tmp_path, monkeypatch):
    for k in range(40):
        write(tmp_path / f"S2_L2A_202101{k % 28 + 1:02d}_{k}.tif", bands=12, descriptions=S2, low=150, side_m=60)
    recognition = recognise(tmp_path)
    assert recognition.products[0].scenes == 40 and recognition.products[0].opened == 6
    assert recognition.notes == ("6 of 40 rasters were looked into; ingest opens every one",)
    monkeypatch.setattr(look, "MOST_LISTED", 30)
    notes = recognise(tmp_path).notes
    assert "more than 30 files: only so many names were read" in notes[0]


def test_mixed_reference_systems_are_one_product(tmp_path):
    write(tmp_path / "S2_L2A_20210601_a.tif", bands=12, descriptions=S2, low=150)
    write(tmp_path / "S2_L2A_20210601_b.tif", bands=12, descriptions=S2, low=150, crs="EPSG:32634", left=200_000)
    assert len(ingested(tmp_path)) == 2


def test_files_that_lie_are_named_and_the_others_go_on(tmp_path):
    for date in ("20210601", "20210602", "20210603"):
        write(tmp_path / f"S2_L2A_{date}.tif", bands=12, descriptions=S2, low=150)
    whole = (tmp_path / "S2_L2A_20210602.tif").read_bytes()
    (tmp_path / "S2_L2A_20210602.tif").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "S2_L2A_20210603.tif").write_text("<html>not found</html>")
    write(tmp_path / "S2_L2A_20210604.tif", bands=12, descriptions=S2, low=150, crs=None)
    recognition = recognise(tmp_path)
    why = dict(recognition.unusable)
    assert "cannot be opened" in why["S2_L2A_20210602.tif"] and "first bytes" in why["S2_L2A_20210603.tif"]
    assert "no coordinate reference system" in why["S2_L2A_20210604.tif"]
    assert recognition.products[0].scenes == 1


@pytest.mark.parametrize(
    ("gsds", "side", "footprint"),
    [((10,), 110_000, 1920), ((10, 15), 4200, 960), ((5,), 3615, 960), ((0.2,), 61, 24), ((1, 30), 300, 120),
     ((10, 7), 3000, 1330), ((30, 13), 500, 390)],
)  # fmt: skip
def test_squares_are_whole_pixels_and_fit_into_the_smallest_scene(gsds, side, footprint):
    assert footprint_for(gsds, side) == footprint


def test_many_files_take_time_that_grows_with_their_number(tmp_path):
    """Twenty thousand names: what compares each with each takes minutes of them."""
    first = write(tmp_path / "in/t0_20210101.tif", bands=4, dtype="uint8", side_m=320, low=5, high=250)
    for number in range(1, 20_000):
        os.link(first, tmp_path / f"in/t{number}_2021{1 + number % 12:02}01.tif")
    began = time.process_time()
    (product,) = recognise(tmp_path / "in").products
    assert product.scenes == 20_000 and product.opened == 6
    assert time.process_time() - began < 20
