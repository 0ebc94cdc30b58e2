"""Image sets of a location: sources, seasons, the order of candidates, counts; and laws that hold for any scenes."""

from __future__ import annotations

import datetime as dt
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box

from a2mae.scenes import BandAsset, Scene
from a2mae.sensors import Units
from a2mae.stssd.coregister.sets import group, in_growing_season, is_complete, order
from a2mae.stssd.parameters import Recipe

ASSET = BandAsset("B1", "a.tif", 1, 1.0, 0.0, None, Units.REFLECTANCE, 10.0)
SQUARE = box(0, 0, 1, 1)


def scene(sensor: str, date: str, cloud: float | None = None, *, hour: int = 10, copy: str = "") -> Scene:
    when = dt.datetime.fromisoformat(f"{date}T{hour:02d}:00:00+00:00")
    name = f"{sensor}_{date}{copy}"
    return Scene(name, sensor, when, "", "EPSG:32633", 10, SQUARE, (ASSET,), cloud_cover_pct=cloud)


def grouped(scenes: list[Scene], recipe: dict[str, object], **kwargs: object) -> list[tuple[str, ...]]:
    settings = {"lat": 50.0, "max_candidates": 12, "accept": lambda s: True, **kwargs}
    return [s.scenes for s in group(scenes, {"k": Recipe(**recipe)}, **settings)]


S2 = [scene("s2", f"20{y}-{m:02d}-10", cloud) for y, m, cloud in
      ((20, 1, 5), (20, 5, 30), (20, 6, 10), (20, 12, 1), (21, 7, None))]  # fmt: skip
L8 = [scene("l8", "2020-06-11", 0.0)]


def test_seasons_alternate_and_the_clearest_come_first() -> None:
    both = {"sources": [{"sensors": ["s2"], "images": 3}, {"sensors": ["l8"]}]}
    assert grouped(S2 + L8, both) == [("s2_2020-05-10", "s2_2020-06-10", "l8_2020-06-11", "s2_2020-12-10")]
    # South of the equator the growing season is the other half of the year: the same dates, the other order.
    one = {"sources": [{"sensors": ["s2"], "images": 1}, {"sensors": ["l8"]}]}
    assert grouped(S2 + L8, one)[0][0] == "s2_2020-06-10" and "s2_2020-12-10" in grouped(S2 + L8, one, lat=-30.0)[0]
    for season, months in (("growing", {5, 6, 7}), ("dormant", {1, 12})):
        rule = {"sources": [{"sensors": ["s2"], "images": 9, "season": season}], "max_images": 9}
        (members,) = grouped(S2, rule)
        assert {int(name[8:10]) for name in members} == months
    assert grouped(S2, both) == []  # the other source is not there: nothing is made


def test_counts_are_limits_and_refused_scenes_are_replaced() -> None:
    rule = {"single_source": True, "min_sources": 1, "images_per_source": 6, "spread": "time", "max_images": 3}
    assert len(grouped(S2, rule)[0]) == 3
    first = grouped(S2, {**rule, "max_images": 2, "images_per_source": 2})
    assert first == [("s2_2020-01-10", "s2_2021-07-10")]  # as far apart as possible
    others = grouped(S2, {**rule, "images_per_source": 2}, accept=lambda s: s.scene_id != "s2_2021-07-10")
    assert others[0][0] == "s2_2020-01-10" and len(others[0]) == 2
    twins = [*S2, scene("s2", "2020-06-10", 11.0)]  # an overlapping tile of the same overpass
    assert len(grouped(twins, {**rule, "images_per_source": 9, "max_images": 9})[0]) == len(S2)
    assert grouped(S2, {**rule, "min_images": 3}, accept=lambda s: s.datetime.month < 3) == []


@pytest.mark.parametrize(("lat", "growing"), [(50.0, range(4, 10)), (0.0, range(4, 10)), (-0.1, (10, 11, 12, 1, 2, 3))])
def test_growing_season_is_the_summer_of_the_hemisphere(lat: float, growing: range) -> None:
    found = {m for m in range(1, 13) if in_growing_season(dt.datetime(2021, m, 15, tzinfo=dt.UTC), lat)}
    assert found == set(growing)


