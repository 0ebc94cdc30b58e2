"""The stage in its Kedro shell: catalog, environments, parameters checked before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, DatasetError
from kedro.runner import SequentialRunner
from kedro.validation import ParameterValidationError, ParameterValidator

from a2mae.errors import UnfinishedError
from a2mae.pipelines.datasets import PathDataset, TableDataset
from a2mae.pipelines.hooks import Unfinished
from a2mae.pipelines.ingest import create_pipeline
from a2mae.scenes import scenes_from_table, sensors_from_json
from a2mae.settings import CONFIG_LOADER_ARGS
from a2mae.simulate.run import write_tiny_world
from helpers.rasters import write_tif

CONF = Path(__file__).parents[2] / "conf"
OUTPUTS = {"scenes", "locations", "refused_scenes", "sensors", "stac_items"}


def run(data_root, *, env="base", **ingest):
    """Run the stage with an environment's configuration, its data under `data_root`."""
    loader = OmegaConfigLoader(str(CONF), env=env, runtime_params={"ingest": ingest}, **CONFIG_LOADER_ARGS)
    loader["globals"] = {"data_root": str(data_root)}
    parameters = {"ingest": loader["parameters"]["ingest"]}
    checked = ParameterValidator({"ingest": create_pipeline()}).validate_raw_params(parameters)
    used = {"simulation", "simulation_folder", *OUTPUTS}
    config = {name: entry for name, entry in loader["catalog"].items() if name in used}
    catalog = DataCatalog.from_config(config)
    catalog["params:ingest"] = checked["ingest"]
    hooks = _create_hook_manager()
    hooks.register(Unfinished())
    SequentialRunner().run(create_pipeline(), catalog, hooks)
    return Path(data_root) / "02_intermediate"


def test_the_simulated_earth_by_default(tmp_path):
    manifest = write_tiny_world(tmp_path / "01_raw" / "simulated")
    out = run(tmp_path)
    scenes = gpd.read_parquet(out / "scenes.parquet")
    assert set(scenes["scene_id"]) == {s.scene_id for s in manifest.scenes}
    assert len(scenes_from_table(scenes)) == len(manifest.scenes)
    assert len(gpd.read_parquet(out / "locations.parquet")) >= 4
    assert len(pd.read_parquet(out / "refused_scenes.parquet")) == 0


def test_a_folder_without_a_simulation(tmp_path):
    for date in ("20120731", "20140720"):
        write_tif(
            tmp_path / "in" / "naip_nd" / f"m_1_se_14_1_{date}.tif", bands=4, gsd=5.0, size=(400, 400), dtype="uint8"
        )
    (tmp_path / "in" / "other.tif").write_bytes(b"no raster")
    out = run(tmp_path / "data", env="real_samples", folder=str(tmp_path / "in"))
    scenes = gpd.read_parquet(out / "scenes.parquet")
    assert list(scenes["status"]) == ["accepted", "accepted", "refused"]
    refused = pd.read_parquet(out / "refused_scenes.parquet")
    assert list(refused["reason"]) == ["no_rule"] and list(refused["stage"]) == ["ingest"]
    assert list(sensors_from_json(json.loads((out / "sensors.json").read_text()))) == ["naip-5m"]


@pytest.mark.parametrize("good", [0, 1])
def test_what_was_rejected_is_written_and_counted_where_nothing_is_left(tmp_path, good):
    for k in range(3):
        path = tmp_path / "in" / "naip_nd" / f"m_1_se_14_1_2012073{k}.tif"
        write_tif(path, bands=4, gsd=5.0, size=(400, 400), dtype="uint8", crs="EPSG:32633" if k < good else None)
    left = r"With what is left, no location: .*the best has 1 scene\)" if good else r"no usable scene among \d rejected"
    with pytest.raises(UnfinishedError, match=rf"no_crs {3 - good}.*{left}" if good else left):
        run(tmp_path / "data", env="real_samples", folder=str(tmp_path / "in"), locations={"min_scenes": 2})
    refused = pd.read_parquet(tmp_path / "data" / "02_intermediate" / "refused_scenes.parquet")
    assert list(refused["reason"]) == ["no_crs"] * (3 - good)


def test_mistyped_parameters_fail_before_anything_runs(tmp_path):
    with pytest.raises(ParameterValidationError, match="unknown parameter 'foldr': did you mean 'folder'"):
        run(tmp_path, env="real_samples", foldr="x")
    with pytest.raises(ParameterValidationError, match="footprint_m"):
        run(tmp_path, locations={"footprint_m": -5})
    assert not (tmp_path / "02_intermediate").exists()


def test_path_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = PathDataset(filepath=str(tmp_path / "data" / "x"))
    assert dataset.load() == Path("data/x") and not dataset.exists()
    assert PathDataset(filepath="/elsewhere/x").load() == Path("/elsewhere/x")
    for written in ("anything", tmp_path / "data" / "x"):
        with pytest.raises(DatasetError, match="not written"):
            dataset.save(written)
    (tmp_path / "data" / "x").mkdir(parents=True)
    dataset.save(Path("data/x"))
    assert dataset.exists()


def test_tables_are_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "t.parquet"
    dataset = TableDataset(filepath=str(path))
    assert not dataset.exists()
    plain = pd.DataFrame({"a": [1, 2], "assets": ["[]", "[]"]})
    dataset.save(plain)
    pd.testing.assert_frame_equal(dataset.load(), plain)
    assert type(dataset.load()) is pd.DataFrame
    geo = gpd.GeoDataFrame(plain, geometry=gpd.points_from_xy([1, 2], [3, 4]), crs=4326)
    dataset.save(geo)
    assert isinstance(dataset.load(), gpd.GeoDataFrame) and dataset.load().crs == 4326
    assert dataset.preview(1)["columns"] == ["a"] and dataset.preview(1)["data"] == [["1"]]
    before = path.read_bytes()
    with pytest.raises(DatasetError):
        dataset.save(pd.DataFrame({"a": [object()]}))
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["t.parquet"]
