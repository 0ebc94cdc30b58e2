"""The `pretrain` stage through Kedro: from the tables and the store to a model directory."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from pydantic import ValidationError

from a2mae.errors import InputError
from a2mae.models import precision
from a2mae.pipelines.datasets import ModelDirectory, RunDirectory
from a2mae.pipelines.pretrain import (
    NothingToTrainOnError,
    _check_places,
    _held_out,
    _loss_on_fixed_sets,
    _warn_of_untrained,
    build_run_index,
    build_spec,
    create_pipeline,
    needed_bands,
)
from a2mae.sensors import get_sensor
from a2mae.training.data.index import HELD_OUT, TRAIN
from a2mae.training.launch import TrainingFailedError
from a2mae.training.parameters import OptimizerParameters, PretrainParameters
from a2mae.training.spec import RunSpec, resolve_optimizer

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("training_runs", ROOT / "tests" / "training" / "training_runs.py")
runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runs)
NAMES = {name: get_sensor(name).band_names for name in runs.SENSORS}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return runs.write_store(tmp_path_factory.mktemp("store") / "stssd.zarr")


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The image and set tables that belong to the small store."""
    index = runs.make_index()
    position = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    images = pd.DataFrame(
        {
            "set_id": [index.name(int(p)) for p in position],
            "sensor": [runs.SENSORS[code] for code in index.sensor],
            "row": index.row,
            "datetime": pd.to_datetime(index.day.astype("float64"), unit="D", utc=True),
            "gsd_m": index.gsd_m,
            "lon": index.lonlat_deg[:, 0],
            "lat": index.lonlat_deg[:, 1],
            "geosot": list(index.geosot),
            "is_anchor": index.is_anchor,
        }
    )
    sets = pd.DataFrame(
        {
            "set_id": [index.name(p) for p in range(8)],
            "location_id": [f"place-{p}" for p in range(8)],
            "kept": [True] * 5 + [False] + [True] * 2,
            "split": ["train"] * 6 + ["val", "test"],
        }
    )
    return images.sample(frac=1, random_state=0), sets


def statistics(store) -> dict:
    return {name: {band: {"mean": 0.2, "std": 0.1} for band in store.sensor(name).band_names} for name in store.sensors}


def parameters(**changes) -> dict:
    group = yaml.safe_load((ROOT / "conf" / "base" / "parameters_pretrain.yml").read_text())["pretrain"]
    group["model"]["options"] |= {"embed_dim": 64, "depth": 1, "decoder_dim": 32, "decoder_num_heads": 2}
    group["sampling"]["image_size"] = 32
    group["optimizer"] |= {"steps": 4, "batch_size": 2, "base_learning_rate": 0.1}
    group["logging"] |= {"interval": 2, "wandb_project": None}
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if name:
            group[part][name] = value
        else:
            group[part] = value
    return group


def test_the_default_parameters_are_valid_for_every_method() -> None:
    group = yaml.safe_load((ROOT / "conf" / "base" / "parameters_pretrain.yml").read_text())["pretrain"]
    from a2mae.models import create_model

    for method in ("a2mae", "scale_mae", "mae", "satmae"):
        valid = PretrainParameters(**{**group, "method": method})
        model = create_model(valid.model_name, **valid.model_options)
        paper = PretrainParameters(**{**group, "method": method, "recipe": "paper"})
        sizes = {**valid.model.options, **valid.model.method_options.get(method, {})}
        published = create_model(valid.model_name, **sizes)
        assert create_model(published.name, **paper.model_options).config == published.config != model.config
        explicit = PretrainParameters(
            **{**group, "method": method, "model": {**group["model"], "options": {"attention_init": "xavier"}}}
        )
        assert explicit.model_options["attention_init"] == "xavier", "what is written wins over the recipe"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metod": "mae"}, "unknown parameter 'metod': did you mean 'method'"),
        ({"sampling__image_sise": 32}, "unknown parameter 'image_sise': did you mean 'image_size'"),
        ({"sampling__images": 7}, r"sampling.images\s+Input should be less than or equal to 6"),
        ({"sampling__image_size": 30}, r"must be a multiple of model.patch_size \(8\), for example 32"),
        ({"optimizer__epochs": 3}, "give either 'steps' or 'epochs'"),
        ({"optimizer__batch_size": 0}, "greater than or equal to 1"),
        ({"method": "dino"}, "'a2mae', 'scale_mae', 'mae' or 'satmae'"),
        ({"hardware__devices": -1}, r"hardware.devices\s+Input should be greater than or equal to 0"),
        ({"hardware__workers": "2"}, r"hardware.workers\s+Input should be a valid integer"),
        ({"model__options": {"depth": [1]}}, "must be a string, a number, a flag, or groups of band numbers"),
    ],
)
def test_a_mistyped_or_impossible_parameter_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PretrainParameters(**parameters(**changes))


