"""A run that starts from weights: it has them, says so, resumes to the bit, and notices when they change."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_loop import StopAfter, weights
from training_runs import make_spec, write_store

from a2mae.models import CheckpointError, create_model, from_pretrained, save_pretrained
from a2mae.models.sources import weights_digest
from a2mae.sensors import get_sensor
from a2mae.training.launch import StopRequest
from a2mae.training.loop import train
from a2mae.training.monitor import HELD_OUT_LOSS, METRICS_FILE
from a2mae.training.parameters import StartParameters
from a2mae.training.spec import RunSpec, SpecificationError, read_spec
from a2mae.training.start import pin_start, plan_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory, store) -> Path:
    """A model of other sizes of patch and bands, as another run leaves it."""
    directory = tmp_path_factory.mktemp("trained") / "model"
    spec = make_spec(directory.parent / "run", store, "mae")
    torch.manual_seed(3)
    return save_pretrained(create_model("mae_vit_tiny_patch16", **{**spec.model_options, "in_chans": 4}), directory)


def started(run_dir: Path, store, trained: Path, **changes) -> RunSpec:
    spec = make_spec(run_dir, store, **changes)
    spec = spec.replace(start=pin_start(StartParameters(weights=str(trained), licence="CC-BY-4.0"), run_dir))
    spec.write(run_dir)
    return spec


def test_a_run_has_the_weights_it_started_from_and_says_so(tmp_path: Path, store, trained: Path, caplog) -> None:
    spec = started(tmp_path / "run", store, trained, warmup_steps=0, steps=2, learning_rate=1e-12, weight_decay=0.0)
    with caplog.at_level(logging.INFO):
        assert train(tmp_path / "run", read_spec(tmp_path / "run"), StopRequest())
    source, model = from_pretrained(trained), from_pretrained(tmp_path / "run" / "model")
    for name, value in source.encoder.blocks.state_dict().items():
        torch.testing.assert_close(model.encoder.blocks.state_dict()[name], value, atol=1e-8, rtol=0)
    start = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["start"]
    assert start["weights"] == "model" and start["sha256"] == weights_digest(trained) == spec.start.sha256
    assert start["licence"] == "CC-BY-4.0" and start["decoder"] == "fresh"
    parts = {row["part"]: (row["verdict"], row["detail"]) for row in start["parts"]}
    assert parts["class token and blocks"] == ("taken", "2 blocks of width 64")
    assert parts["patch embedding"][0] == "adapted" and "patch 16 resampled to 8" in parts["patch embedding"][1]
    assert "mean of 4 channels for each of 3 bands" in parts["patch embedding"][1]
    assert "is model directory of a2mae, mae_vit_tiny_patch16" in caplog.text and "resampled to 8" in caplog.text
    assert str(tmp_path) not in (tmp_path / "run" / "model" / "config.json").read_text()


def test_a_started_run_resumes_to_the_bit(tmp_path: Path, store, trained: Path) -> None:
    assert train(tmp_path / "whole", started(tmp_path / "whole", store, trained), StopRequest())
    spec = started(tmp_path / "parts", store, trained)
    assert not train(tmp_path / "parts", spec, StopAfter(5))
    assert train(tmp_path / "parts", spec, StopRequest())
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_a_start_from_other_places_has_the_fresh_run_s_loss_in_half_the_steps(tmp_path: Path, store) -> None:
    elsewhere = write_store(tmp_path / "elsewhere.zarr", first_place=100)
    make_spec(tmp_path / "longer", elsewhere, steps=80).write(tmp_path / "longer")
    assert train(tmp_path / "longer", read_spec(tmp_path / "longer"), StopRequest())
    losses = {}
    for name in ("fresh", "started"):
        spec = make_spec(tmp_path / name, store, steps=20, seed=5, interval=2, monitor_interval=2)
        if name == "started":
            start = StartParameters(weights=str(tmp_path / "longer" / "model"), decoder="same")
            spec = spec.replace(start=pin_start(start, tmp_path / name))
        spec.write(tmp_path / name)
        assert train(tmp_path / name, read_spec(tmp_path / name), StopRequest())
        losses[name] = pd.read_csv(tmp_path / name / METRICS_FILE).set_index("step")[HELD_OUT_LOSS].dropna()
    assert list(losses["started"].index) == list(range(2, 21, 2))
    reached = losses["started"] <= losses["fresh"].iloc[-1]
    assert reached.any() and reached.idxmax() <= 10, losses


def test_all_bands_of_one_sensor_are_known_by_their_wavelengths(tmp_path: Path, store) -> None:
    """Of several sensors a band's place says nothing; of published weights the channels are red, green, blue."""
    spec = make_spec(tmp_path / "run", store, "mae", bands="all")
    source = create_model("mae_vit_tiny_patch8", **{**spec.model_options, "in_chans": 3, "num_heads": 1})
    torch.save(source.released_state_dict(), tmp_path / "mae.pth")
    options = spec.model.options | {"num_heads": 1}
    details = []
    for sensors in (spec.data.sensors, spec.data.sensors[1:]):
        one = spec.replace(
            model=spec.model.replace(options=options),
            data=spec.data.replace(sensors=sensors),
            start=pin_start(StartParameters(weights=str(tmp_path / "mae.pth")), tmp_path / "run"),
        )
        waves = [[band.center_wavelength_nm for band in get_sensor(sensor.id).bands] for sensor in sensors]
        plan = plan_of(tmp_path / "run", one, create_model(one.model.name, **one.model_options), waves)
        details += [row.detail for row in plan.rows if row.part == "patch embedding"]
    assert details[0] == "mean of 3 channels for each of 12 bands"
    assert details[1].startswith("bands by nearest wavelength (nm): 44")


def test_weights_that_changed_or_do_not_fit_stop_the_run(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path / "run", store)
    path = tmp_path / "mae.pth"
    source = create_model("mae_vit_tiny_patch8", **{**spec.model_options, "depth": 3, "num_heads": 1})
    torch.save(source.released_state_dict(), path)
    start = pin_start(StartParameters(weights=str(path)), tmp_path / "run")
    with pytest.raises(CheckpointError, match="depth 3 in the file, 2 in the model"):
        train(tmp_path / "run", spec.replace(start=start), StopRequest())
    torch.save({**source.released_state_dict(), "more": torch.ones(1)}, path)
    with pytest.raises(SpecificationError, match=r"mae\.pth has changed since this run was specified"):
        train(tmp_path / "run", spec.replace(start=start), StopRequest())
    with pytest.raises(CheckpointError, match=r"none\.pth is missing"):
        pin_start(StartParameters(weights=str(tmp_path / "none.pth")), tmp_path / "run")
