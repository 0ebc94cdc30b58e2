"""Coregister, tag and prune in their Kedro shell: catalog, both environments' parameters, a second run."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pandas as pd
import pytest
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner
from kedro.validation import ParameterValidationError, ParameterValidator

from a2mae.pipelines.coregister import create_pipeline as coregister
from a2mae.pipelines.datasets import ImageSetStoreDataset, StoreUrlDataset
from a2mae.pipelines.ingest import create_pipeline as ingest
from a2mae.pipelines.prune import create_pipeline as prune
from a2mae.pipelines.tag import create_pipeline as tag
from a2mae.settings import CONFIG_LOADER_ARGS
from a2mae.simulate.run import write_tiny_world
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store.store import COMPARED, ImageSetStore

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
STAGES: Pipeline = coregister() + tag() + prune()
GROUPS = ("ingest", "coregister", "tag", "prune")


def run(data_root: Path, pipeline: Pipeline, *, env: str = "base", **runtime: dict[str, object]) -> Path:
    """Run stages with an environment's configuration, data under `data_root`."""
    loader = OmegaConfigLoader(str(ROOT / "conf"), env=env, runtime_params=runtime, **CONFIG_LOADER_ARGS)
    loader["globals"] = {"data_root": str(data_root)}
    parameters = {name: loader["parameters"][name] for name in GROUPS}
    checked = ParameterValidator({"all": ingest() + STAGES}).validate_raw_params(parameters)
    used = pipeline.datasets()
    catalog = DataCatalog.from_config({name: entry for name, entry in loader["catalog"].items() if name in used})
    for name in GROUPS:
        if f"params:{name}" in used:
            catalog[f"params:{name}"] = checked[name]
    SequentialRunner().run(pipeline, catalog)
    return Path(data_root)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chain")
    write_tiny_world(root / "01_raw" / "simulated")
    return run(root, ingest() + STAGES, coregister={"workers": 1})


def test_the_chain_writes_what_the_catalog_promises(chain: Path) -> None:
    names = {str(p.relative_to(chain)) for p in chain.rglob("*") if p.is_file()}
    expected = {
        "03_primary/registered_images.parquet",
        "03_primary/rejected_images.parquet",
        "04_feature/images.parquet",
        "04_feature/sets.parquet",
        "04_feature/image_features.parquet",
        "04_feature/band_statistics.json",
        "04_feature/four_properties.json",
        "04_feature/pruned_sets.parquet",
        "04_feature/prune_report.json",
        "03_primary/stssd.zarr/manifest.json",
    }
    assert expected <= names
    store = ImageSetStore.open(chain / "03_primary" / "stssd.zarr")
    images = pd.read_parquet(chain / "04_feature" / "images.parquet")
    assert set(images["sensor"]) == set(store.sensors)


def test_a_second_run_changes_no_byte(chain: Path) -> None:
    def written() -> dict[str, str]:
        found = {**digests(chain / "03_primary"), **digests(chain / "04_feature")}
        # Which shards were compared is kept once they are two seconds old: after the first run or the second.
        return {name: digest for name, digest in found.items() if Path(name).name != COMPARED}

    before = written()
    run(chain, STAGES, coregister={"workers": 1})
    assert written() == before


def test_mistyped_and_impossible_parameters_are_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterValidationError, match="max_cloud_fraction"):
        run(tmp_path, STAGES, coregister={"quality": {"max_clouds_fraction": 0.2}})
    with pytest.raises(ParameterValidationError, match="add up to"):
        run(tmp_path, STAGES, tag={"split": {"train": 0.9}})
    with pytest.raises(ParameterValidationError, match="keep_fraction"):
        run(tmp_path, STAGES, prune={"keep_fraction": 0})


def test_every_environment_says_something_valid() -> None:
    for env in ("base", "real_samples"):
        loader = OmegaConfigLoader(str(ROOT / "conf"), env=env, **CONFIG_LOADER_ARGS)
        recipes = CoregisterParameters(**loader["parameters"]["coregister"]).recipes
        assert any(recipes.values())


def test_the_store_dataset_holds_the_builder_to_its_word(chain: Path, tmp_path: Path) -> None:
    path = str(chain / "03_primary" / "stssd.zarr")
    dataset = ImageSetStoreDataset(filepath=path)
    store = dataset.load()
    dataset.save(store.manifest_hash)
    assert dataset.exists() and not ImageSetStoreDataset(filepath=str(tmp_path / "no.zarr")).exists()
    with pytest.raises(DatasetError, match="did another run write it"):
        dataset.save("0" * 64)
    assert base64.b64decode(dataset.preview()).startswith(b"\x89PNG")
    url = StoreUrlDataset(filepath=path)
    assert url.load() == path and url.exists()
    with pytest.raises(DatasetError):
        url.save("x")


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_real_scenes_become_sets(tmp_path: Path) -> None:
    root = run(tmp_path, ingest() + STAGES, env="real_samples", ingest={"folder": str(DATA)})
    images = pd.read_parquet(root / "04_feature" / "images.parquet")
    sets = pd.read_parquet(root / "04_feature" / "sets.parquet")
    rejected = pd.read_parquet(root / "03_primary" / "rejected_images.parquet")
    pairs = sets[sets["sensors"].map(lambda s: list(s) == ["landsat-9-toa-15m", "sentinel-2-toa-rgbn"])]
    assert len(pairs) and (pairs["kind"] == "any").all()
    landsat = images[images["set_id"].isin(pairs["set_id"]) & (images["registration"] == "registered")]
    assert len(landsat) and landsat["residual_px"].median() < 0.3
    naip = sets[sets["location_id"].isin(images.loc[images["sensor"] == "naip-5m", "location_id"])]
    assert naip["image_count"].max() == 6
    assert images.loc[images["sensor"] == "naip-5m", "datetime"].nunique() == 10
    assert (images["sensor"] == "sentinel-2-l2a").any()  # Boadella's two dates
    demmin = rejected[rejected["scene_id"].str.contains("landsat8_fields")]
    assert set(demmin["reason"]) == {"cloud"} and demmin["detail"].str.contains("brightness").all()
