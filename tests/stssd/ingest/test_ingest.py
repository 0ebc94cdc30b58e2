"""The stage as a function: limits, refusals, tables, and the real samples."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import yaml

from a2mae.scenes import scenes_from_table, sensors_from_json
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.stssd.ingest.ingest import ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.tables import REJECTED_COLUMNS, SCENE_COLUMNS
from helpers.rasters import write_tif

ROOT = Path(__file__).parents[3]
DATA = ROOT / ".." / "shared" / "data"
RULE = {
    "name": "gf", "files": "{date}_{name}.tif", "sensor": "gaofen-1", "bands": ["B1", "B2", "B3", "B4"],
    "scale": 1e-4, "offset": 0.0, "units": "reflectance", "cloud_test": "brightness",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for date in ("20200101", "20200601", "20210101"):
        write_tif(tmp_path / "in" / f"{date}_a.tif", bands=4, gsd=8.0, size=(480, 480), left=499_200, top=4_650_240)
    write_tif(tmp_path / "in" / "20200101_small.tif", bands=4, gsd=8.0, size=(60, 60))
    return tmp_path / "in"


def parameters(folder, **changes):
    return IngestParameters(
        **{"folder": str(folder), "source": {"kind": "folder"}, "rules": [RULE], "workers": 2, **changes}
    )


def test_tables(folder):
    done = ingest(parameters(folder))
    assert [c for c in done.scenes.columns if c != "geometry"] == SCENE_COLUMNS.names
    assert list(done.rejected.columns) == REJECTED_COLUMNS.names
    assert len(scenes_from_table(done.scenes)) == 4
    assert len(done.locations) == 4
    assert dict(zip(done.rejected["scene_id"], done.rejected["reason"], strict=True)) == {
        "20200101_small": "no_location"
    }
    assert sensors_from_json(done.sensors) == {"gaofen-1": BUILTIN_SENSORS["gaofen-1"]}
    assert done.stac_items == {"type": "FeatureCollection", "features": []}


def test_naming_a_folder_makes_it_the_source(folder):
    one, other = ingest(parameters(folder)), ingest(parameters(folder, source={}))
    assert list(one.scenes["scene_id"]) == list(other.scenes["scene_id"])


def test_limits_of_time(folder):
    done = ingest(parameters(folder, datetime_start="2020-03-01", datetime_end="2021-12-31"))
    accepted = done.scenes[done.scenes["status"] == "accepted"]
    assert list(accepted["scene_id"]) == ["20200601_a", "20210101_a"]
    assert set(done.rejected["reason"]) == {"outside_time"}
    assert accepted["datetime"].min() == dt.datetime(2020, 6, 1, tzinfo=dt.UTC)


def test_of_a_scene_processed_again_the_latest_is_used(tmp_path):
    folder = tmp_path / "in"
    for name in ("20200101_b0214", "20200101_b0500", "20200601_b0214"):
        write_tif(folder / f"{name}.tif", bands=4, gsd=8.0, size=(480, 480), left=499_200, top=4_650_240)
    rules = [
        {
            **RULE,
            "name": baseline,
            "files": f"{{date}}_b{baseline.replace('.', '')}.tif",
            "processing_baseline": baseline,
        }
        for baseline in ("02.14", "05.00")
    ]
    done = ingest(parameters(folder, rules=rules))
    rejected = done.rejected.set_index("scene_id")
    assert list(rejected.index) == ["20200101_b0214"] and rejected["reason"].item() == "superseded"
    assert "baseline 05.00: 20200101_b0500" in rejected["detail"].item()


def test_nothing_usable_counts_the_reasons(folder):
    with pytest.raises(ValueError, match=r"no usable scene among 4 rejected \(sensor_not_used 4\).*use_sensors") as e:
        ingest(parameters(folder, use_sensors=["naip"]))
    assert "rules" not in str(e.value), "the rules are right"
    with pytest.raises(ValueError, match=r"no_rule 4.*ingest\.rules"):
        ingest(parameters(folder, rules=[]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_sensors": ["gaofen"]}, "ingest.use_sensors: unknown sensor 'gaofen'"),
        (
            {"rules": [{**RULE, "sensor": "gaofn-1"}]},
            "ingest.rules, .*unknown sensor 'gaofn-1'. Did you mean 'gaofen",
        ),
        (
            {"stac_profiles": [{"name": "p", "match": {"id": "x"}, "sensor": "nap"}]},
            "ingest.stac_profiles, 'p'",
        ),
        ({"bands": {"gaofen-1": ["B9"]}}, "ingest.bands.gaofen-1"),
        ({"locations": {"footprint_m": 1000.5}}, "footprint_m"),
        ({"source": {"catalog": "catalog.json"}}, "are both given"),
        ({"source": {"kind": "stac_api"}}, "are both given"),
        ({"source": {"kind": "folder", "signing": "no.such:thing"}}, "ingest.source.signing"),
    ],
)
def test_settings_that_do_not_fit(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        ingest(parameters(folder, **changes))


def test_a_mistyped_key_names_its_neighbour():
    with pytest.raises(ValueError, match="unknown parameter 'foldr': did you mean 'folder'"):
        IngestParameters(foldr="x")
    with pytest.raises(ValueError, match="did you mean 'min_scenes'"):
        IngestParameters(locations={"min_scene": 2})
    with pytest.raises(ValueError, match="cannot be read"):
        IngestParameters(sensors=[{"id": "x"}])


def test_a_sensor_of_ones_own(folder):
    own = {**BUILTIN_SENSORS["gaofen-1"].to_dict(), "id": "my-sat", "title": "My satellite"}
    done = ingest(parameters(folder, sensors=[own], rules=[{**RULE, "sensor": "my-sat"}]))
    assert set(done.scenes["sensor"]) == {"my-sat"}
    assert sensors_from_json(done.sensors)["my-sat"].title == "My satellite"


def test_configured_environments_are_valid():
    base = yaml.safe_load((ROOT / "conf/base/parameters_ingest.yml").read_text())["ingest"]
    assert IngestParameters(**base).locations.footprint_m == 1920
    for env in ("real_samples", "planetary_computer", "earth_search"):
        merged = IngestParameters(**merge(base, env_parameters(env)))
        assert merged.source.kind == ("folder" if env == "real_samples" else "stac_api")


def env_parameters(env):
    return yaml.safe_load((ROOT / f"conf/{env}/parameters_ingest.yml").read_text())["ingest"]


def merge(base, over):
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        out[key] = merge(base[key], value) if both else value
    return out


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_the_real_samples():
    base = yaml.safe_load((ROOT / "conf/base/parameters_ingest.yml").read_text())["ingest"]
    done = ingest(IngestParameters(**merge(merge(base, env_parameters("real_samples")), {"folder": str(DATA)})))
    accepted = done.scenes[done.scenes["status"] == "accepted"]
    assert accepted["sensor"].value_counts().to_dict() == {
        "naip-5m": 10, "sentinel-2-l2a": 2, "naip": 2, "landsat-9-toa-15m": 1, "sentinel-2-toa-rgbn": 1,
        "sentinel-2-l2a-rgbn": 1, "landsat-8-l2-rgb": 1, "landsat-8-toa-rgbn": 1,
    }  # fmt: skip
    rejected = dict(zip(done.rejected["scene_id"], done.rejected["reason"], strict=True))
    assert {k: v for k, v in rejected.items() if v != "excluded"} == {
        "rasterframes_l8_naip__elkton-l8": "no_date",
        "rasterframes_l8_naip__naip-va": "no_date",
        "treesat_multisensor__Abies_alba_1_1005_WEFL_NLF": "no_date",
        "treesat_multisensor__Betula_spec._1_15679_WEFL_NLF": "no_date",
        "rasterframes_l8_naip__m_3607717_sw_18_1_20160620_subset": "no_location",  # 300 m wide
        "rasterframes_l8_naip__m_3607824_se_17_1_20160620_subset": "no_location",
    }
    scenes = {s.scene_id: s for s in scenes_from_table(done.scenes)}
    landsat = scenes["l9_s2_coastsat__2023-06-30-22-01-55_L9_ms"]
    sentinel = scenes["l9_s2_coastsat__2023-10-09-22-28-02_S2_ms"]
    assert (landsat.crs, sentinel.crs) == ("EPSG:32604", "EPSG:32603")
    assert np.isneginf(landsat.assets[0].nodata) and sentinel.assets[0].nodata == 0
    assert (sentinel.mask.band_index, sentinel.mask.scale, len(sentinel.bands)) == (5, 0.01, 4)
    # Every file of the folder is in a scene or in the rejected table.
    counted = sum(int(d.split(" ")[0]) for d in done.rejected.loc[done.rejected["reason"] == "excluded", "detail"])
    in_scenes = {asset.href for s in scenes.values() for asset in s.assets}
    undated = 5 + 4 + 2
    total = sum(1 for path in DATA.rglob("*") if path.is_file())
    assert counted + len(in_scenes) + undated == total


def test_a_second_run_makes_the_same_bytes(folder, tmp_path):
    for name in ("1", "2"):
        done = ingest(parameters(folder))
        done.scenes.to_parquet(tmp_path / f"s{name}")
        done.locations.to_parquet(tmp_path / f"l{name}")
    assert (tmp_path / "s1").read_bytes() == (tmp_path / "s2").read_bytes()
    assert (tmp_path / "l1").read_bytes() == (tmp_path / "l2").read_bytes()