def test_recipes_fill_what_is_null() -> None:
    given = OptimizerParameters(epochs=10, batch_size=64)
    resolved = resolve_optimizer(given, "a2mae", sets=640)
    assert resolved.steps == 100 and resolved.warmup_steps == 40
    assert resolved.learning_rate == pytest.approx(1e-5 * 64 / 256)
    assert resolve_optimizer(given, "mae", sets=640).learning_rate == pytest.approx(1.5e-4 / 4)


def test_the_index_holds_kept_train_sets_and_val_and_nothing_of_test() -> None:
    sensors, index = build_run_index(*tables(), NAMES)
    assert sensors == list(runs.SENSORS)
    assert [index.name(int(p)) for p in index.sets_of(TRAIN)] == [f"set-{p}" for p in range(5)]
    assert [index.name(int(p)) for p in index.sets_of(HELD_OUT)] == ["set-6"]
    expected = runs.make_index()
    np.testing.assert_array_equal(index.row[:20], expected.row[:20])
    np.testing.assert_array_equal(index.geosot[:20], expected.geosot[:20])
    np.testing.assert_allclose(index.day[:20], expected.day[:20])


def lacking(images: pd.DataFrame, row: int, bands: tuple[str, ...] | None) -> pd.DataFrame:
    """The image table where one Sentinel-2 row has these bands only."""
    one = (images["sensor"] == "sentinel-2-l2a") & (images["row"] == row)
    return images.assign(bands=[list(bands) if hit and bands is not None else None for hit in one])


def test_the_bands_of_the_image_table_reach_the_index(tmp_path: Path) -> None:
    images, sets = tables()
    _, index = build_run_index(lacking(images, 0, ("B02", "B03", "B04", "B08")), sets, NAMES)
    assert index.bands is not None and index.bands.shape == (24, 12)
    (poor,) = np.flatnonzero(~index.bands.all(axis=1))
    assert index.row[poor] == 0 and index.sensor[poor] == 1
    assert [n for n, has in zip(NAMES["sentinel-2-l2a"], index.bands[poor], strict=True) if has] == [
        "B02", "B03", "B04", "B08",
    ]  # fmt: skip
    # Where nothing is missing, the file is the same to the byte as without the column.
    plain = build_run_index(images, sets, NAMES)[1].write(tmp_path / "a.npz")
    for bands in (None, NAMES["sentinel-2-l2a"]):
        assert build_run_index(lacking(images, 0, bands), sets, NAMES)[1].write(tmp_path / "b.npz") == plain


def test_images_without_the_needed_bands_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    images, sets = tables()
    poor = lacking(images, 0, ("B02", "B08"))
    needed = {"sentinel-2-l2a": ("B04", "B03", "B02")}
    _, index = build_run_index(poor, sets, NAMES, needed=needed)
    assert len(index.row) == 23 and index.bands is None  # what is left has all
    assert "1 of 24 images are left out" in caplog.text
    _, index = build_run_index(lacking(images, 0, ()), sets, NAMES)
    assert len(index.row) == 23
    with pytest.raises(ValueError, match=r"bands of sentinel-2-l2a that the store does not have \(B99\)"):
        build_run_index(lacking(images, 0, ("B02", "B99")), sets, NAMES)
    none = images.assign(bands=[["B02"] if s == "sentinel-2-l2a" else ["SR_B2"] for s in images["sensor"]])
    with pytest.raises(NothingToTrainOnError, match="no image of the split 'train' has the bands"):
        build_run_index(none, sets, NAMES, needed={**needed, "landsat-oli-c2-l2": ("SR_B4", "SR_B3", "SR_B2")})


