"""What providers deliver is recognised, and what is written of it reads the files as they are meant."""

from __future__ import annotations

import re

import pytest
import rasterio
import yaml

from a2mae.commands.environment import propose
from a2mae.errors import InputError
from a2mae.scenes import CloudTest, MaskKind
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.folder import read_folder
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.recognise.facts import known_sensors
from a2mae.stssd.recognise.layout import lay_out
from a2mae.stssd.recognise.recognise import recognise
from helpers.deliveries import write, write_landsat, write_mtl, write_safe

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pyproj: one unit of a JPEG 2000's CRS


def ingested(folder):
    """What ingest finds with the environment that is proposed, which asks nothing; and the products."""
    recognition = recognise(folder)
    environment = propose(recognition, "mine", recognition.products)
    assert environment.to_state == []
    parameters = IngestParameters(**yaml.safe_load(environment.files["parameters_ingest.yml"])["ingest"])
    found = read_folder(parameters, SensorTable(parameters.own_sensors()))
    assert {one.reason for one in found.rejected} <= {"excluded"}, found.rejected
    return found.scenes, recognition


def factors(scene):
    return {(asset.scale, asset.offset, asset.nodata) for asset in scene.bands}


@pytest.mark.parametrize(
    ("level", "baseline", "offset", "mask"),
    [
        ("L2A", "0509", -1000, MaskKind.SCL),
        ("L2A", "0214", None, MaskKind.SCL),
        ("L1C", "0400", -1000, MaskKind.BINARY),
        ("L1C", "0209", None, None),
    ],
)
def test_sentinel_2_safe_says_baseline_offset_and_mask(tmp_path, level, baseline, offset, mask):
    for when in ("20230601T102031", "20230611T102031"):
        write_safe(tmp_path, level=level, baseline=baseline, offset=offset, when=when)
    scenes, recognition = ingested(tmp_path)
    (product,) = recognition.products
    assert product.scenes == 2 and product.dates == ("2023-06-01", "2023-06-11")
    assert len(scenes) == 2 and {scene.sensor for scene in scenes} == {f"sentinel-2-{level.lower()}"}
    for scene in scenes:
        assert factors(scene) == {(1e-4, -0.1 if offset else 0.0, 0.0)} and len(scene.bands) == (
            12 if level == "L2A" else 13
        )
        assert scene.processing_baseline == f"{baseline[:2]}.{baseline[2:]}"
        assert (scene.mask.mask if scene.mask else None) is mask
        assert scene.cloud_test is (CloudTest.MASK if mask else CloudTest.BRIGHTNESS)
        assert {asset.band: asset.gsd_m for asset in scene.bands}["B01"] == (20 if level == "L2A" else 60)


def test_baselines_in_one_folder_get_a_rule_each(tmp_path):
    write_safe(tmp_path, baseline="0214", offset=None, when="20200601T102031")
    write_safe(tmp_path, baseline="0509", when="20230601T102031", xml=False)
    scenes, recognition = ingested(tmp_path)
    assert {scene.datetime.year: factors(scene) for scene in scenes} == {
        2020: {(1e-4, 0.0, 0.0)},
        2023: {(1e-4, -0.1, 0.0)},
    }
    evidence = {product.name: product.rule["offset"].evidence for product in recognition.products}
    assert "10000 in MTD_MSIL2A.xml" in evidence["sentinel-2-l2a-n0214"]
    assert "05.09 in the names, without MTD_MSIL2A.xml" in evidence["sentinel-2-l2a-n0509"]


def test_an_offset_that_differs_between_bands_is_asked(tmp_path):
    folder = write_safe(tmp_path)
    path = folder / "MTD_MSIL2A.xml"
    path.write_text(path.read_text().replace('band_id="3">-1000', 'band_id="3">-500'))
    (product,) = recognise(tmp_path).products
    assert {"scale", "offset"} <= set(product.unknown) and "-1000.0, -500.0" in product.rule["offset"].evidence