def test_candidates_are_tried_in_order() -> None:
    by_season = [s.scene_id[3:10] for s in order(reversed(S2), lat=50.0, spread="seasons")]
    assert by_season == ["2020-06", "2020-12", "2020-05", "2020-01", "2021-07"]  # without a figure: half cloudy
    by_time = [s.scene_id[3:10] for s in order(reversed(S2), lat=50.0, spread="time")]
    assert by_time == ["2020-01", "2021-07", "2020-12", "2020-06", "2020-05"]
    even = [scene("s2", f"2020-{month:02d}-15", cloud) for month, cloud in ((1, 0), (4, 0), (10, 9), (7, 5), (12, 0))]
    assert [s.datetime.month for s in order(even, lat=50.0, spread="time")][:3] == [1, 12, 7]
    tied = [scene("s2", "2020-06-10", 7.0, copy=copy) for copy in "ba"]
    assert [s.scene_id[-1] for s in order(tied, lat=50.0, spread="seasons")] == ["a", "b"]
    assert order([], lat=0.0, spread="time") == [] and order(L8, lat=0.0, spread="time") == L8


def test_without_a_cloud_cover_dates_are_spread_over_time() -> None:
    dates = [scene("s2", f"2020-{month:02d}-{day}") for month in (5, 6, 7, 8) for day in (10, 25)]
    (members,) = grouped(dates, {"single_source": True, "min_sources": 1, "images_per_source": 3})
    assert members == ("s2_2020-05-10", "s2_2020-06-25", "s2_2020-08-25"), "not the three oldest"
    known = [*dates, scene("s2", "2020-06-20", 20.0), scene("s2", "2020-06-21", 60.0)]
    names = [one.scene_id for one in order(known, lat=50.0, spread="seasons")]
    assert names[0] == "s2_2020-06-20" and names[-1] == "s2_2020-06-21" and names[1:3] == [members[0], members[2]]


def test_no_more_is_read_than_a_set_needs() -> None:
    asked: list[str] = []

    def accept(one: Scene) -> bool:
        asked.append(one.scene_id)
        return one.datetime.month != 6

    rule = {"sources": [{"sensors": ["s2"], "images": 2}]}
    assert len(grouped(S2, rule, accept=accept)[0]) == 2 and asked == [
        "s2_2020-06-10",
        "s2_2020-12-10",
        "s2_2020-05-10",
    ]
    asked.clear()
    assert grouped(S2, {"sources": [{"sensors": ["s2"]}, {"sensors": ["l8"]}]}, accept=accept) == [] and not asked
    assert grouped(S2, {**rule, "min_images": 2}, accept=accept, max_candidates=2) == []
    assert asked == ["s2_2020-06-10", "s2_2020-12-10"]


def test_further_dates_make_further_sets() -> None:
    rule = {"single_source": True, "min_sources": 1, "images_per_source": 2, "max_sets": 3}
    sets = group(S2, {"k": Recipe(**rule)}, lat=50.0, max_candidates=12, accept=lambda s: True)
    assert [(one.number, len(one.scenes)) for one in sets] == [(0, 2), (1, 2)]  # the fifth date is alone
    assert len({name for one in sets for name in one.scenes}) == 4


def test_sources_that_overlap_never_give_a_scene_twice() -> None:
    rule = {"sources": [{"sensors": ["s2"], "images": 2}, {"sensors": ["s*"], "images": 2}]}
    (members,) = grouped(S2, rule)
    assert len(members) == len(set(members)) == 4
    # Both seasons of one sensor are two sources.
    seasons = {"sources": [{"sensors": ["s2"], "images": 1, "season": name} for name in ("growing", "dormant")]}
    assert grouped(S2, seasons) == [("s2_2020-06-10", "s2_2020-12-10")]
    assert grouped(S2[1:3], seasons) == []


def test_a_set_is_complete_while_every_source_has_an_image() -> None:
    pair = Recipe(sources=[{"sensors": ["s2", "s2b"], "images": 3}, {"sensors": ["l8"]}])
    assert is_complete([S2[0], *L8], pair, lat=50.0)
    assert not is_complete(S2, pair, lat=50.0)
    assert not is_complete([S2[0], scene("s2b", "2020-01-11")], pair, lat=50.0)  # two sensors, one source
    seasons = Recipe(sources=[{"sensors": ["s2"], "season": name} for name in ("growing", "dormant")])
    assert is_complete(S2[:2], seasons, lat=50.0) and not is_complete(S2[1:3], seasons, lat=50.0)
    anything = Recipe(min_sources=2, min_images=3)
    assert not is_complete(S2, anything, lat=50.0) and not is_complete([S2[0], *L8], anything, lat=50.0)
    assert is_complete([*S2[:2], *L8], anything, lat=50.0)


