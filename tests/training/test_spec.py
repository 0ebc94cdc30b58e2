"""The run specification: what is written is read back, and what cannot be meant is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from training_runs import make_spec

from a2mae.files import write_json
from a2mae.training.parameters import SamplingParameters
from a2mae.training.spec import (
    OptimizerSpec,
    RunSpec,
    SpecificationError,
    StartSpec,
    read_spec,
    relative_url,
    resolve_url,
)


@pytest.fixture
def spec(tmp_path: Path, store) -> RunSpec:
    return make_spec(tmp_path / "run", store)


def test_what_is_written_is_read_back(spec: RunSpec, tmp_path: Path) -> None:
    assert read_spec(tmp_path / "run") == spec


def test_two_writes_give_the_same_bytes_without_absolute_paths(spec: RunSpec, tmp_path: Path) -> None:
    text = (tmp_path / "run" / "spec.json").read_text()
    spec.write(tmp_path / "run")
    assert (tmp_path / "run" / "spec.json").read_text() == text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("optimizer", "stepz"), 12, "'optimizer': unknown parameter 'stepz': did you mean 'steps'"),
        (("optimizer", "steps"), "12", "'optimizer.steps': Input should be a valid integer, found str '12'"),
        (("optimizer", "steps"), True, "'optimizer.steps': Input should be a valid integer, found bool True"),
        (("optimizer", "steps"), 0, "'optimizer.steps': Input should be greater than or equal to 1, found int 0"),
        (("optimizer", "betas"), [0.9], "'optimizer.betas.1' is missing"),
        (("optimizer", "learning_rate"), float("nan"), "'optimizer.learning_rate': Input should be a finite number"),
        (("optimizer", "warmup_steps"), 12, "'warmup_steps' (12) must be fewer than 'steps' (12)"),
        (("sampling", "bands"), "rbg", "'sampling.bands': Input should be 'draw', 'rgb' or 'all', found str 'rbg'"),
        (("sampling",), 3, "'sampling': Input should be a valid dictionary"),
        (("method",), "dino", "'method': Input should be 'a2mae'"),
        (("data", "sensors"), [], "'data.sensors': Tuple should have at least 1 item"),
        (("data", "sensors"), {}, "'data.sensors': Input should be a valid tuple"),
        (("format_version",), 99, "'format_version' is 99"),
        (("model", "options"), {"depth": [1]}, "'model.options.depth': must be a string, a number, a flag, or groups"),
        (("model", "options"), {"groups": [[0, "1"]]}, "'model.options.groups': must be a string, a number, a flag"),
    ],
)
def test_what_cannot_be_meant_is_refused(spec: RunSpec, tmp_path: Path, place, value, message) -> None:
    content = spec.model_dump(mode="json")
    target = content
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    path = tmp_path / "run" / "spec.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SpecificationError, match=r"spec\.json") as error:
        read_spec(tmp_path / "run")
    assert message in str(error.value)


def test_a_missing_key_is_named(spec: RunSpec, tmp_path: Path) -> None:
    content = spec.model_dump(mode="json")
    del content["data"]["store_hash"]
    (tmp_path / "run" / "spec.json").write_text(json.dumps(content))
    with pytest.raises(SpecificationError, match=r"'data\.store_hash' is missing"):
        read_spec(tmp_path / "run")


def test_a_folder_without_specification_and_a_torn_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="is no run directory"):
        read_spec(tmp_path)
    (tmp_path / "spec.json").write_text('{"method": ')
    with pytest.raises(SpecificationError, match="is not JSON"):
        read_spec(tmp_path)


def test_statistics_must_match_the_bands(spec: RunSpec) -> None:
    sensor = spec.data.sensors[0]
    with pytest.raises(ValidationError, match="7 bands need as many means"):
        sensor.replace(mean=sensor.mean[1:])


WRITTEN_BEFORE = {
    "code_commit": "unknown",
    "data": {
        "index": "index.npz",
        "index_hash": "cd" * 32,
        "sensors": [{"bands": ["B02", "B08"], "id": "sentinel-2-l2a", "mean": [0.1, 0.25], "std": [0.05, 0.1]}],
        "store": "../../03_primary/stssd.zarr",
        "store_hash": "ab" * 32,
    },
    "format_version": 1,
    "hardware": {
        "accelerator": "auto", "devices": 1, "nodes": 1, "strategy": "auto", "threads": 0, "timeout_s": 50, "workers": 0
    },
    "logging": {
        "checkpoint_interval": 200, "interval": 10, "keep_checkpoints": 2, "monitor_interval": 0, "reconstructions": 6,
        "wandb_project": None,
    },
    "method": "a2mae",
    "model": {
        "name": "a2mae_vit_tiny_patch8",
        "options": {"depth": 2, "encoding": "own", "gsd_reference_m": 10.0, "normalize_targets": False},
    },
    "numerics": {
        "activation_checkpointing": False, "compile": False, "micro_batch_size": None, "precision": "32-true"
    },
    "optimizer": {
        "batch_size": 16, "betas": [0.9, 0.95], "clip_norm": 1.0, "ema_decay": None, "learning_rate": 0.001,
        "learning_rate_end": 0.0, "steps": 20, "warmup_steps": 2, "weight_decay": 0.05,
    },
    "sampling": {
        "anchor": "random", "bands": "draw", "bands_drawn": 3, "crop_fraction_min": 0.25, "fallback": "anchor",
        "flips": False, "image_size": 64, "images": 3, "whole_probability": 0.5,
    },
    "seed": 3,
}  # fmt: skip


def test_a_run_that_was_begun_by_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Format 1 is read, written and identified as it was: the identity decides whether a run may be continued."""
    write_json(tmp_path / "spec.json", WRITTEN_BEFORE)
    before, spec = (tmp_path / "spec.json").read_bytes(), read_spec(tmp_path)
    spec.write(tmp_path)
    assert (tmp_path / "spec.json").read_bytes() == before
    assert spec.identity == "1a56d0fd737befa992c279d242c3eb4e32742facf454d9feae565c9fa6ee8d1e"