def test_rgb_needs_red_green_and_blue(store) -> None:
    assert needed_bands(store, PretrainParameters(**parameters())) == {}
    found = needed_bands(store, PretrainParameters(**parameters(sampling__bands="rgb")))
    assert found == {"landsat-oli-c2-l2": ("SR_B4", "SR_B3", "SR_B2"), "sentinel-2-l2a": ("B04", "B03", "B02")}


def test_no_set_to_train_on_says_where_to_look() -> None:
    images, sets = tables()
    with pytest.raises(NothingToTrainOnError, match="look at keep_reason"):
        build_run_index(images, sets.assign(kept=False), NAMES)


def run(store, tmp_path: Path, monkeypatch, group: dict, *, sets: pd.DataFrame | None = None) -> Path:
    images, default = tables()
    sets = default if sets is None else sets
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    catalog = DataCatalog(
        {
            "images": MemoryDataset(images),
            "pruned_sets": MemoryDataset(sets),
            "band_statistics": MemoryDataset(statistics(store)),
            "image_sets": MemoryDataset(store, copy_mode="assign"),
            "pretrain_run": RunDirectory(filepath=str(tmp_path / "pretrain_run")),
            "pretrained_model": ModelDirectory(filepath=str(tmp_path / "pretrain")),
            "params:pretrain": MemoryDataset(PretrainParameters(**group)),
        }
    )
    outputs = SequentialRunner().run(create_pipeline(), catalog)
    metrics, curves = outputs["pretrain_metrics"].load(), outputs["pretrain_curves"].load()
    assert metrics["step"] == 4 and curves["step"].tolist() == [2, 4]
    return tmp_path / "pretrain"


@pytest.mark.parametrize("method", ["a2mae", "satmae"])
def test_a_model_that_is_told_places_and_dates_is_given_them(store, tmp_path: Path, monkeypatch, method) -> None:
    images, _ = tables()
    images.loc[images.index[:2], "datetime"] = pd.NaT
    images.loc[images.index[2], "lon"] = np.nan
    told = rf"pretrain.method: {method} tells the model .*, and 3 of {len(images)} images do not say it: set it to mae"
    with pytest.raises(InputError, match=told):
        _check_places(images, PretrainParameters(**parameters(method=method)))
    _check_places(images, PretrainParameters(**parameters(method="mae")))
    _check_places(tables()[0], PretrainParameters(**parameters(method=method)))


def test_what_pictures_do_not_say_is_a_number_in_the_index() -> None:
    images, sets = tables()
    images["geosot"] = images["geosot"].astype(object)
    for column, absent in (("datetime", pd.NaT), ("lon", np.nan), ("lat", np.nan), ("geosot", None)):
        images.loc[images.index[0], column] = absent
    _, index = build_run_index(images, sets, NAMES)
    assert np.isfinite(index.day).all() and np.isfinite(index.lonlat_deg).all()
    usual = build_run_index(*tables(), NAMES)[1]
    assert (index.lonlat_deg != usual.lonlat_deg).any(axis=1).sum() <= 1, "the others keep theirs"


def test_the_stage_trains_in_a_process_of_its_own(store, tmp_path: Path, monkeypatch) -> None:
    before = set(sys.modules)
    model = run(store, tmp_path, monkeypatch, parameters())
    assert "lightning" not in set(sys.modules) - before
    assert sorted(p.name for p in model.iterdir()) == ["config.json", "metrics.json", "model.safetensors", "run"]
    from a2mae.models import load_encoder

    assert load_encoder(model).num_features == 64


