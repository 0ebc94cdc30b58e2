"""Values that cannot be what they are called, and such that can."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2mae.errors import InputError
from a2mae.plausibility import (
    DATA_SET_TOO_DARK,
    FLAT_ADVICE,
    RANGE_ADVICE,
    Clipped,
    check_clipped,
    implausible_ranges,
    impossible_reflectance,
    strange_bands,
    suspicious_offsets,
    too_dark,
    uniform_share,
)
from a2mae.sensors import BUILTIN_SENSORS, Units


def dark(*values: tuple[str, str, float], sensor: str = "sentinel-2-l2a") -> pd.DataFrame:
    rows = [{"location_id": place, "scene_id": scene, "dark_value": value} for place, scene, value in values]
    return pd.DataFrame(rows).assign(sensor=sensor, processing_baseline="05.09")


def away(images: pd.DataFrame) -> dict[str, float]:
    found = suspicious_offsets(images)
    return dict(zip(found["scene_id"], found["away"].round(6), strict=True))


def test_offset_applied_twice_is_noticed() -> None:
    assert away(dark(("a", "s", 0.02), ("a", "t", -0.08))) == {"s": 0.1, "t": -0.1}
    assert away(dark(("a", "s", 0.02), ("a", "t", 0.03))) == {}
    assert away(dark(("a", "s", 0.02), ("b", "t", 0.12))) == {}, "other places are not compared"
    # All scenes wrong alike: no surface is that dark.
    alike = dark(("a", "s", -0.08), ("a", "t", -0.08))
    assert away(alike) == {"s": -0.08, "t": -0.08}
    assert away(alike.assign(sensor="landsat-oli-c2-l2")) == {}
    assert away(dark(("a", "s", -0.08))) == {"s": -0.08}
    assert away(alike.iloc[:0]) == {}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("stuvwxyz"), st.floats(-0.2, 0.3)), max_size=20))
def test_dark_values_are_compared_with_the_median_of_the_others(values: list[tuple[str, str, float]]) -> None:
    table = dark(*values, ("a", "s", 0.0)).drop_duplicates(["location_id", "scene_id"], ignore_index=True)
    expected: dict[str, float] = {}
    for scene, of_scene in table.groupby("scene_id"):
        differences = []
        for place, value in zip(of_scene["location_id"], of_scene["dark_value"], strict=True):
            others = table[(table["location_id"] == place) & (table["scene_id"] != scene)]["dark_value"]
            differences += [value - np.median(others)] if len(others) else []
        if differences and 0.08 <= abs(np.median(differences)) <= 0.12:
            expected[str(scene)] = float(np.median(differences))
        elif of_scene["dark_value"].median() < -0.05:
            expected[str(scene)] = float(of_scene["dark_value"].median())
    found = suspicious_offsets(pd.concat([table, table], ignore_index=True))  # an image of two sets has two rows
    assert dict(zip(found["scene_id"], found["away"], strict=True)) == pytest.approx(expected)


def test_scenes_that_are_no_reflectance_are_told_by_their_range() -> None:
    ranges = {"fine": (0.01, 0.4), "snow": (0.3, 0.98), "bytes": (0.001, 0.0255), "percent": (2.0, 61.0)}
    ranges |= {"counts": (310.0, 5200.0), "cloud": (0.4, 1.3)}
    rows = [(scene, "sentinel-2-l2a", low, high) for scene, (low, high) in ranges.items()]
    rows += [("fine", "sentinel-2-l2a", 0.002, 0.03)]  # another place of it, a lake
    rows += [("radar", "sentinel-1-rtc", -22.0, -3.0), ("picture", "naip", 12.0, 240.0)]
    rows += [("rounded", "naip", 0.0002, 0.01), ("lake", "sentinel-2-l2a", 0.0, 210.0)]
    images = pd.DataFrame(rows, columns=["scene_id", "sensor", "dark_value", "bright_value"])
    sensors = [BUILTIN_SENSORS[name] for name in ("sentinel-2-l2a", "sentinel-1-rtc", "naip")]
    found = implausible_ranges(images, sensors).set_index("scene_id")
    assert list(found.index) == ["bytes", "counts", "lake", "percent", "rounded"]
    assert found.loc["bytes"].tolist() == ["sentinel-2-l2a", 0.001, 0.0255, RANGE_ADVICE]
    assert list(found.index[found["advice"] == FLAT_ADVICE]) == ["rounded"]  # one count of the store in all
    assert implausible_ranges(images.iloc[:0], sensors).empty


def test_a_median_tells_counts_percent_and_nothing_from_reflectance() -> None:
    assert not impossible_reflectance(-0.01, 1.2, 0.08) and not impossible_reflectance(0.0, 0.01, 0.003)
    for low, high, median in ((0, 255, 40), (3, 60, 12), (-0.1, 0.0, -0.09), (0, 0, 0)):
        said = impossible_reflectance(low, high, median)
        assert said == f"the values are {low:.4g} to {high:.4g} with median {median:.4g}; reflectance is 0 to 1"
    # One raster may be deep water; a whole data set is not.
    assert impossible_reflectance(0.0, 0.01, 0.003, darkest_median=DATA_SET_TOO_DARK)
    assert too_dark(0.04) and not too_dark(0.06)


def test_bands_are_held_against_what_an_encoder_was_taught() -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(0.1, 0.02, (3, 500)).astype(np.float32)
    bands, mean, std = ("B04", "B03", "B02"), (0.1, 0.1, 0.1), (0.05, 0.05, 0.05)
    assert strange_bands(seen, bands, Units.REFLECTANCE, mean, std) == []
    dark, far = seen.copy(), seen.copy()
    dark[1, :60] = -0.03  # a tenth and more; 1st percentiles may lie there, so many pixels may not
    far[2] += 0.3
    (said,) = strange_bands(dark, bands, Units.REFLECTANCE, mean, std)
    assert said == "12% of B03 is below -0.02, where no reflectance is"
    (said,) = strange_bands(far, bands, Units.REFLECTANCE, mean, std)
    assert said.startswith("the median of B02 is 0.4") and "+6.0 deviations from the mean 0.1" in said
    assert strange_bands(dark, bands, Units.BACKSCATTER_DB, mean, std) == []  # below zero is nothing strange there


@given(
    counts=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(400, 800)), min_size=1, max_size=5)
)
def test_values_beyond_the_store_are_warned_of_from_one_percent_and_rejected_from_half(counts) -> None:
    sensor = BUILTIN_SENSORS["sentinel-2-l2a"].subset(["B03", "B04"])
    shares = [sum(one[k] for one in counts) / sum(one[2] for one in counts) for k in (0, 1)]
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("a2mae.plausibility.logger.warning", lambda text, *values: said.append(text % values))
        found = [(sensor, Clipped(one[:2], one[2])) for one in counts]
        if max(shares) > 0.5:
            with pytest.raises(InputError, match=r"is beyond -0\.1 to 6\.4535, which is what the store holds"):
                check_clipped(found)
            return
        check_clipped(found)
    assert len(said) == (max(shares) > 0.01)
    assert all(("of B03" in one) == (shares[0] > 0.01) and ("of B04" in one) == (shares[1] > 0.01) for one in said)


@given(share=st.floats(0, 1), level=st.sampled_from([0, 65535]))
def test_fill_shows_as_one_number_in_each_band(share, level) -> None:
    pixels = np.random.default_rng(0).integers(100, 60_000, (3, 20, 20)).astype(np.uint16)
    filled = np.random.default_rng(1).random((20, 20)) < share
    pixels[:, filled] = level
    assert uniform_share(pixels, np.ones((20, 20), bool)) == pytest.approx(filled.mean(), abs=1 / 400)
    assert uniform_share(pixels, ~filled) <= 1 / max((~filled).sum(), 1)
    assert uniform_share(pixels[:2], np.ones((20, 20), bool)) == 0
