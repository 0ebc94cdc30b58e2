"""The run specification: what is written is read back, and what cannot be meant is refused with its place."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training_runs import make_spec

from a2mae.training.spec import OptimizerSpec, RunSpec, SamplingSpec, read_spec, relative_url, resolve_url
from a2mae.training.strict_json import SpecificationError, from_json, to_json


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
        (("optimizer", "learnin_rate"), 1.0, "unknown key 'optimizer.learnin_rate': did you mean 'learning_rate'"),
        (("optimizer", "steps"), "12", "'optimizer.steps' must be int, found str"),
        (("optimizer", "steps"), True, "'optimizer.steps' must be int, found bool"),
        (("optimizer", "steps"), 0, "'optimizer.steps' must be >= 1, found 0"),
        (("optimizer", "betas"), [0.9], "'optimizer.betas' must have 2 entries, found 1"),
        (("optimizer", "learning_rate"), float("nan"), "'optimizer.learning_rate' must be a finite number"),
        (("optimizer", "warmup_steps"), 12, "must be fewer than"),
        (("sampling", "bands"), "rbg", "'sampling.bands' must be one of 'draw', 'rgb', 'all', found 'rbg'"),
        (("sampling",), 3, "'sampling' must be an object"),
        (("method",), "dino", "'method' must be one of"),
        (("data", "sensors"), [], "'data.sensors' is empty"),
        (("format_version",), 99, "'format_version' is 99"),
        (("model", "options"), {"depth": [1]}, "'model.options.depth' must be a string, number or flag"),
    ],
)
def test_what_cannot_be_meant_is_refused(spec: RunSpec, tmp_path: Path, place, value, message) -> None:
    content = to_json(spec)
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
    content = to_json(spec)
    del content["data"]["store_hash"]
    with pytest.raises(SpecificationError, match=r"'data\.store_hash' is missing"):
        from_json(RunSpec, content)


def test_a_folder_without_specification_and_a_torn_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="is no run directory"):
        read_spec(tmp_path)
    (tmp_path / "spec.json").write_text('{"method": ')
    with pytest.raises(SpecificationError, match="is not JSON"):
        read_spec(tmp_path)


def test_statistics_must_match_the_bands(spec: RunSpec) -> None:
    sensor = spec.data.sensors[0]
    with pytest.raises(SpecificationError, match="7 bands need as many means"):
        dataclasses.replace(sensor, mean=sensor.mean[1:])


def test_identity_is_what_decides_the_weights(spec: RunSpec) -> None:
    elsewhere = spec.with_hardware(devices=4, strategy="ddp", workers=3, threads=9)
    watched = dataclasses.replace(elsewhere, logging=dataclasses.replace(spec.logging, interval=1), code_commit="abc")
    moved = dataclasses.replace(watched, data=dataclasses.replace(spec.data, store="s3://bucket/stssd.zarr"))
    assert moved.identity == spec.identity
    for change in (
        {"seed": 8},
        {"data": dataclasses.replace(spec.data, store_hash="0")},
        {"optimizer": dataclasses.replace(spec.optimizer, steps=13)},
        {"numerics": dataclasses.replace(spec.numerics, precision="bf16-mixed")},
    ):
        assert dataclasses.replace(spec, **change).identity != spec.identity


def test_store_addresses_survive_a_move_and_urls_stay(tmp_path: Path) -> None:
    run, store = tmp_path / "a" / "run", tmp_path / "b" / "stssd.zarr"
    written = relative_url(run, str(store))
    assert written == "../../b/stssd.zarr"
    assert resolve_url(run, written) == str(store)
    assert resolve_url(run, relative_url(run, "s3://bucket/x")) == "s3://bucket/x"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sampling=st.builds(
        SamplingSpec,
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
def test_any_specification_survives_json(spec: RunSpec, sampling: SamplingSpec, optimizer: OptimizerSpec) -> None:
    changed = dataclasses.replace(spec, sampling=sampling, optimizer=optimizer)
    assert from_json(RunSpec, json.loads(json.dumps(to_json(changed)))) == changed