@pytest.mark.parametrize("mtl", [True, False])
@pytest.mark.parametrize(
    ("code", "sensor", "numbers"),
    [
        ("LC08", "landsat-oli-c2-l2", (1, 2, 3, 4, 5, 6, 7)),
        ("LE07", "landsat-etm-c2-l2", (1, 2, 3, 4, 5, 7)),
        ("LT05", "landsat-tm-c2-l2", (1, 2, 3, 4, 5, 7)),
    ],
)
def test_landsat_collection_2_level_2(tmp_path, code, sensor, numbers, mtl):
    write_landsat(tmp_path, code=code, mtl=mtl, numbers=numbers)
    (scene,), recognition = ingested(tmp_path)
    assert scene.sensor == sensor and factors(scene) == {(2.75e-5, -0.2, 0.0)}
    assert scene.mask.mask is MaskKind.QA_PIXEL and f"{scene.datetime:%Y-%m-%d}" == "2023-06-01"
    assert len(scene.bands) == len(numbers)
    assert recognition.asides[0].count == (3 if mtl else 2), "ST_B10, MTL.json, MTL.txt"


@pytest.mark.parametrize(
    ("collection", "quality", "number", "kind"),
    [
        ("02", "QA_PIXEL", 21824, MaskKind.QA_PIXEL),
        ("01", "BQA", 2720, MaskKind.BQA_C1),
        (None, "BQA", 20480, MaskKind.BQA),
    ],
)
def test_landsat_level_1_is_decoded_by_its_mtl_file(tmp_path, collection, quality, number, kind):
    for band in ("B2", "B3", "B4", "B5", "B10"):
        write(tmp_path / f"gulf_{band}.TIF", gsd=30, low=8000, high=20_000)
    write(tmp_path / f"gulf_{quality}.TIF", gsd=30, low=number, high=number + 0.5)
    write_mtl(tmp_path / "gulf_MTL.txt", level="L1TP", date="2020-05-04", collection=collection)
    (scene,), recognition = ingested(tmp_path)
    assert scene.sensor == "landsat-oli-toa-4b" and scene.mask.mask is kind
    assert list(factors(scene)) == [(pytest.approx(4e-5), pytest.approx(-0.2), 0.0)], "the sun stands at 30 degrees"
    assert recognition.products[0].dates == ("2020-05-04",)


@pytest.mark.parametrize("kind", ["L30", "S30"])
def test_hls(tmp_path, kind):
    bands = {"L30": ("B02", "B03", "B04", "B05", "B10"), "S30": ("B02", "B03", "B04", "B08", "B8A", "B10")}[kind]
    stem = tmp_path / f"HLS.{kind}.T18TVK.2020213T153911.v2.0"
    for band in bands:
        write(stem.with_name(f"{stem.name}.{band}.tif"), gsd=30, dtype="int16", low=100, high=4000, nodata=-9999)
    write(stem.with_name(f"{stem.name}.Fmask.tif"), gsd=30, dtype="uint8", low=64, high=65, nodata=255)
    (scene,), _ = ingested(tmp_path)
    assert scene.sensor == f"hls-{kind.lower()}-{len(bands) - 1}b" and factors(scene) == {(1e-4, 0.0, -9999.0)}
    assert scene.mask.mask is MaskKind.HLS_FMASK and f"{scene.datetime:%Y-%m-%d %H:%M}" == "2020-07-31 15:39"