def test_the_stage_starts_from_weights_and_refuses_what_does_not_fit_before_it_trains(
    store, tmp_path: Path, monkeypatch
) -> None:
    from a2mae.models import CheckpointError, create_model, save_pretrained

    options = {"embed_dim": 64, "num_heads": 1, "decoder_dim": 32, "decoder_num_heads": 2}
    for depth in (1, 3):
        model = create_model("a2mae_vit_tiny_patch16", **options, depth=depth, decoder_depth=1, encoding="own")
        save_pretrained(model, tmp_path / f"depth-{depth}")
    with pytest.raises(CheckpointError, match="depth 3 in the file, 1 in the model"):
        run(store, tmp_path, monkeypatch, parameters(start={"weights": str(tmp_path / "depth-3")}))
    assert not (tmp_path / "pretrain_run" / "spec.json").exists() and not (tmp_path / "pretrain").exists()
    group = parameters(start={"weights": str(tmp_path / "depth-1"), "licence": "CC-BY-4.0"})
    started = run(store, tmp_path, monkeypatch, group)
    start = json.loads((started / "config.json").read_text())["start"]
    assert start["weights"] == "depth-1" and start["licence"] == "CC-BY-4.0"
    assert dict(PretrainParameters(**group).named_paths()) == {"start.weights": str(tmp_path / "depth-1")}


@pytest.mark.parametrize("begun", ["32-true", "bf16-mixed"])
def test_a_run_keeps_the_precision_that_it_was_begun_in(store, tmp_path: Path, monkeypatch, begun: str) -> None:
    """`auto` is decided when a run begins: another machine, or a busy one, changes nothing of one that goes on."""
    images, sets = tables()
    sensors, index = build_run_index(images, sets, NAMES)

    def spec(**changes: object) -> RunSpec:
        return build_spec(
            sensors, index,
            band_statistics=statistics(store), store=store, run_dir=tmp_path,
            parameters=PretrainParameters(**parameters(**changes)),
        )  # fmt: skip

    assert PretrainParameters(**parameters()).numerics.precision == "auto"
    monkeypatch.setattr(precision, "_decided", lambda device_type: begun)
    first = spec()
    assert first.numerics.precision == begun
    first.write(tmp_path)
    other = "bf16-mixed" if begun == "32-true" else "32-true"
    monkeypatch.setattr(precision, "_decided", lambda device_type: other)
    assert spec().identity == first.identity, "the same run"
    assert spec(seed=7).numerics.precision == other, "another run begins"
    stated = spec(numerics={"precision": other})
    assert stated.numerics.precision == other and stated.identity != first.identity, "what is stated is done"


def test_a_sensor_without_a_training_set_is_named_once(caplog) -> None:
    images, sets = tables()
    landsat, sentinel = runs.SENSORS
    _warn_of_untrained(images, sets, *build_run_index(images, sets, NAMES))
    assert caplog.text == ""
    held = sets.loc[sets["split"] == "train", "set_id"]
    alone = images[~(images["set_id"].isin(held) & (images["sensor"] == landsat))]
    _warn_of_untrained(alone, sets, *build_run_index(alone, sets, NAMES))
    (record,) = caplog.records
    assert record.levelname == "WARNING" and f"never trained on: {landsat} (" in record.message
    assert sentinel not in record.message and "tag.split" in record.message


def test_the_log_calls_a_loss_held_out_only_where_places_are(store, tmp_path: Path, monkeypatch, caplog) -> None:
    index = build_run_index(*tables(), NAMES)[1]
    assert _held_out(index) == "1 held out"
    assert _loss_on_fixed_sets({"held_out_loss": 0.5}) == "held-out loss 0.5000"
    _, sets = tables()
    nothing = sets.assign(split=sets["split"].replace("val", "train"))
    caplog.set_level("INFO")
    run(store, tmp_path, monkeypatch, parameters(), sets=nothing)
    assert "none held out (no places in the split 'val')" in caplog.text
    assert "on fixed training sets (no places are held out)" in caplog.text and "held-out loss" not in caplog.text


def test_an_error_of_the_training_comes_back(store, tmp_path: Path, monkeypatch) -> None:
    group = parameters(optimizer__base_learning_rate=1e38, optimizer__clip_norm=None, optimizer__steps=20)
    with pytest.raises(TrainingFailedError, match="NonFiniteLossError: the loss of step"):
        run(store, tmp_path, monkeypatch, group)
    assert not (tmp_path / "pretrain").exists()
