from pathlib import Path

import pytest
import yaml
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from pydantic import ValidationError

from a2mae.pipelines.simulate import create_pipeline
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.simulate.delivery.manifest import read_manifest
from a2mae.simulate.parameters import SimulateParameters
from a2mae.simulate.region import Region, utm_zone
from a2mae.simulate.run import simulate, tiny_parameters
from a2mae.simulate.scenes import plan_scenes

CONF = Path(__file__).parents[2] / "conf" / "base"


def _demo() -> dict:
    return yaml.safe_load((CONF / "parameters_simulate.yml").read_text("utf-8"))["simulate"]


def _catalog(folder: Path) -> DataCatalog:
    text = (CONF / "catalog_simulate.yml").read_text("utf-8").replace("${globals:data_root}", str(folder))
    return DataCatalog.from_config(yaml.safe_load(text))


def test_the_stage_writes_the_manifest_that_the_core_writes(tmp_path):
    parameters = tiny_parameters(5).model_copy(
        update={"acquisitions": {"landsat-oli-c2-l2": tiny_parameters(5).acquisitions["landsat-oli-c2-l2"]}}
    )
    catalog = _catalog(tmp_path / "data")
    catalog["params:simulate"] = MemoryDataset(parameters)
    SequentialRunner().run(create_pipeline(), catalog)
    folder = tmp_path / "data/01_raw/simulated"
    expected = simulate(parameters, tmp_path / "core")
    assert read_manifest(folder) == expected
    assert (folder / "manifest.json").read_bytes() == (tmp_path / "core/manifest.json").read_bytes()
    assert catalog["simulation"].load()["seed"] == 5


def test_the_demo_has_what_the_builder_must_cope_with():
    parameters = SimulateParameters(**_demo())
    regions = [
        Region.place(r, footprint_m=parameters.footprint_m, margin_m=parameters.margin_m) for r in parameters.regions
    ]
    scenes = [scene for region in regions for scene in plan_scenes(parameters, region)]
    by_name = {region.name: region for region in regions}
    assert len({region.epsg % 100 for region in regions}) >= 5  # UTM zones
    assert {region.south for region in regions} == {False, True}
    assert {scene.sensor_id for scene in scenes} == set(parameters.acquisitions)
    assert {scene.refuse for scene in scenes} == {"", "cloud", "nodata"}
    assert {scene.encoding.offset for scene in scenes if scene.sensor_id == "sentinel-2-l2a"} == {0.0, -0.1}
    # An old date with new counts: the date alone does not tell.
    assert any(scene.baseline == "05.00" and scene.when.year == parameters.before_year for scene in scenes)
    other_zone = [s for s in scenes if s.grid.epsg % 100 != by_name[s.region].epsg % 100]
    assert {s.sensor_id for s in other_zone} == {"landsat-oli-c2-l2"}
    assert {by_name[s.region].south for s in other_zone} == {False, True}
    for region in regions:
        # Both ends of the region lie in the zone in which it is delivered.
        lons = [lon for lon, _ in region.lonlat_ring(region.block(10, margin_m=0))]
        assert {utm_zone(lon) for lon in lons} == {region.epsg % 100}


def test_scene_ids_are_unique_and_shifts_stay_within_their_bounds():
    parameters = SimulateParameters(**_demo())
    ids = []
    for asked in parameters.regions:
        region = Region.place(asked, footprint_m=parameters.footprint_m, margin_m=parameters.margin_m)
        for scene in plan_scenes(parameters, region):
            ids.append(scene.id)
            length = (scene.shift_m[0] ** 2 + scene.shift_m[1] ** 2) ** 0.5
            assert length <= 3.0 * BUILTIN_SENSORS[scene.sensor_id].gsd_m + 1e-3
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sed": 1}, "did you mean 'seed'"),
        ({"workers": -1}, "greater than or equal to 0"),
        ({"after_year": 2019}, "must be later than before_year"),
        ({"regions": []}, "at least 1"),
        ({"acquisitions": {"sentinel-3": []}}, "names no simulated sensor: sentinel-3"),
        ({"regions": [{"name": "a", "lon": 0, "lat": 0, "biome": "swamp"}]}, "unknown biome 'swamp'"),
        (
            {
                "regions": [
                    {"name": "a", "lon": 0, "lat": 0, "biome": "boreal", "footprints": 1, "gaofen1_footprints": 2}
                ]
            },
            "gaofen1_footprints is 2, at most 1 fit",
        ),
    ],
)
def test_mistaken_parameters_are_refused_by_name(change, message):
    with pytest.raises(ValidationError, match=message):
        SimulateParameters(**{**_demo(), **change})