@pytest.mark.parametrize(
    ("name", "units", "low", "high"),
    [
        ("S1A_IW_20200113T154911_DVP_RTC30_G_gpuned_1A2B", "backscatter_linear", 0.01, 0.4),
        ("S1A_IW_20200113T154911_DVP_RTC30_G_gduned_1A2B", "backscatter_db", -22, -6),
        (
            "OPERA_L2_RTC-S1_T069-147170-IW1_20200113T154911Z_20200114T010203Z_S1A_30_v1.0",
            "backscatter_linear",
            0.01,
            1,
        ),
    ],
)
def test_sentinel_1_rtc_says_linear_or_decibel(tmp_path, name, units, low, high):
    for band in ("VV", "VH"):
        write(tmp_path / f"{name}_{band}.tif", gsd=30, dtype="float32", low=low, high=high, nodata=0.0)
    (scene,), _ = ingested(tmp_path)
    assert {asset.units.value for asset in scene.bands} == {units} and [a.band for a in scene.bands] == ["vv", "vh"]
    assert factors(scene) == {(1.0, 0.0, 0.0)} and scene.sensor == "sentinel-1-rtc-30m"


def test_values_that_are_not_what_the_name_says_are_asked(tmp_path):
    for band in ("VV", "VH"):
        name = f"S1A_IW_20200113T154911_DVP_RTC30_G_gpuned_1A2B_{band}.tif"
        write(tmp_path / name, gsd=30, dtype="float32", low=-22, high=-6)
    (product,) = recognise(tmp_path).products
    assert product.unknown == ("scale", "offset") and "not what is documented" in product.rule["scale"].evidence


@pytest.mark.parametrize(("bands", "variant"), [(4, ""), (4, "_harmonized"), (8, "_8b"), (8, "_8b_harmonized")])
def test_planetscope_with_udm2(tmp_path, bands, variant):
    scene_id = "20200113_180303_1043"
    write(tmp_path / f"{scene_id}_3B_AnalyticMS_SR{variant}_clip.tif", bands=bands, gsd=3, low=300, high=4000, nodata=0)
    write(tmp_path / f"{scene_id}_3B_udm2_clip.tif", bands=8, gsd=3, dtype="uint8", low=1, high=1.5)
    (tmp_path / f"{scene_id}_3B_AnalyticMS_metadata_clip.xml").write_text("<x/>")
    (scene,), _ = ingested(tmp_path)
    assert scene.sensor == f"planetscope-{bands}b" and factors(scene) == {(1e-4, 0.0, 0.0)}
    assert (scene.mask.mask, scene.mask.band_index) == (MaskKind.CLEAR, 1) and scene.datetime.hour == 18
    assert [asset.band for asset in scene.bands][-1] == "nir"


def test_planetscope_radiance_is_no_reflectance_and_is_asked(tmp_path):
    write(tmp_path / "20200113_180303_1043_3B_AnalyticMS.tif", bands=4, gsd=3, low=3000, high=14_000, nodata=0)
    (product,) = recognise(tmp_path).products
    assert {"sensor", "bands", "units", "scale"} <= set(product.unknown)


@pytest.mark.parametrize(("gsd", "sensor"), [(1, "naip"), (0.6, "naip-0p6m"), (5, "naip-5m")])
def test_naip(tmp_path, gsd, sensor):
    for date in ("20150926", "20200831"):
        write(
            tmp_path / f"m_4709963_se_14_060_{date}.tif", bands=4, gsd=gsd, dtype="uint8", low=20, high=230, side_m=300
        )
    scenes, _ = ingested(tmp_path)
    assert {scene.sensor for scene in scenes} == {sensor} and factors(scenes[0]) == {(1 / 255, 0.0, None)}
    assert {asset.band: asset.band_index for asset in scenes[0].bands} == {"B3": 1, "B2": 2, "B1": 3, "B4": 4}
    assert scenes[0].cloud_test is CloudTest.NONE


def test_a_name_that_lies_about_the_bands_is_asked(tmp_path):
    write(tmp_path / "m_4709963_se_14_1_20150926.tif", bands=3, gsd=1, dtype="uint8", low=20, high=230)
    (product,) = recognise(tmp_path).products
    assert product.unknown == ("bands",) and "has 4 bands, these files have 3" in product.rule["bands"].evidence


