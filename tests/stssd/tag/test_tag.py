"""Tagging: codes with published values, splits by place, statistics like NumPy's, tables as promised."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from a2mae.models.layers import geosot as tensor_geosot
from a2mae.sensors import get_sensor
from a2mae.stssd.parameters import TagParameters
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.tag.properties import encode, footprint_codes, four_properties, layer_for_size
from a2mae.stssd.tag.statistics import heterogeneity, measure, merged, moments_of
from a2mae.stssd.tag.tag import SPLITS, Tagged, split_by_location, tag
from a2mae.tables import IMAGE_COLUMNS, SET_COLUMNS

from ..conftest import Built, World


@pytest.fixture(scope="module")
def tagged(world: World, built: Built) -> Tagged:
    parameters = TagParameters(split={"block_m": 1920.0, "train": 0.5, "val": 0.25, "test": 0.25})
    return tag(ImageSetStore.open(built.url), built.tables.images, world.locations, parameters)


@pytest.mark.parametrize(
    ("degrees", "bits"),
    [
        (39 + 54 / 60 + 37.0 / 3600, "00010011111011010010100000000000"),
        (-(116 + 18 / 60 + 54.5 / 3600), "10111010001001011011010000000000"),
        (0.0, "0" * 32),
        (180.0, "010110100" + "0" * 23),
        (-90.0, "101011010" + "0" * 23),
    ],
)
def test_codes_are_sign_degrees_minutes_seconds(degrees: float, bits: str) -> None:
    # A hair farther from zero, so that the decimal fraction does not fall below the whole second.
    value = degrees if abs(degrees) in (0, 180) else degrees + np.copysign(1e-9, degrees)
    assert f"{int(encode(np.array([value]))[0]):032b}" == bits


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-180, 180), min_size=1, max_size=20), st.integers(1, 32))
def test_tables_and_tensors_have_the_same_codes(degrees: list[float], layer: int) -> None:
    ours = encode(np.array(degrees), layer)
    theirs = tensor_geosot.encode(torch.tensor(degrees, dtype=torch.float64), layer)
    np.testing.assert_array_equal(ours.astype(np.int64), theirs.numpy())


@settings(deadline=None, max_examples=50)
@given(st.floats(0.001, 5e7))
def test_the_layer_is_the_finest_whose_cell_holds_the_footprint(size_m: float) -> None:
    sides_m = np.array([512, *(256 / 2**n for n in range(9)), *(32 / 2**n / 60 for n in range(6))]) * 111_319.49
    layer = layer_for_size(size_m)
    assert 1 <= layer <= 32
    if sides_m[-1] <= size_m <= sides_m[1]:
        assert sides_m[layer] >= size_m and (layer == 15 or sides_m[layer + 1] < size_m)


def test_layers_of_known_footprints() -> None:
    assert [layer_for_size(size_m) for size_m in (1920, 30, 111_000)] == [14, 21, 9]  # 2 minutes, 1 second, 1 degree


def test_bad_coordinates_are_refused() -> None:
    for values, layer in (([np.nan], 32), ([181.0], 32), ([0.0], 0), ([0.0], 33)):
        with pytest.raises(ValueError, match="GeoSOT"):
            encode(np.array(values), layer)
    for size_m in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive"):
            layer_for_size(size_m)


def test_footprints_of_both_hemispheres_have_corners_in_order() -> None:
    places = pd.DataFrame(
        {
            "crs": ["EPSG:32633", "EPSG:32733"],
            "x_m": [500_000.0] * 2,
            "y_m": [5_700_000.0] * 2,
            "footprint_m": [1920.0] * 2,
        }
    )
    codes = footprint_codes(places, 32).astype(np.int64)
    lon, lat = codes[:, 0::2] & 0x7FFFFFFF, codes[:, 1::2] & 0x7FFFFFFF
    assert (codes[0] >> 31 == 0).all() and (codes[1, 1::2] >> 31 == 1).all()
    assert (lon[:, 1] > lon[:, 0]).all() and (lon[:, 2] > lon[:, 3]).all()  # east of west
    assert lat[0, 0] > lat[0, 3] and lat[1, 0] < lat[1, 3]  # north is away from the equator, or towards it


def test_footprints_on_the_date_line_and_near_the_poles() -> None:
    places = pd.DataFrame(
        {
            "crs": ["EPSG:32660", "EPSG:32601", "EPSG:32633", "EPSG:32733"],
            "x_m": [833_000.0, 165_000.0, 500_000.0, 500_000.0],
            "y_m": [1920.0, 1920.0, 9_320_000.0, 1_120_000.0],  # the last two at 84 degrees north and 80 south
            "footprint_m": [1920.0] * 4,
        }
    )
    codes = footprint_codes(places, 32).astype(np.int64)
    west, degrees = codes >> 31, codes >> 23 & 0xFF
    for across in (0, 1):  # of either zone: east corners lie west of Greenwich, at 179 degrees as the others
        assert west[across, 0::2].tolist() == [0, 1, 1, 0] and set(degrees[across, 0::2]) == {179}
    assert set(degrees[2, 1::2]) == {83} and not west[2, 1::2].any()
    assert set(degrees[3, 1::2]) <= {79, 80} and west[3, 1::2].all()


@pytest.mark.parametrize("column", ["dark_value", "bright_value", "set_id"])
def test_a_table_of_an_earlier_version_is_refused_at_the_door(world: World, built: Built, column: str) -> None:
    older = built.tables.images.drop(columns=column)
    with pytest.raises(ValueError, match=rf"registered_images has no {column}: .*earlier version.*=coregister"):
        tag(ImageSetStore.open(built.url), older, world.locations, TagParameters())


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(5, 400))
def test_splits_keep_blocks_together_and_their_shares(seed: int, block: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    places = pd.DataFrame(
        {
            "location_id": [f"p{k}" for k in range(count)],
            "crs": rng.choice(["EPSG:32633", "EPSG:32634"], count),
            "x_m": rng.integers(0, 30, count) * 1920.0,
            "y_m": rng.integers(0, 30, count) * 1920.0 + 5e6,
            "footprint_m": 1920.0,
        }
    )
    fractions = {"train": 0.7, "val": 0.1, "test": 0.2}
    splits = split_by_location(places, block_m=block * 1920.0, fractions=fractions, seed=seed)
    again = split_by_location(
        places.sample(frac=1, random_state=0), block_m=block * 1920.0, fractions=fractions, seed=seed
    )
    assert splits.sort_index().equals(again.sort_index())
    centre = places[["x_m", "y_m"]] + np.array([960.0, -960.0])
    key = places["crs"] + (centre // (block * 1920.0)).astype(str).agg("_".join, axis=1)
    assert (splits.groupby(key.to_numpy()).nunique() == 1).all()
    largest = key.value_counts().max()
    for split in SPLITS:
        assert abs((splits == split).sum() - fractions[split] * count) <= largest + 1


def test_statistics_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    encoding = get_sensor("sentinel-2-l2a").encoding
    pixels = rng.integers(1, 20_000, (7, 3, 40, 30)).astype("uint16")
    valid = rng.random((7, 40, 30)) < 0.7
    valid[2], valid[4] = True, False
    moments = moments_of(pixels, valid, encoding)
    found = merged(moments, np.ones(7, dtype=bool), ("a", "b", "c"))
    physical = pixels * encoding.scale + encoding.offset
    for c, name in enumerate("abc"):
        values = physical[:, c][valid]
        expected = {"mean": values.mean(), "std": values.std(), "minimum": values.min(), "maximum": values.max()}
        for key, value in expected.items():
            np.testing.assert_allclose(found[name][key], value, rtol=1e-6)
        assert found[name]["count"] == values.size
    np.testing.assert_allclose(moments.std[2, 1], physical[2, 1].std(), rtol=1e-9)
    assert moments.valid_fraction[4] == 0
    varied = heterogeneity(moments, found)
    assert varied[4] == 0 and 0.4 < varied[0] < 0.6
    flat = moments_of(np.full((1, 3, 8, 8), 700, "uint16"), np.ones((1, 8, 8), bool), encoding)
    assert heterogeneity(flat, found)[0] == 0
    assert merged(moments, np.zeros(7, dtype=bool), ("a", "b", "c")) == {}


def test_texture_tells_noise_from_gradients() -> None:
    encoding = get_sensor("sentinel-2-l2a").encoding
    ramp = np.broadcast_to(np.arange(64, dtype="uint16") * 10 + 1, (1, 1, 64, 64)).copy()
    noise = np.random.default_rng(0).permuted(ramp, axis=3)
    full = np.ones((1, 64, 64), dtype=bool)
    assert moments_of(noise, full, encoding).texture[0, 0] > 5 * moments_of(ramp, full, encoding).texture[0, 0]
    half = full.copy()
    half[:, :, 32:] = False
    np.testing.assert_allclose(
        moments_of(ramp, half, encoding).texture, moments_of(ramp[..., :32].copy(), full[..., :32], encoding).texture
    )


def test_workers_do_not_change_a_bit(built: Built) -> None:
    store = ImageSetStore.open(built.url)
    one, two = (measure(store, built.tables.images, workers=workers) for workers in (1, 2))
    for sensor, (rows, moments) in one.items():
        np.testing.assert_array_equal(rows, two[sensor][0])
        np.testing.assert_array_equal(moments.mean, two[sensor][1].mean)
        np.testing.assert_array_equal(moments.squares, two[sensor][1].squares)


def test_tables_are_complete(world: World, built: Built, tagged: Tagged) -> None:
    images, sets = tagged.images, tagged.sets
    assert list(images.columns) == IMAGE_COLUMNS.names
    assert list(sets.drop(columns="geometry").columns) == SET_COLUMNS.names
    assert (images.groupby("set_id")["is_anchor"].sum() == 1).all()
    assert (images.groupby("set_id")["is_reference"].sum() == 1).all()
    codes = np.stack(images["geosot"].to_list())
    assert codes.dtype == np.uint32 and codes.shape[1] == 8
    assert (images.assign(code=[tuple(c) for c in codes]).groupby("location_id")["code"].nunique() == 1).all()
    store = ImageSetStore.open(built.url)
    image = images.iloc[3]
    _, valid = store.read(image["sensor"], [image["row"]])
    assert image["valid_fraction"] == pytest.approx(valid.mean())
    assert set(sets["kind"]) == {"grid", "gf1"}
    assert sets.set_index("set_id")["kind"].equals(images.groupby("set_id")["kind"].first())
    assert isinstance(sets, gpd.GeoDataFrame) and sets.crs.to_epsg() == 4326
    assert sets.groupby("location_id")["split"].nunique().eq(1).all()
    assert set(sets["split"]) == set(SPLITS)
    assert sets["heterogeneity"].between(0, 1).all()
    in_training = images[images["location_id"].isin(sets.loc[sets["split"] == "train", "location_id"])]
    rows = in_training.loc[in_training["sensor"] == "landsat-oli-c2-l2", "row"].drop_duplicates().to_numpy()
    physical, valid = store.read_physical("landsat-oli-c2-l2", rows, bands=["nir08"])
    values = physical[:, 0][valid].astype(np.float64)
    found = tagged.statistics["landsat-oli-c2-l2"]["SR_B5"]
    np.testing.assert_allclose([found["mean"], found["std"]], [values.mean(), values.std()], rtol=1e-5)


@pytest.mark.parametrize("rule", ["clearest", "reference", "finest"])
def test_anchor_rules(world: World, built: Built, rule: str) -> None:
    done = tag(ImageSetStore.open(built.url), built.tables.images, world.locations, TagParameters(anchor=rule))
    anchors = done.images[done.images["is_anchor"]].set_index("set_id").sort_index()
    images = done.images.groupby("set_id")
    if rule == "reference":
        assert anchors["is_reference"].all()
    elif rule == "finest":
        assert (anchors["gsd_m"] == images["gsd_m"].min()).all()
    else:
        assert (anchors["valid_fraction"] >= images["valid_fraction"].max() - 0.01).all()


def test_four_properties_are_measured(tagged: Tagged) -> None:
    found = json.loads(json.dumps(four_properties(tagged.images, tagged.sets)))
    assert found["sources"]["sensors"] == 3
    assert found["sources"]["sets_with_two_sources_share"] == 1.0
    assert found["coverage"]["locations"] == 4
    assert found["coverage"]["southern_hemisphere_share"] == 0
    assert found["unified_locations"]["residual_px_95"] < 0.3
    assert 0 < found["heterogeneity"]["mean"] < 1


def test_nothing_registered_is_named(world: World, built: Built) -> None:
    with pytest.raises(ValueError, match="registered_images is empty"):
        tag(ImageSetStore.open(built.url), built.tables.images.iloc[:0], world.locations, TagParameters())
