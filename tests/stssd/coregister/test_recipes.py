"""Recipes: the four kinds of METHOD.md section 1 on simulated scenes, seasons, bands, counts, places."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from shapely.geometry import box

from a2mae.scenes import BandAsset, Scene, sensors_from_json
from a2mae.sensors import BUILTIN_SENSORS, get_sensor
from a2mae.simulate.parameters import AcquisitionParameters, RegionParameters, SimulateParameters
from a2mae.simulate.run import simulate
from a2mae.stssd.coregister.build import build
from a2mae.stssd.coregister.sets import group
from a2mae.stssd.ingest.ingest import ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters, Recipe, check_recipes
from a2mae.stssd.store.store import ImageSetStore

DOCS = Path(__file__).parents[3] / "docs" / "stssd.md"
PLACE = (12.3, 51.9)
GRID_S2 = ["B02", "B03", "B04", "B08", "B11", "B12"]


def four_recipes() -> dict[str, object]:
    """The block of the documentation that a reader copies."""
    block = DOCS.read_text(encoding="utf-8").split("<!-- recipes -->")[1].split("```yaml")[1].split("```")[0]
    recipes = yaml.safe_load(block)["coregister"]["recipes"]
    recipes["city"]["near"] = [list(PLACE)]
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
    kinds = images.assign(kind=images["set_id"].str.rpartition("-")[2]).groupby("kind")
    expected = {
        "grid": {"sentinel-2-l2a": 2, "landsat-oli-c2-l2": 2}, "city": {"sentinel-2-l2a": 2, "landsat-oli-c2-l2": 2},
        "gf1": {"gaofen-1": 2, "sentinel-2-l2a": 2}, "gf2": {"gaofen-2": 2, "sentinel-2-l2a": 2},
    }  # fmt: skip
    assert {kind: rows["sensor"].value_counts().to_dict() for kind, rows in kinds} == expected
    assert all(rows["datetime"].dt.month.between(4, 9).any() and rows["is_reference"].sum() == 1 for _, rows in kinds)
    used = {(kind, sensor): rows["bands"].iloc[0] for (kind, sensor), rows in
            images.assign(kind=images["set_id"].str.rpartition("-")[2]).groupby(["kind", "sensor"])}  # fmt: skip
    assert list(used["grid", "sentinel-2-l2a"]) == GRID_S2
    assert used["city", "sentinel-2-l2a"] is None and used["gf1", "gaofen-1"] is None
    assert len(used["grid", "landsat-oli-c2-l2"]) == 7
    # A scene that serves several kinds is stored once, with all of its bands.
    store = ImageSetStore.open(url)
    assert store.count("sentinel-2-l2a") == 2 and store.shape("sentinel-2-l2a")[0] == 12


def scene(sensor: str, date: str, cloud: float | None = None) -> Scene:
    when = dt.datetime.fromisoformat(f"{date}T10:00:00+00:00")
    asset = BandAsset("B1", "a.tif", 1, 1.0, 0.0, None, get_sensor("naip").encoding.units, 10.0)
    return Scene(
        f"{sensor}_{date}", sensor, when, "", "EPSG:32633", 10, box(0, 0, 1, 1), (asset,), cloud_cover_pct=cloud
    )


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
    with pytest.raises(ValueError, match="larger than max_images"):
        Recipe(min_images=4, max_images=3)


def test_a_kind_can_be_bound_to_places(tmp_path: Path) -> None:
    path = tmp_path / "cities.geojson"
    features = [{"type": "Feature", "geometry": {"type": "Point", "coordinates": [12.0, 52.0]}, "properties": {}}]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    recipe = Recipe(near=str(path), near_m=10_000)
    assert recipe.near == ((12.0, 52.0),)  # part of the build's fingerprint: the file's content, not its name
    assert recipe.is_at(12.1, 52.0) and not recipe.is_at(12.2, 52.0) and Recipe().is_at(0, 0)
    path.write_text("[]")
    with pytest.raises(ValueError, match="is not a GeoJSON file of places"):
        Recipe(near=str(path))


def test_bands_are_those_that_the_sensors_have() -> None:
    recipe = Recipe(sources=[{"sensors": ["landsat-*"], "bands": ["coastal", "red", "SR_B7"]}])
    of = {key: recipe.bands_of(BUILTIN_SENSORS[f"landsat-{key}-c2-l2"]) for key in ("oli", "etm")}
    assert of == {"oli": ("SR_B1", "SR_B4", "SR_B7"), "etm": ("SR_B3", "SR_B7")}
    assert recipe.bands_of(BUILTIN_SENSORS["naip"]) is None
    landsat = {key: sensor for key, sensor in BUILTIN_SENSORS.items() if key.startswith("landsat")}
    check_recipes({"grid": recipe, "off": None}, landsat)
    wrong = Recipe(sources=[{"sensors": ["landsat-*"], "bands": ["rededge071"]}])
    with pytest.raises(ValueError, match=r"coregister\.recipes\.grid: .* has no band 'rededge071'; there are SR_B1"):
        check_recipes({"grid": wrong}, landsat)
    assert np.isfinite(recipe.near_m)
