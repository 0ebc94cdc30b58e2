"""The build on a simulated world: shifts against the truth, faults, continuation, any number of workers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from a2mae.config import RegistrationParameters
from a2mae.plausibility import implausible_ranges, suspicious_offsets
from a2mae.remote.policy import ReadingParameters
from a2mae.scenes import (
    Role,
    assets_from_json,
    assets_to_json,
    scenes_from_table,
    scenes_to_table,
    sensors_from_json,
)
from a2mae.simulate.parameters import AcquisitionParameters, RegionParameters, SimulateParameters
from a2mae.simulate.run import simulate
from a2mae.stssd.coregister import build as build_module
from a2mae.stssd.coregister.build import build, covered_locations
from a2mae.stssd.ingest.ingest import ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store import writer as store_writer
from a2mae.stssd.store.store import ImageSetStore
from a2mae.tables import IMAGE_COLUMNS, REJECTED_COLUMNS

from ..conftest import RECIPES, Built, World

DOCS = Path(__file__).parents[3] / "docs" / "stssd.md"
PLACE = (12.3, 51.9)
GRID_S2 = ["B02", "B03", "B04", "B08", "B11", "B12"]


def tree(path: str) -> dict[str, str]:
    return {
        str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in Path(path).rglob("*")
        if p.is_file()
    }


def test_shifts_are_those_of_the_truth(world: World, built: Built) -> None:
    images, truth = built.tables.images, world.truth
    reference = images[images["is_reference"]].set_index("set_id")["scene_id"]
    reference = images["set_id"].map(reference)  # one in every set
    coarser = np.maximum(images["gsd_m"], reference.map(truth["sensor"]).map(lambda s: world.sensors[s].gsd_m))
    expected = {
        axis: reference.map(truth[f"true_shift_{axis}_m"]) - images["scene_id"].map(truth[f"true_shift_{axis}_m"])
        for axis in "xy"
    }
    away = np.hypot(images["shift_x_m"] - expected["x"], images["shift_y_m"] - expected["y"]) / coarser
    assert set(images["registration"]) == {"reference", "registered"}
    assert away.median() <= 0.1
    assert away.max() <= 0.3
    assert np.hypot(expected["x"], expected["y"]).max() > 5  # there was something to find
    assert images["residual_px"].max() <= 0.2


def test_tables_address_the_store(world: World, built: Built) -> None:
    images, rejected = built.tables.images, built.tables.rejected
    assert list(images.columns) == IMAGE_COLUMNS.names
    assert list(rejected.columns) == REJECTED_COLUMNS.names
    assert images["image_id"].is_unique
    store = ImageSetStore.open(built.url)
    assert store.manifest_hash == built.tables.manifest_hash
    store.verify()
    for sensor, rows in images.groupby("sensor"):
        assert rows["row"].max() < store.count(sensor)
        unique = rows.drop_duplicates("row")
        pixels, valid = store.read(sensor, unique["row"].to_numpy())
        np.testing.assert_allclose(valid.mean(axis=(1, 2)), unique["valid_fraction"], atol=0.05)
        assert (pixels[:, 0] != store.sensor(sensor).encoding.nodata)[valid].all()
        assert store.shape(sensor)[1:] == (1920 // store.sensor(sensor).gsd_m,) * 2
    # Baselines before and after 04.00 give the same reflectance: counts are harmonised.
    s2 = images[images["sensor"] == "sentinel-2-l2a"].drop_duplicates("row")
    physical, valid = store.read_physical("sentinel-2-l2a", s2["row"].to_numpy(), bands=["B02"])
    means = pd.Series([p[0][v].mean() for p, v in zip(physical, valid, strict=True)])
    by_baseline = means.groupby(s2["processing_baseline"].to_numpy()).mean()
    assert len(by_baseline) == 2 and by_baseline.max() - by_baseline.min() < 0.03
    offsets = s2.groupby("processing_baseline")["source_offset"].first().map(lambda o: o[0])
    assert sorted(offsets.round(3)) == [-0.1, 0.0]
    assert set(rejected["reason"]) <= {"cloud", "nodata", "incomplete_set"}


def test_two_workers_write_the_same_bytes(world: World, built: Built, tmp_path: Path) -> None:
    url = str(tmp_path / "stssd.zarr")
    parameters = CoregisterParameters(recipes=RECIPES, workers=2, locations_per_task=1)
    tables = build(world.scenes, world.locations, world.sensors, parameters, url)
    pd.testing.assert_frame_equal(tables.images, built.tables.images)
    assert tree(url) == tree(built.url)


def test_a_stopped_build_goes_on(world: World, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "stssd.zarr")
    original, calls = build_module.shard_task, []

    def stops(task: build_module.ShardTask) -> int:
        calls.append(task.shard)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(task)

    monkeypatch.setattr(build_module, "shard_task", stops)
    with pytest.raises(KeyboardInterrupt):
        build(world.scenes, world.locations, world.sensors, built.parameters, url)
    build(world.scenes, world.locations, world.sensors, built.parameters, url)
    assert len(calls) == len(set(calls)) + 1  # the one that was stopped was written again, the first was not
    assert tree(url) == tree(built.url)
    calls.clear()
    again = build(world.scenes, world.locations, world.sensors, built.parameters, url)
    assert not calls
    pd.testing.assert_frame_equal(again.images, built.tables.images)


def test_another_place_adds_its_shards_only(
    world: World, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = build_module.shard_task, []

    def counts(task: build_module.ShardTask) -> int:
        calls.append(task.shard)
        return original(task)

    monkeypatch.setattr(build_module, "shard_task", counts)
    monkeypatch.setattr(store_writer, "MAX_ROWS_PER_SHARD", 1)
    few, more = (world.locations.sort_values("location_id").iloc[:n] for n in (1, 2))
    registration = RegistrationParameters(pool_locations=1000)  # shifts of the first place do not change by the second
    parameters = CoregisterParameters(recipes=RECIPES, workers=1, registration=registration)
    build(world.scenes, few, world.sensors, parameters, str(tmp_path / "a.zarr"))
    first = set(calls)
    calls.clear()
    grown = build(world.scenes, more, world.sensors, parameters, str(tmp_path / "a.zarr"))
    added = set(calls)
    assert first and added and not first & added
    fresh = build(world.scenes, more, world.sensors, parameters, str(tmp_path / "b.zarr"))
    assert grown.manifest_hash == fresh.manifest_hash
    assert tree(str(tmp_path / "a.zarr")) == tree(str(tmp_path / "b.zarr"))


def test_without_its_work_folder_a_finished_build_is_the_same(world: World, built: Built, tmp_path: Path) -> None:
    url = str(tmp_path / "stssd.zarr")
    shutil.copytree(built.url, url)  # and not the folder beside it
    again = build(world.scenes, world.locations, world.sensors, built.parameters, url)
    pd.testing.assert_frame_equal(again.images, built.tables.images)
    assert tree(url) == tree(built.url)


def test_a_survey_that_was_cut_otherwise_is_not_taken_for_this_one(world: World, built: Built, tmp_path: Path) -> None:
    """How many locations a part of the survey has may change from one run to the next."""
    url = str(tmp_path / "stssd.zarr")
    shutil.copytree(f"{built.url}.work", f"{url}.work")
    assert built.parameters.locations_per_task > 1
    parameters = built.parameters.model_copy(update={"locations_per_task": 1})
    again = build(world.scenes, world.locations, world.sensors, parameters, url)
    pd.testing.assert_frame_equal(again.images, built.tables.images)
    assert tree(url) == tree(built.url)


def test_files_that_break_cost_their_images_only(world: World, built: Built, tmp_path: Path) -> None:
    copy = tmp_path / "world"
    shutil.copytree(world.folder, copy)
    scenes = scenes_from_table(world.scenes)
    moved = [json.loads(json.dumps(scene.scene_id)) for scene in scenes]
    assert moved
    table = world.scenes.copy()
    table["assets"] = table["assets"].str.replace(str(world.folder), str(copy), regex=False)
    scenes = scenes_from_table(table)
    # A band that registration reads: found in the survey. One that only the store needs: found while writing.
    landsat = next(s for s in scenes if s.scene_id.startswith("lc_2020"))
    compared = next(a for a in landsat.bands if a.band == "SR_B4")
    s2 = next(s for s in scenes if s.scene_id.startswith("s2_2020"))
    late = next(a for a in s2.bands if a.band == "B09")
    for asset in (compared, late):
        path = Path(asset.href)
        assert path.is_relative_to(copy)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    url = str(tmp_path / "stssd.zarr")
    told = built.parameters.model_copy(update={"reading": ReadingParameters(verify_checksums="none")})
    tables = build(table, world.locations, world.sensors, told, url)
    assert landsat.scene_id not in set(tables.images["scene_id"])
    broken = tables.rejected[tables.rejected["reason"] == "corrupt"]
    assert {landsat.scene_id, s2.scene_id} <= set(broken["scene_id"])
    assert broken["detail"].str.contains("cannot be").all()
    assert len(tables.images) and s2.scene_id not in set(tables.images["scene_id"])
    complete = tables.images.groupby("set_id")["sensor"].nunique()
    assert (complete == 2).all()
    ImageSetStore.open(url)


def test_gates_and_switches(world: World, tmp_path: Path) -> None:
    strict = CoregisterParameters(
        recipes=RECIPES, workers=1, quality={"max_cloud_fraction": 0.05}, registration={"enabled": False}
    )
    tables = build(world.scenes, world.locations, world.sensors, strict, str(tmp_path / "a.zarr"))
    assert (tables.images["cloud_fraction"] <= 0.05).all()
    assert set(tables.images["registration"]) == {"reference", "nominal"}
    assert (tables.images["shift_x_m"] == 0).all()
    assert (tables.rejected["reason"] == "cloud").any()
    assert tables.rejected["detail"].str.contains("max_cloud_fraction").any()


def test_locations_come_with_the_scenes_that_cover_enough_of_them(world: World) -> None:
    scenes = scenes_from_table(world.scenes)
    squares = world.locations.set_index("location_id")
    few, many = (covered_locations(scenes, world.locations, share) for share in (0.999, 0.2))
    assert [one.footprint.location_id for one in many] == list(squares.index)
    for one in many:
        row = squares.loc[one.footprint.location_id]
        assert (one.lon, one.lat, one.footprint.size_m) == (row["lon"], row["lat"], row["footprint_m"])
        shares = {s.scene_id: s.geometry.intersection(row["geometry"]).area / row["geometry"].area for s in scenes}
        assert [s.scene_id for s in one.scenes] == sorted(key for key, share in shares.items() if share >= 0.2)
    assert {s.scene_id for one in few for s in one.scenes} <= {s.scene_id for one in many for s in one.scenes}
    assert covered_locations(scenes, world.locations.iloc[:0], 0.5) == []


def test_places_that_fill_no_recipe_say_what_they_have_and_what_is_wanted(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dates = world.scenes[world.scenes["sensor"] == "sentinel-2-l2a"]
    two_sources = CoregisterParameters(recipes={**dict.fromkeys(RECIPES), "any": {"min_sources": 2}}, workers=1)
    tables = build(dates, world.locations, world.sensors, two_sources, str(tmp_path / "a.zarr"))
    assert tables.images.empty
    assert set(tables.rejected["reason"]) == {"no_recipe"}
    assert set(tables.rejected["location_id"]) == set(world.locations["location_id"])
    (detail,) = set(tables.rejected["detail"].str.replace(r"sentinel-2-l2a \d+", "sentinel-2-l2a N", regex=True))
    assert detail == (
        "not read: the scenes here (sentinel-2-l2a N) fill none of coregister.recipes: any (2 sources, 2 images)"
    )
    assert "no set was made; for example" in caplog.text


def test_scenes_that_no_set_needs_are_listed(world: World, tmp_path: Path) -> None:
    dates = world.scenes[world.scenes["sensor"] == "sentinel-2-l2a"]
    one = {"single_source": True, "min_sources": 1, "images_per_source": 1, "min_images": 1, "max_images": 1}
    parameters = CoregisterParameters(recipes={**dict.fromkeys(RECIPES), "one": one}, workers=1)
    tables = build(dates, world.locations, world.sensors, parameters, str(tmp_path / "a.zarr"))
    covering = covered_locations(scenes_from_table(dates), world.locations, parameters.quality.min_valid_fraction)
    told = [*tables.images["scene_id"], *tables.rejected["scene_id"]]
    assert set(told) == {scene.scene_id for place in covering for scene in place.scenes}
    idle = tables.rejected[tables.rejected["reason"] == "not_needed"]
    assert len(idle) and set(idle["location_id"]) == {""} and idle["detail"].str.contains("images_per_source").all()
    assert not set(idle["scene_id"]) & set(tables.images["scene_id"]) and idle["scene_id"].is_unique


def four_recipes() -> dict[str, object]:
    """The block of the documentation that a reader copies."""
    block = DOCS.read_text(encoding="utf-8").split("<!-- recipes -->")[1].split("```yaml")[1].split("```")[0]
    recipes = yaml.safe_load(block)["coregister"]["recipes"]
    recipes["city"]["near"] = [list(PLACE)]
    recipes["gf-1"] = recipes.pop("gf1")  # a kind may end in what numbers the sets of a kind
    return recipes


def test_the_four_kinds_are_built_of_simulated_scenes(tmp_path: Path) -> None:
    dates = tuple(
        AcquisitionParameters(period=period, season=season)
        for period, season in (("before", "growing"), ("after", "dormant"))
    )
    region = RegionParameters(
        name="one", lon=PLACE[0], lat=PLACE[1], biome="temperate_plain", footprints=1, gaofen1_footprints=1,
        gaofen2_footprints=1,
    )  # fmt: skip
    sensors = ("sentinel-2-l2a", "landsat-oli-c2-l2", "gaofen-1", "gaofen-2")
    simulate(
        SimulateParameters(workers=1, regions=(region,), acquisitions=dict.fromkeys(sensors, dates)), tmp_path / "world"
    )
    found = ingest(IngestParameters(), simulated_catalog=tmp_path / "world" / "catalog.json")
    parameters = CoregisterParameters(recipes={**four_recipes(), "aerial": None}, workers=1)
    url = str(tmp_path / "stssd.zarr")
    images = build(found.scenes, found.locations, sensors_from_json(found.sensors), parameters, url).images
    kinds = images.groupby("kind")
    assert (images["set_id"] == images["location_id"] + "-" + images["kind"]).all()
    expected = {
        "grid": {"sentinel-2-l2a": 2, "landsat-oli-c2-l2": 2}, "city": {"sentinel-2-l2a": 2, "landsat-oli-c2-l2": 2},
        "gf-1": {"gaofen-1": 2, "sentinel-2-l2a": 2}, "gf2": {"gaofen-2": 2, "sentinel-2-l2a": 2},
    }  # fmt: skip
    assert {kind: rows["sensor"].value_counts().to_dict() for kind, rows in kinds} == expected
    assert all(rows["datetime"].dt.month.between(4, 9).any() and rows["is_reference"].sum() == 1 for _, rows in kinds)
    used = {(kind, sensor): rows["bands"].iloc[0] for (kind, sensor), rows in
            images.groupby(["kind", "sensor"])}  # fmt: skip
    assert list(used["grid", "sentinel-2-l2a"]) == GRID_S2
    assert used["city", "sentinel-2-l2a"] is None and used["gf-1", "gaofen-1"] is None
    assert len(used["grid", "landsat-oli-c2-l2"]) == 7
    # A scene that serves several kinds is stored once, with all of its bands.
    store = ImageSetStore.open(url)
    assert store.count("sentinel-2-l2a") == 2 and store.shape("sentinel-2-l2a")[0] == 12


def test_no_overlap_and_wrong_footprint_are_named(world: World, tmp_path: Path, built: Built) -> None:
    away = world.locations.copy()
    away["geometry"] = away.geometry.translate(20)
    with pytest.raises(ValueError, match="covers any of 4 locations"):
        build(world.scenes, away, world.sensors, built.parameters, str(tmp_path / "a.zarr"))
    odd = world.locations.copy()
    odd["footprint_m"] = 1900.0
    with pytest.raises(ValueError, match=r"not a whole number of pixels of (8|30) m.*footprint_m"):
        build(world.scenes, odd, world.sensors, built.parameters, str(tmp_path / "b.zarr"))


def test_bytes_taken_for_reflectance_are_warned_of(
    world: World, built: Built, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert implausible_ranges(built.tables.images, world.sensors.values()).empty
    scenes = world.scenes.copy()
    landsat = scenes["sensor"].str.startswith("landsat")

    def a_hundredth(text: str) -> str:
        assets = assets_from_json(text)
        scaled = (dataclasses.replace(a, scale=a.scale / 100, offset=0.0) if a.role is Role.DATA else a for a in assets)
        return assets_to_json(scaled)

    scenes.loc[landsat, "assets"] = scenes.loc[landsat, "assets"].map(a_hundredth)
    with caplog.at_level(logging.WARNING):
        build(scenes, world.locations, world.sensors, built.parameters, str(tmp_path / "s.zarr"))
    (warning,) = [r.getMessage() for r in caplog.records if "with values from" in r.getMessage()]
    assert "scenes of landsat-oli-c2-l2, the first " in warning and "check scale, offset and units" in warning


def test_a_wrong_offset_reaches_the_image_table(
    world: World, built: Built, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert built.tables.images["dark_value"].notna().all() and suspicious_offsets(built.tables.images).empty
    scenes = scenes_from_table(world.scenes)
    wrong = next(
        s for s in scenes if s.sensor == "sentinel-2-l2a" and s.scene_id in set(built.tables.images["scene_id"])
    )
    assets = [dataclasses.replace(a, offset=a.offset - 0.1) for a in wrong.assets]
    table = world.scenes.copy()
    table.loc[table["scene_id"] == wrong.scene_id, "assets"] = assets_to_json(assets)
    tables = build(table, world.locations.iloc[:2], world.sensors, built.parameters, str(tmp_path / "a.zarr"))
    assert wrong.scene_id in set(suspicious_offsets(tables.images)["scene_id"])
    assert f"Scene {wrong.scene_id} (sentinel-2-l2a, baseline {wrong.processing_baseline})" in caplog.text


def test_scene_table_of_refused_scenes_only(world: World, tmp_path: Path, built: Built) -> None:
    with pytest.raises(ValueError, match="none of 0 accepted scenes"):
        build(scenes_to_table([]), world.locations, world.sensors, built.parameters, str(tmp_path / "a.zarr"))
