"""A tiny simulated world, its scene and location tables, and the store built of it, once per run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest

from a2mae.scenes import sensors_from_json
from a2mae.sensors import Sensor
from a2mae.simulate.run import write_tiny_world
from a2mae.stssd.coregister.build import build
from a2mae.stssd.coregister.tables import BuiltTables
from a2mae.stssd.ingest.ingest import ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters

RECIPES = {
    "grid": {"sources": [{"sensors": ["sentinel-2-*"]}, {"sensors": ["landsat-*"]}]},
    "gf1": {"sources": [{"sensors": ["gaofen-1"]}, {"sensors": ["sentinel-2-*"]}]},
}


@dataclass(frozen=True)
class World:
    folder: Path
    scenes: gpd.GeoDataFrame
    locations: gpd.GeoDataFrame
    sensors: dict[str, Sensor]

    @property
    def truth(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "truth" / "scenes.parquet").set_index("scene_id")


@dataclass(frozen=True)
class Built:
    url: str
    tables: BuiltTables
    parameters: CoregisterParameters


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    write_tiny_world(folder)
    parameters = IngestParameters(locations={"footprint_m": 1920.0, "min_scenes": 2})
    found = ingest(parameters, simulated_catalog=folder / "catalog.json")
    return World(folder, found.scenes, found.locations, sensors_from_json(found.sensors))


@pytest.fixture(scope="session")
def built(world: World, tmp_path_factory: pytest.TempPathFactory) -> Built:
    parameters = CoregisterParameters(recipes=RECIPES, workers=1)
    url = str(tmp_path_factory.mktemp("built") / "stssd.zarr")
    return Built(url, build(world.scenes, world.locations, world.sensors, parameters, url), parameters)
