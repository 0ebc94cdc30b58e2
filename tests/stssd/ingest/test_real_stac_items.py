"""Real STAC items of several providers, field by field."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from a2mae.errors import RejectedError
from a2mae.scenes import MaskKind
from a2mae.sensors import Units, get_sensor
from a2mae.stssd.ingest.checks import SensorTable
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.ingest.stac_documents import walk
from a2mae.stssd.ingest.stac_profiles import Recogniser

from ..stac_parsing import ITEMS, POLICY, parse

STACTOOLS = "stactools_sentinel2_catalog/sentinel2-{level}-example/{item}/{item}.json"
real_items = pytest.mark.skipif(not ITEMS.is_dir(), reason="../shared/data/stac_items is not there")


def all_items():
    """Every item below the folder with its file, by the same walk that catalogs use."""
    for path in sorted(ITEMS.rglob("*json")):
        rejected = []
        if json.loads(path.read_text()).get("type") in ("Feature", "FeatureCollection"):
            for document in walk(str(path), POLICY, max_items=100, max_bytes=10**8, rejected=rejected):
                yield path.relative_to(ITEMS).as_posix(), document
        assert rejected == []


# (first letters of the id) → sensor, scale and offset of every band, mask, UTM zone; by hand from the items' own words.
REAL_FIELDS = {
    "LC08_L2SP_028030_20200114": ("landsat-oli-c2-l2", 2.75e-5, -0.2, MaskKind.QA_PIXEL, 32615),
    "LE07_L2SP_044033_20210329": ("landsat-etm-c2-l2", 2.75e-5, -0.2, MaskKind.QA_PIXEL, 32610),
    "S2A_28QCH_20200714_0_L2A": ("sentinel-2-l2a", 1e-4, 0.0, MaskKind.SCL, 32628),
    "S2B_MSIL2A_20190629T212529_R043_T06VVN": ("sentinel-2-l2a", 1e-4, 0.0, MaskKind.SCL, 32606),
    "S2B_MSIL2A_20200606T080609_R078_T35": ("sentinel-2-l2a", 1e-4, 0.0, MaskKind.SCL, 32735),
    "S2A_MSIL2A_2020": ("sentinel-2-l2a", 1e-4, 0.0, MaskKind.SCL, 32735),
    "S2B_MSIL2A_2020": ("sentinel-2-l2a", 1e-4, 0.0, MaskKind.SCL, 32735),
    "S2A_T01LAC_20200717T221944_L1C": ("sentinel-2-l1c", 1e-4, 0.0, None, 32701),
    "S2A_T07HFE_20190212T192646_L2A": ("sentinel-2-l2a", 1e-4, 0.0, MaskKind.SCL, 32707),
}


@pytest.mark.real_data
@real_items
def test_every_field_of_real_items_is_what_they_say():
    seen = set()
    for _, document in all_items():
        try:
            scene = parse(document.item, base=document.base).scene
        except RejectedError:
            continue  # the next test names them
        key = next(key for key in REAL_FIELDS if scene.scene_id.startswith(key))
        seen.add(key)
        sensor, scale, offset, mask, zone = REAL_FIELDS[key]
        said = document.item["properties"]
        assert (scene.sensor, scene.crs) == (sensor, f"EPSG:{zone}") and said["proj:epsg"] == zone
        assert {(asset.scale, asset.offset) for asset in scene.bands} == {(scale, offset)}
        assert (scene.mask.mask if scene.mask else None) == mask
        assert scene.datetime == dt.datetime.fromisoformat(said["datetime"])
        assert scene.cloud_cover_pct == said["eo:cloud_cover"]
        assert scene.platform.lower() == said["platform"].lower().replace("_", "-")
        if sensor.startswith("sentinel-2") and "s2:processing_baseline" in said:
            assert scene.processing_baseline == said["s2:processing_baseline"] < "04.00"
        assert [asset.gsd_m for asset in scene.bands] == [band.gsd_m for band in get_sensor(sensor).bands]
        assert all(asset.href.startswith(("https://", "http://", "s3://", "/")) for asset in scene.assets)
    assert seen == set(REAL_FIELDS)


@pytest.mark.real_data
@real_items
def test_every_real_item_parses_or_is_rejected_with_a_reason():
    good, bad = {}, {}
    for name, document in all_items():
        try:
            good.setdefault(name, []).append(parse(document.item, base=document.base).scene)
        except RejectedError as refusal:
            bad.setdefault(name, []).append(refusal.reason)
    assert bad == {
        "LC08_L2SR_081119_20200101_20200823_02_T2.json": ["gsd_mismatch"],  # its transforms say 1157 m
        "ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json": ["unknown_sensor"],
        **{f"jaca_dataset_stac_labels/labels/Jaca_{i}/Jaca_{i}.json": ["labels"] for i in range(1, 5)},
        **{f"jaca_dataset_stac_labels/sentinel-2-l2a/Jaca_{i}/Jaca_{i}.json": ["no_baseline"] for i in range(1, 5)},
    }
    assert {name: len(scenes) for name, scenes in good.items() if len(scenes) > 1} == {
        "site1-20200606-tall-strip-africa.geojson": 9,
        "site2-2020_jun_jul-35MNM.geojson": 13,
    }
    for scenes in good.values():
        for scene in scenes:
            sensor = get_sensor(scene.sensor)
            assert tuple(a.band for a in scene.bands) == sensor.band_names
            assert [a.gsd_m for a in scene.bands] == [b.gsd_m for b in sensor.bands]
            assert all(a.units is Units.REFLECTANCE and a.nodata == 0 and a.shape for a in scene.bands)
            assert scene.gsd_m == sensor.gsd_m and scene.geometry.is_valid and not scene.geometry.is_empty


@pytest.mark.real_data
@real_items
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LC08_L2SP_028030_20200114_20200824_02_T1_SR.json",
         ("landsat-oli-c2-l2", "landsat-8", "EPSG:32615", "2020-01-14T17:05:46.732651+00:00", 8.18, None, 2.75e-5, -0.2,
          MaskKind.QA_PIXEL)),
        ("LE07_L2SP_044033_20210329_20210424_02_T1_SR.json",
         ("landsat-etm-c2-l2", "landsat-7", "EPSG:32610", "2021-03-29T17:57:33.490812+00:00", 0, None, 2.75e-5, -0.2,
          MaskKind.QA_PIXEL)),
        ("S2A_28QCH_20200714_0_L2A.json",  # Earth Search v0: the baseline stands in the product's name only
         ("sentinel-2-l2a", "sentinel-2a", "EPSG:32628", "2020-07-14T11:55:52+00:00", 2.36, "02.14", 1e-4, 0.0,
          MaskKind.SCL)),
        ("S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531_raster_ext.json",  # Planetary Computer
         ("sentinel-2-l2a", "sentinel-2b", "EPSG:32606", "2019-06-29T21:25:29.024000+00:00", 0.314306, "02.12", 1e-4,
          0.0,
          MaskKind.SCL)),
        (STACTOOLS.format(level="l1c", item="S2A_T01LAC_20200717T221944_L1C"),
         ("sentinel-2-l1c", "sentinel-2a", "EPSG:32701", "2020-07-17T22:19:41.024000+00:00", 5.4828, "02.09", 1e-4, 0.0,
          None)),
        (STACTOOLS.format(level="l2a", item="S2A_T07HFE_20190212T192646_L2A"),
         ("sentinel-2-l2a", "sentinel-2a", "EPSG:32707", "2019-02-12T19:26:51.024000+00:00", 51.580326, "02.12", 1e-4,
          0.0,
          MaskKind.SCL)),
    ],
)  # fmt: skip
def test_known_items(name, expected):
    scene = parse(json.loads((ITEMS / name).read_text()), base=str(ITEMS / name)).scene
    found = (
        scene.sensor, scene.platform, scene.crs, scene.datetime.isoformat(), scene.cloud_cover_pct,
        scene.processing_baseline, scene.assets[0].scale, scene.assets[0].offset, scene.mask and scene.mask.mask,
    )  # fmt: skip
    assert found == expected
    # The finest rendition of a band, never the picture made of it.
    assert "B02" in scene.assets[1].href or "SR_B2" in scene.assets[1].href


@pytest.mark.real_data
@real_items
def test_another_provider_by_configuration():
    oli = get_sensor("landsat-oli-c2-l2").to_dict()
    names = ("coastal_aerosol", "blue", "green", "red", "nir", "swir_1", "swir_2")
    parameters = IngestParameters(
        sensors=[{**oli, "id": "ga-ls8-ard", "title": "GA Landsat 8 ARD"}],
        stac_profiles=[
            {
                "name": "Geoscience Australia", "match": {"odc:product": "ga_ls8c_ard_3"}, "sensor": "ga-ls8-ard",
                "bands": {f"SR_B{i}": f"nbart_{name}" for i, name in enumerate(names, 1)},
                "scale": 1e-4, "offset": 0.0, "nodata": -999, "mask": {"kind": "fmask", "asset": "oa_fmask"},
            }
        ],
    )  # fmt: skip
    recogniser = Recogniser(SensorTable(parameters.own_sensors()), parameters.stac_profiles)
    name = "ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json"
    scene = parse(json.loads((ITEMS / name).read_text()), recogniser).scene
    assert (scene.sensor, scene.mask.mask, scene.assets[0].nodata) == ("ga-ls8-ard", MaskKind.FMASK, -999)
    assert [a.href.rpartition("_")[2] for a in scene.bands] == [f"band0{i}.tif" for i in range(1, 8)]
