"""Scenes survive the table and its Parquet file unchanged, nodata of every kind included."""

from __future__ import annotations

import datetime as dt
import json

import geopandas as gpd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box

from a2mae.scenes import (
    BandAsset,
    CloudTest,
    MaskKind,
    RejectedScene,
    Role,
    Scene,
    assets_from_json,
    assets_to_json,
    rejected_to_table,
    scenes_from_table,
    scenes_to_table,
    sensors_from_json,
    sensors_to_json,
)
from a2mae.sensors import BUILTIN_SENSORS, Units
from a2mae.tables import REJECTED_COLUMNS, SCENE_COLUMNS

_finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
_positive = st.floats(min_value=1e-6, max_value=1e6)
_assets = st.builds(
    BandAsset,
    band=st.text(min_size=1, max_size=8),
    href=st.text(min_size=1, max_size=30),
    band_index=st.integers(1, 200),
    scale=_positive,
    offset=st.floats(-1e29, 1e29),
    nodata=st.none() | st.floats(allow_nan=False),
    units=st.sampled_from(Units),
    gsd_m=_positive,
    crs=st.none() | st.just("EPSG:32633"),
    shape=st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)),
    transform=st.none() | st.tuples(_finite, _finite, _finite, _finite, _finite, _finite),
)


def scene(scene_id: str = "a", **changes) -> Scene:
    band = BandAsset("B1", "data/a.tif", 1, 1e-4, 0.0, float("-inf"), Units.REFLECTANCE, 10.0, crs="EPSG:32633")
    mask = BandAsset("QA", "data/q.tif", 1, 1.0, 0.0, 1.0, Units.DN, 30.0, Role.CLOUD_MASK, MaskKind.QA_PIXEL)
    values = {
        "scene_id": scene_id,
        "sensor": "landsat-oli-c2-l2",
        "datetime": dt.datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC),
        "platform": "landsat-8",
        "crs": "EPSG:32633",
        "gsd_m": 10.0,
        "geometry": box(10, 50, 11, 51),
        "assets": (band, mask),
        "cloud_test": CloudTest.MASK,
    }
    return Scene(**{**values, **changes})


@given(st.lists(_assets, max_size=4))
@settings(max_examples=60, deadline=None)
def test_assets_come_back_from_json(assets):
    text = assets_to_json(assets)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert assets_from_json(text) == tuple(assets)


def test_nan_nodata_comes_back():
    asset = BandAsset("B1", "a.tif", 1, 1.0, 0.0, float("nan"), Units.DN, 1.0)
    (back,) = assets_from_json(assets_to_json([asset]))
    assert back.nodata is not None and back.nodata != back.nodata


def test_scenes_come_back_from_parquet(tmp_path):
    scenes = [scene("b", cloud_cover_pct=12.5, processing_baseline="04.00"), scene("a")]
    refused = [RejectedScene("z", "corrupt", "cannot be opened"), RejectedScene("y", "no_crs", "…", "naip")]
    table = scenes_to_table(scenes, refused)
    table.to_parquet(tmp_path / "scenes.parquet")
    again = gpd.read_parquet(tmp_path / "scenes.parquet")
    assert scenes_from_table(again) == sorted(scenes, key=lambda s: s.scene_id)
    assert list(again["status"]) == ["accepted", "accepted", "refused", "refused"]
    assert list(again["reason"]) == ["", "", "no_crs", "corrupt"]
    assert again.crs.to_epsg() == 4326
    assert [c for c in again.columns if c != "geometry"] == SCENE_COLUMNS.names


def test_same_scenes_same_bytes(tmp_path):
    for name, order in (("1", ["a", "b"]), ("2", ["b", "a"])):
        scenes_to_table([scene(i) for i in order]).to_parquet(tmp_path / name)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_empty_tables_keep_their_types():
    assert pa.Schema.from_pandas(rejected_to_table([])).field("datetime").type == pa.timestamp("us", tz="UTC")
    table = scenes_to_table([])
    assert len(table) == 0 and "geometry" in table
    assert rejected_to_table([RejectedScene("x", "corrupt", "d")]).columns.tolist() == REJECTED_COLUMNS.names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"band_index": 0}, "counts from 1"),
        ({"scale": 0.0}, "scale"),
        ({"scale": float("nan")}, "finite"),
        ({"gsd_m": -1.0}, "gsd_m"),
        ({"role": Role.CLOUD_MASK}, "mask kind"),
    ],
)
def test_impossible_assets_are_refused(changes, message):
    values = {
        "band": "B1", "href": "a.tif", "band_index": 1, "scale": 1.0, "offset": 0.0, "nodata": None,
        "units": Units.DN, "gsd_m": 1.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        BandAsset(**{**values, **changes})


def test_time_needs_a_zone_and_mask_test_a_mask():
    with pytest.raises(ValueError, match="time zone"):
        scene(datetime=dt.datetime(2020, 1, 1))
    with pytest.raises(ValueError, match="cloud_mask"):
        scene(cloud_test=CloudTest.BRIGHTNESS)


def test_unreadable_assets_say_what_to_do():
    with pytest.raises(ValueError, match="rerun the ingest pipeline"):
        assets_from_json('[{"band": "B1"}]')


def test_sensors_come_back():
    sensors = list(BUILTIN_SENSORS.values())
    assert list(sensors_from_json(json.loads(json.dumps(sensors_to_json(sensors)))).values()) == sorted(
        sensors, key=lambda s: s.id
    )