def test_the_identity_covers_the_content_to_start_from_not_its_place(spec: RunSpec, tmp_path: Path) -> None:
    start = StartSpec(weights="../mae.pth", sha256="ab" * 32)
    started = spec.replace(start=start)
    started.write(tmp_path)
    assert read_spec(tmp_path) == started and started.identity != spec.identity
    moved = spec.replace(start=start.replace(weights="../elsewhere.pth", licence="CC-BY-NC-4.0"))
    assert moved.identity == started.identity
    for change in ({"sha256": "cd" * 32}, {"decoder": "same"}):
        assert spec.replace(start=start.replace(**change)).identity != started.identity


def test_other_hardware_is_checked_too(spec: RunSpec) -> None:
    with pytest.raises(SpecificationError, match="hardware: 'devices': Input should be greater than or equal to 0"):
        spec.with_hardware(devices=-1)


def test_identity_is_what_decides_the_weights(spec: RunSpec) -> None:
    elsewhere = spec.with_hardware(devices=4, strategy="ddp", workers=3, threads=9)
    watched = elsewhere.replace(logging=spec.logging.replace(interval=1), code_commit="abc")
    moved = watched.replace(data=spec.data.replace(store="s3://bucket/stssd.zarr"))
    assert moved.identity == spec.identity
    for change in (
        {"seed": 8},
        {"data": spec.data.replace(store_hash="0")},
        {"optimizer": spec.optimizer.replace(steps=13)},
        {"numerics": spec.numerics.replace(precision="bf16-mixed")},
    ):
        assert spec.replace(**change).identity != spec.identity


def test_store_addresses_survive_a_move_and_urls_stay(tmp_path: Path) -> None:
    run, store = tmp_path / "a" / "run", tmp_path / "b" / "stssd.zarr"
    written = relative_url(run, str(store))
    assert written == "../../b/stssd.zarr"
    assert resolve_url(run, written) == str(store)
    assert resolve_url(run, relative_url(run, "s3://bucket/x")) == "s3://bucket/x"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sampling=st.builds(
        SamplingParameters,
        images=st.integers(1, 6),
        image_size=st.integers(8, 4096),
        bands=st.sampled_from(["draw", "rgb", "all"]),
        whole_probability=st.floats(0, 1),
        flips=st.booleans(),
    ),
    optimizer=st.builds(
        OptimizerSpec,
        learning_rate=st.floats(1e-9, 1),
        steps=st.integers(2, 10**9),
        clip_norm=st.none() | st.floats(0.1, 10),
    ),
)
def test_any_specification_survives_json(spec: RunSpec, sampling: SamplingParameters, optimizer: OptimizerSpec) -> None:
    changed = spec.replace(sampling=sampling, optimizer=optimizer)
    assert RunSpec.model_validate(json.loads(json.dumps(changed.model_dump(mode="json")))) == changed