DATES = st.dates(dt.date(2019, 1, 1), dt.date(2021, 12, 31)).map(str)
SCENES = st.lists(
    st.builds(
        scene, st.sampled_from(["s2a", "s2b", "l8"]), DATES, st.none() | st.floats(0, 100),
        hour=st.sampled_from([9, 10]), copy=st.sampled_from(["", "b"]),
    ),
    max_size=14, unique_by=lambda one: one.scene_id,
)  # fmt: skip
RULES = st.builds(
    dict,
    sensors=st.sampled_from([["s2*"], ["s2a"], ["l8"], ["*"]]),
    images=st.integers(1, 4),
    season=st.sampled_from(["any", "growing", "dormant"]),
)
COUNTS = {"images_per_source": st.integers(1, 4), "min_images": st.integers(1, 4), "max_images": st.integers(4, 7),
          "spread": st.sampled_from(["seasons", "time"]), "max_sets": st.integers(1, 3)}  # fmt: skip
RECIPES = st.one_of(
    st.builds(Recipe, sources=st.lists(RULES, min_size=1, max_size=3), **COUNTS),
    st.builds(Recipe, min_sources=st.integers(1, 3), **COUNTS),
    st.builds(Recipe, single_source=st.just(True), min_sources=st.just(1), **COUNTS),
)


@settings(deadline=None, max_examples=300)
@given(SCENES, RECIPES, st.sampled_from([50.0, -30.0]), st.integers(1, 14), st.randoms(use_true_random=False))
def test_sets_of_any_scenes_keep_the_law(scenes, recipe, lat, tries, random) -> None:
    good = {one.scene_id for one in scenes if random.random() < 0.8}
    asked: list[str] = []

    def accept(one: Scene) -> bool:
        asked.append(one.scene_id)
        return one.scene_id in good

    sets = group(scenes, {"k": recipe, "off": None}, lat=lat, max_candidates=tries, accept=accept)
    by_id = {one.scene_id: one for one in scenes}
    used: Counter[str] = Counter()
    for number, planned in enumerate(sets):
        members = [by_id[name] for name in planned.scenes]
        assert planned.kind == "k" and planned.number == number
        assert recipe.min_images <= len(members) <= recipe.max_images
        assert members == sorted(members, key=lambda one: (one.datetime, one.scene_id))
        assert set(planned.scenes) <= good and is_complete(members, recipe, lat=lat)
        if recipe.single_source:
            assert len({one.sensor for one in members}) == 1
        # Never two products of one overpass, and so never a scene twice.
        for k, one in enumerate(members):
            for other in members[k + 1 :]:
                assert one.sensor != other.sensor or other.datetime - one.datetime >= dt.timedelta(hours=1)
        used.update(planned.scenes)
    assert all(count == 1 for count in used.values())  # nor in two sets of a kind
    assert set(used) <= set(asked)
    again = group(scenes[::-1], {"k": recipe}, lat=lat, max_candidates=tries, accept=lambda one: one.scene_id in good)
    assert again == sets  # whatever the order of the scene table


@settings(deadline=None, max_examples=100)
@given(SCENES, st.sampled_from([50.0, -30.0]), st.sampled_from(["seasons", "time"]))
def test_order_leaves_no_scene_out(scenes, lat, spread) -> None:
    found = order(scenes, lat=lat, spread=spread)
    assert sorted(one.scene_id for one in found) == sorted(one.scene_id for one in scenes)
    if spread == "time" and len(found) > 1:
        times = sorted(one.datetime for one in scenes)
        assert (found[0].datetime, found[1].datetime) == (times[0], times[-1])
    if spread == "seasons":
        growing = [in_growing_season(one.datetime, lat) for one in found]
        both = 2 * min(sum(growing), len(growing) - sum(growing))
        assert growing[:both] == [True, False] * (both // 2)
