"""The survey: which images are good enough, which sets they make, which pairs are compared and what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from a2mae.raster.read import RasterReader
from a2mae.scenes import Scene, scenes_from_table
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.stssd.coregister import survey as survey_module
from a2mae.stssd.coregister.build import covered_locations
from a2mae.stssd.coregister.survey import Location, Surveyed, compared_bands, survey
from a2mae.stssd.coregister.work import SURVEYED
from a2mae.stssd.parameters import CoregisterParameters

from ..conftest import RECIPES, World
from .small_scenes import GROUND, GSD, LAT, LON, MARGIN, SENSORS, SQUARE, scene

AXES = ["true_shift_x_m", "true_shift_y_m"]
DATES = {"single_source": True, "min_sources": 1, "images_per_source": 6, "max_images": 6}


def look(*scenes: Scene, recipes: dict[str, object] | None = None, **parameters: object) -> list[Surveyed]:
    settings = CoregisterParameters(
        recipes={"dates": DATES} if recipes is None else recipes, clouds={"buffer_m": 0}, workers=1, **parameters
    )
    with RasterReader() as reader:
        return survey(reader, [Location(SQUARE, LON, LAT, scenes)], SENSORS, settings)


def reasons(surveyed: list[Surveyed]) -> dict[str, str]:
    return {rejection.scene_id: rejection.reason for part in surveyed for rejection in part.rejected}


def test_images_are_held_against_the_quality_gate(tmp_path: Path) -> None:
    broken = scene(tmp_path, "broken", month=5)
    path = Path(broken.assets[0].href)
    path.write_bytes(path.read_bytes()[:600])
    scenes = [
        scene(tmp_path, "clear", month=6),
        scene(tmp_path, "good", month=7, cloudy=0.25),
        scene(tmp_path, "cloud", month=8, cloudy=0.5),
        scene(tmp_path, "unseen", month=9, unseen=0.75),
        scene(tmp_path, "both", month=4, unseen=0.375, cloudy=0.25),  # three eighths are left of the whole
        broken,
    ]
    (found,) = look(*scenes)
    assert reasons([found]) == {"cloud": "cloud", "unseen": "nodata", "both": "nodata", "broken": "corrupt"}
    assert [rejection.scene_id for rejection in found.rejected] == sorted(reasons([found]))
    details = {rejection.scene_id: rejection.detail for rejection in found.rejected}
    assert details["cloud"] == (
        "50% is cloud or shadow by the cloud mask, coregister.quality.max_cloud_fraction allows 40%"
    )
    assert details["unseen"].startswith("25% of the footprint was seen, coregister.quality.min_valid_fraction")
    assert details["both"].startswith("38% of the footprint is usable")
    facts = {image.scene_id: image for image in found.images}
    assert {key: (image.cloud_fraction, image.valid_fraction) for key, image in facts.items()} == {
        "clear": (0.0, 1.0), "good": (0.25, 0.75),
    }  # fmt: skip
    inside = GROUND[MARGIN:-MARGIN, MARGIN:-MARGIN]
    np.testing.assert_allclose(
        (facts["clear"].dark_value, facts["clear"].bright_value), np.percentile(inside, (1, 99)), rtol=1e-5
    )
    # The same images under another gate.
    (other,) = look(*scenes, quality={"max_cloud_fraction": 0.1, "min_valid_fraction": 0.25})
    assert reasons([other])["good"] == "cloud" and {"clear", "unseen"} == {image.scene_id for image in other.images}


def test_nothing_is_read_where_no_recipe_can_be_filled(tmp_path: Path) -> None:
    scenes = [scene(tmp_path, f"s{month}", month=month) for month in (5, 6)]
    for path in tmp_path.iterdir():
        path.unlink()
    two = {"pair": {"sources": [{"sensors": ["one"]}, {"sensors": ["two", "three"]}]}, "off": None}
    (found,) = look(*scenes, recipes=two)
    assert not found.sets and not found.images and not found.matches and found.reference == found.hub == ""
    assert reasons([found]) == {"s5": "no_recipe", "s6": "no_recipe"}
    assert {rejection.detail for rejection in found.rejected} == {
        "not read: the scenes here (one 2) fill none of coregister.recipes: pair (one with two or three)"
    }
    (missing,) = look(*scenes)  # a recipe that they fill: now the files are asked for
    assert set(reasons([missing]).values()) == {"corrupt"}


def test_good_images_without_a_set_are_named(tmp_path: Path) -> None:
    scenes = [scene(tmp_path, f"s{month}", month=month, cloudy=cloudy) for month, cloudy in ((5, 0), (6, 0), (7, 1))]
    (found,) = look(*scenes, recipes={"dates": {**DATES, "min_images": 3}})
    assert not found.sets and reasons([found]) == {"s5": "incomplete_set", "s6": "incomplete_set", "s7": "cloud"}


def test_kinds_are_made_near_their_places_only(tmp_path: Path) -> None:
    scenes = [scene(tmp_path, f"s{month}", month=month) for month in (5, 6)]
    near, far = ({**DATES, "near": [[LON, lat]], "near_m": 20_000} for lat in (LAT + 0.1, LAT + 1))
    (found,) = look(*scenes, recipes={"near": near, "far": far})
    assert [planned.kind for planned in found.sets] == ["near"]


def test_pairs_tell_how_far_images_lie_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    moved = {"a": (0.0, 0.0), "b": (12.0, -7.0), "c": (-20.0, 15.0)}
    scenes = [
        scene(
            tmp_path, name, month=month, moved_m=moved[name], ground=GROUND + rng.normal(0, 0.002, GROUND.shape),
            cloudy=0 if name == "a" else 0.1,
        )
        for month, name in enumerate(moved, start=5)
    ]  # fmt: skip
    blank = scene(tmp_path, "z", month=9, ground=0.2 + rng.normal(0, 0.002, GROUND.shape))
    (found,) = look(*scenes, blank)
    assert found.hub == found.reference == "a"  # the clearest, and there in the only set
    told = {pair.moving: pair for pair in found.matches if pair.trusted}
    assert set(told) == {"b", "c"} and {pair.fixed for pair in told.values()} == {"a"}
    for name, pair in told.items():
        shift = np.array([pair.match.shift_x_m, pair.match.shift_y_m])
        assert np.hypot(*(shift + moved[name])) < 0.1 * GSD, name
        assert pair.coarser_gsd_m == GSD
    # What shows nothing is compared with the hub, then with another that could be placed, and never trusted.
    tried = [pair.fixed for pair in found.matches if pair.moving == "z"]
    assert tried[0] == "a" and len(tried) == len(set(tried)) > 1
    assert not look(*scenes, registration={"enabled": False})[0].matches


def test_sets_that_share_images_share_a_reference(tmp_path: Path) -> None:
    scenes = [scene(tmp_path, f"{name}{month}", sensor=name, month=month) for name in SENSORS for month in (5, 6)]
    scenes.append(scene(tmp_path, "cloud", month=7, cloudy=1))

    def sources(*names: str) -> dict[str, object]:
        return {"sources": [{"sensors": [name], "images": 3} for name in names]}

    (one,) = look(*scenes, recipes={"x": sources("one", "two"), "y": sources("two", "three")})
    assert one.reference == "two5" and one.hub == "one5"  # a member of both sets; the first of the clearest
    apart = look(*scenes, recipes={"x": sources("one"), "y": sources("two", "three")})
    assert [[planned.kind for planned in part.sets] for part in apart] == [["x"], ["y"]]
    assert apart[0].matches == apart[1].matches and apart[0].hub == apart[1].hub
    assert reasons(apart) == {"cloud": "cloud"} and not apart[1].rejected  # told once


def test_a_scene_is_read_once_for_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = survey_module.read_image

    def counted(reader: RasterReader, what: Scene, *args: object, **kwargs: object) -> object:
        read.append(what.scene_id)
        return original(reader, what, *args, **kwargs)

    monkeypatch.setattr(survey_module, "read_image", counted)
    scenes = [scene(tmp_path, f"s{month}", month=month, cloudy=month == 7) for month in (5, 6, 7)]
    (found,) = look(*scenes, recipes={"dates": DATES, "again": {**DATES, "spread": "time"}})
    assert len(found.sets) == 2 and sorted(read) == ["s5", "s6", "s7"]


@pytest.mark.parametrize(
    ("sensor_id", "bands"),
    [
        ("sentinel-2-l2a", ("B04", "B08", "B11")), ("landsat-oli-c2-l2", ("SR_B4", "SR_B5", "SR_B6")),
        ("gaofen-1", ("B3", "B4", "B2")), ("naip", ("B3", "B4", "B2")), ("sentinel-1-rtc", ("vv", "vh")),
    ],
)  # fmt: skip
def test_compared_bands_are_red_and_infrared(sensor_id: str, bands: tuple[str, ...]) -> None:
    assert compared_bands(BUILTIN_SENSORS[sensor_id]) == bands


def test_surveys_of_a_world_hold_together(world: World) -> None:
    settings = CoregisterParameters(recipes=RECIPES, workers=1)
    scenes = scenes_from_table(world.scenes)
    locations = covered_locations(scenes, world.locations.iloc[:2], settings.quality.min_valid_fraction)
    with RasterReader() as reader:
        surveyed = survey(reader, locations, world.sensors, settings)
    assert [part.location_id for part in surveyed] == [location.footprint.location_id for location in locations]
    sensor_of_scene = {one.scene_id: one.sensor for one in scenes}
    for part, location in zip(surveyed, locations, strict=True):
        members = {scene_id for planned in part.sets for scene_id in planned.scenes}
        assert all(part.reference in planned.scenes for planned in part.sets)
        assert members == {image.scene_id for image in part.images} and part.hub in members
        assert not members & reasons([part]).keys()
        assert members | reasons([part]).keys() <= {one.scene_id for one in location.scenes}
        for image in part.images:
            assert image.cloud_fraction <= settings.quality.max_cloud_fraction
            assert settings.quality.min_valid_fraction <= image.valid_fraction <= 1
            assert image.dark_value < image.bright_value
        placed = {part.hub}
        for pair in part.matches:  # every image is moved once, onto one that could be placed before it
            assert pair.fixed in placed and pair.moving not in placed
            pair_gsd_m = [world.sensors[sensor_of_scene[key]].gsd_m for key in (pair.moving, pair.fixed)]
            assert pair.coarser_gsd_m == max(pair_gsd_m)
            if pair.trusted:
                placed.add(pair.moving)
                needed = (world.truth.loc[pair.fixed, AXES] - world.truth.loc[pair.moving, AXES]).to_numpy(float)
                found = (pair.match.shift_x_m, pair.match.shift_y_m)
                assert np.hypot(*(found - needed)) < 0.35 * pair.coarser_gsd_m, pair
    # As it is kept beside the store, it comes back the same.
    assert [dataclasses.asdict(part) for part in SURVEYED.validate_json(SURVEYED.dump_json(surveyed))] == [
        dataclasses.asdict(part) for part in surveyed
    ]