@pytest.mark.parametrize(
    ("names", "sensor"),
    [
        ([f"MOD09A1.061_sur_refl_b0{k}_doy2023145_aid0001.tif" for k in range(1, 8)], "modis-500m"),
        ([f"MYD09GA.061_sur_refl_b0{k}_1_doy2023145000000_aid0001.tif" for k in range(1, 8)], "modis-500m"),
        ([f"VNP09H1.002_SurfReflect_I{k}_doy2023145_aid0001.tif" for k in (1, 2, 3)], "viirs-500m"),
    ],
)
def test_exports_of_modis_and_viirs_bring_scale_and_fill(tmp_path, names, sensor):
    for name in names:
        write(tmp_path / name, dtype="int16", gsd=463.3127, side_m=90_000, low=200, high=4000, nodata=-28672)
    (tmp_path / "MOD09A1-061-Statistics.csv").write_text("a,b")
    (scene,), recognition = ingested(tmp_path)
    (product,) = recognition.products
    assert product.name == sensor and product.dates == ("2023-05-25",)
    assert factors(scene) == {(1e-4, 0.0, -28672)} and len(scene.bands) == len(names)
    layout = lay_out([product], [known_sensors()[sensor]])
    assert layout.footprint_m == 32_000, "64 pixels of half a kilometre"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("MOD09GA.A2023145.h18v03.061.2023147024712.hdf", "MODIS tiles are HDF4: order them so from AppEEARS"),
        ("VNP09GA.A2023145.h18v03.002.2023146081022.h5", "VIIRS tiles: order them so from AppEEARS"),
        ("LC08_L2SP_021030_20230601_20230610_02_T1.tar", "--unpack uses what is in it"),
    ],
)
def test_containers_that_are_not_read_are_told_with_a_way(tmp_path, name, told):
    (tmp_path / name).write_bytes(b"\x89HDF")
    with pytest.raises(InputError, match=re.escape(told)):
        recognise(tmp_path)
    write(tmp_path / "other_20230601.tif")
    assert any(told in aside.why for aside in recognise(tmp_path).asides)


def test_gaofen_with_rpc_is_told_how_it_gets_a_grid(tmp_path):
    path = write(tmp_path / "GF1_PMS1_E118.5_N31.2_20230613_L1A0007346677-MSS1.tiff", bands=4, gsd=8, crs=None)
    numbers = " ".join(["1"] + ["0"] * 19)
    tags = {"LINE_OFF": 75, "SAMP_OFF": 75, "LAT_OFF": 31.2, "LONG_OFF": 118.5, "HEIGHT_OFF": 50, "LINE_SCALE": 75,
            "SAMP_SCALE": 75, "LAT_SCALE": 0.01, "LONG_SCALE": 0.01, "HEIGHT_SCALE": 500, "LINE_NUM_COEFF": numbers,
            "LINE_DEN_COEFF": numbers, "SAMP_NUM_COEFF": numbers, "SAMP_DEN_COEFF": numbers}  # fmt: skip
    with rasterio.open(path, "r+") as target:
        target.update_tags(ns="RPC", **{key: str(value) for key, value in tags.items()})
    recognition = recognise(tmp_path)
    assert not recognition.products
    ((_, why),) = recognition.unusable
    assert "has RPCs and no transform: orthorectify it (gdalwarp -rpc -to RPC_DEM=dem.tif" in why
    # What comes out is asked for the level: the built-in sensor holds reflectance, and a level-1A product counts.
    path.unlink()
    write(tmp_path / "GF1_PMS1_E118.5_N31.2_20230613_L1A0007346677-MSS1_ortho.tif", bands=4, gsd=8)
    (product,) = recognise(tmp_path).products
    assert product.rule["sensor"].suggestion == "gaofen-1" and "sensor" in product.unknown
    assert product.dates == ("2023-06-13",)
