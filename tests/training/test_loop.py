"""The loop: every method learns, the seed decides every bit, and a stopped run ends as an uninterrupted one."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_runs import make_spec

from a2mae.models import from_pretrained, load_encoder
from a2mae.training.engine import make_fabric
from a2mae.training.launch import StopRequest
from a2mae.training.loop import Trainer, train
from a2mae.training.monitor import read_metrics
from a2mae.training.spec import SpecificationError, read_spec
from a2mae.training.step import NonFiniteLossError


class StopAfter(StopRequest):
    """Asks to stop once so many steps were looked at."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left <= 0

    @property
    def exit_code(self) -> int:
        return 130


def weights(run_dir: Path) -> bytes:
    return (run_dir / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def reference(tmp_path_factory, store) -> Path:
    run_dir = tmp_path_factory.mktemp("reference")
    assert train(run_dir, make_spec(run_dir, store), StopRequest())
    return run_dir


@pytest.mark.parametrize("method", ["a2mae", "scale_mae", "mae", "satmae"])
def test_every_method_learns(tmp_path: Path, store, method: str) -> None:
    spec = make_spec(tmp_path, store, method, steps=40, interval=10, clip_norm=None)
    assert train(tmp_path, spec, StopRequest())
    losses = [float(row["loss"]) for row in read_metrics(tmp_path / "metrics.csv")]
    assert losses[-1] < 0.9 * losses[0]
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["step"] == 40 and metrics["method"] == method and metrics["held_out_sets"] == 2
    assert metrics["effective_rank"] > 1 and metrics["feature_std"] > 0
    model = from_pretrained(tmp_path / "model")
    assert sum(p.numel() for p in model.parameters()) == metrics["parameters"]
    encoder = load_encoder(tmp_path / "model")
    assert encoder.forward_features(torch.zeros(1, 3, 32, 32), gsd_m=10.0).shape == (1, 17, 64)


def test_satmae_learns_groups_of_bands_of_sensors_that_have_them_or_not(tmp_path: Path, store) -> None:
    groups = (tuple(range(7)), tuple(range(7, 12)))  # Landsat has the seven bands of the first group alone
    spec = make_spec(tmp_path, store, "satmae", bands="all", steps=20, clip_norm=None)
    options = spec.model.options | {"encoding": "group", "bands": "groups", "groups": groups}
    spec = spec.replace(model=spec.model.replace(options=options))
    spec.write(tmp_path)
    assert train(tmp_path, read_spec(tmp_path), StopRequest())
    losses = [float(row["loss"]) for row in read_metrics(tmp_path / "metrics.csv")]
    assert losses[-1] < 0.9 * losses[0]
    tokens = load_encoder(tmp_path / "model").forward_features(torch.zeros(1, 12, 32, 32))
    assert tokens.shape == (1, 17, 64)


def test_the_model_directory_says_what_it_was_made_of(reference: Path, store) -> None:
    config = json.loads((reference / "model" / "config.json").read_text())
    assert config["sensors"] == ["landsat-oli-c2-l2", "sentinel-2-l2a"]
    assert config["normalization"]["sentinel-2-l2a"]["B04"] == [pytest.approx(0.15), 0.06]
    assert config["data_manifest_hash"] == store.manifest_hash
    for name in ("spec.json", "metrics.csv", "reconstructions.npz"):
        assert (reference / "model" / "run" / name).read_bytes() == (reference / name).read_bytes()


def test_the_seed_decides_every_byte_of_what_is_kept(tmp_path: Path, store, reference: Path) -> None:
    train(tmp_path, make_spec(tmp_path, store), StopRequest())
    for path in sorted((reference / "model").rglob("*")):
        if path.is_file() and path.name != "spec.json":  # whose path to the store depends on where the run lies
            assert (tmp_path / "model" / path.relative_to(reference / "model")).read_bytes() == path.read_bytes(), path


@pytest.mark.parametrize(("stop_at", "workers"), [(1, 0), (4, 0), (7, 1)])
def test_a_stopped_run_ends_bit_for_bit_as_an_uninterrupted_one(
    tmp_path: Path, store, reference: Path, *, caplog, stop_at: int, workers: int
) -> None:
    spec = make_spec(tmp_path, store, workers=workers)
    assert not train(tmp_path, spec, StopAfter(stop_at))
    assert not (tmp_path / "model").exists()
    with caplog.at_level(logging.INFO):
        assert train(tmp_path, spec, StopRequest())
    assert f"going on from the checkpoint of step {stop_at} of 12" in caplog.text
    assert weights(tmp_path) == weights(reference)
    assert (tmp_path / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()


@pytest.mark.parametrize("method", ["a2mae", "scale_mae"])
def test_filters_are_drawn_once_and_a_stopped_run_goes_on_with_them(tmp_path: Path, store, method: str) -> None:
    run_dirs = [tmp_path / name for name in ("whole", "stopped")]
    for run_dir in run_dirs:
        spec = make_spec(run_dir, store, method, steps=8)
        options = {**spec.model.options, "stem": "rcf", "rcf_weight": 1.0, "pixel_weight": 0.3}
        spec = spec.replace(model=spec.model.replace(options=options))
        spec.write(run_dir)
        if run_dir.name == "stopped":
            assert not train(run_dir, spec, StopAfter(5))
        assert train(run_dir, spec, StopRequest())
    assert weights(run_dirs[0]) == weights(run_dirs[1])
    tensors = load_file(run_dirs[0] / "model" / "model.safetensors")
    stem, target = tensors["encoder.patch_embed.rcf.filters"], tensors["features.rcf.filters"]
    assert stem.abs().sum() > 0 and torch.equal(stem, target)


def test_after_a_torn_checkpoint_the_one_before_leads_to_the_same_end(tmp_path: Path, store, reference: Path) -> None:
    spec = make_spec(tmp_path, store)
    assert not train(tmp_path, spec, StopAfter(8))
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step-000000005", "step-000000008"]
    moments = tmp_path / "checkpoints" / "step-000000008" / "optimizer.safetensors"
    moments.write_bytes(moments.read_bytes()[:-1])
    assert train(tmp_path, spec, StopRequest())
    assert weights(tmp_path) == weights(reference)
    assert (tmp_path / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()


def test_another_specification_starts_afresh_and_a_finished_model_is_not_trained_again(
    tmp_path: Path, store, caplog
) -> None:
    spec = make_spec(tmp_path, store)
    assert not train(tmp_path, spec, StopAfter(5))
    other = spec.replace(seed=8)
    with caplog.at_level(logging.INFO):
        assert train(tmp_path, other, StopRequest())
    assert "are of another specification or other data: starting afresh" in caplog.text
    first, written = weights(tmp_path), (tmp_path / "model").stat().st_ctime_ns
    with caplog.at_level(logging.INFO):
        assert train(tmp_path, other, StopRequest())
    assert "holds the finished model of this specification and code: nothing to train" in caplog.text
    assert weights(tmp_path) == first and (tmp_path / "model").stat().st_ctime_ns == written


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.json", "run/metrics.csv"])
def test_a_torn_file_of_a_finished_model_is_named_and_made_again_from_the_last_checkpoint(
    tmp_path: Path, store, reference: Path, name: str, caplog
) -> None:
    spec = make_spec(tmp_path, store)
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    spec.write(tmp_path)
    (tmp_path / "model" / name).write_bytes(b"")  # as a power cut may leave it
    with caplog.at_level(logging.INFO):
        assert train(tmp_path, spec, StopRequest())
    assert f"{name} is not what was written" in caplog.text and "checkpoint of step 12 of 12" in caplog.text
    assert (tmp_path / "model" / name).read_bytes() == (reference / "model" / name).read_bytes()


def test_a_run_whose_rows_are_lost_starts_afresh_and_says_so(tmp_path: Path, store, reference: Path, caplog) -> None:
    spec = make_spec(tmp_path, store)
    assert not train(tmp_path, spec, StopAfter(7))
    (tmp_path / "metrics.csv").write_bytes(b"")
    assert train(tmp_path, spec, StopRequest())
    assert "metrics.csv has lost the row of step 6: starting afresh" in caplog.text
    assert (tmp_path / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()


def test_a_contrasted_run_resumes_to_the_bit(tmp_path: Path, store) -> None:
    plain = make_spec(tmp_path / "whole", store)
    model = plain.model.replace(options={**plain.model.options, "contrast_weight": 0.5})
    runs = []
    for name, stops in (("whole", [StopRequest()]), ("parts", [StopAfter(5), StopRequest()])):
        spec = make_spec(tmp_path / name, store).replace(model=model)
        spec.write(tmp_path / name)
        for stop in stops:
            finished = train(tmp_path / name, spec, stop)
        assert finished
        runs.append(weights(tmp_path / name))
    assert runs[0] == runs[1]
    parts = spec.replace(numerics=spec.numerics.replace(micro_batch_size=1))
    with pytest.raises(SpecificationError, match="compares the crops of a whole batch, found micro_batch_size 1: set"):
        train(tmp_path / "parts", parts, StopRequest())


def test_accumulated_micro_batches_are_one_large_batch(tmp_path: Path, store, reference: Path) -> None:
    train(tmp_path, make_spec(tmp_path, store, micro_batch_size=1), StopRequest())
    for one, other in zip(read_metrics(reference / "metrics.csv"), read_metrics(tmp_path / "metrics.csv"), strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-5)
        assert float(one["grad_norm"]) == pytest.approx(float(other["grad_norm"]), rel=1e-3)


def test_bf16_keeps_weights_in_fp32_and_follows_fp32(tmp_path: Path, store, reference: Path) -> None:
    train(tmp_path, make_spec(tmp_path, store, precision="bf16-mixed"), StopRequest())
    found = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    for one, other in zip(read_metrics(reference / "metrics.csv"), read_metrics(tmp_path / "metrics.csv"), strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=0.02)


def test_bf16_on_a_cpu_computes_attention_plainly(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store, precision="bf16-mixed")
    for precision, fused in (("bf16-mixed", False), ("32-true", True)):
        spec = spec.replace(numerics=spec.numerics.replace(precision=precision))
        trainer = Trainer(make_fabric(spec), tmp_path, spec, resume=False)
        found = {module.fused_attn for module in trainer._model.modules() if hasattr(module, "fused_attn")}
        assert found == {fused}


def test_recomputed_activations_change_nothing(tmp_path: Path, store, reference: Path) -> None:
    train(tmp_path, make_spec(tmp_path, store, activation_checkpointing=True), StopRequest())
    assert weights(tmp_path) == weights(reference)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # compiling takes minutes of a shared core
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_and_eager_losses_agree_over_200_steps(tmp_path: Path, store) -> None:
    curves = []
    for name, compiled in (("eager", False), ("compiled", True)):
        run_dir = tmp_path / name
        train(run_dir, make_spec(run_dir, store, steps=200, interval=20, compile=compiled), StopRequest())
        curves.append([float(row["loss"]) for row in read_metrics(run_dir / "metrics.csv")])
    np.testing.assert_allclose(*curves, rtol=5e-3)


def test_the_moving_average_is_kept_and_resumed(tmp_path: Path, store, reference: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(whole, make_spec(whole, store, ema_decay=0.9), StopRequest())
    spec = make_spec(broken, store, ema_decay=0.9)
    train(broken, spec, StopAfter(7))
    train(broken, spec, StopRequest())
    assert weights(whole) == weights(broken) != weights(reference)


def test_reconstructions_are_what_the_report_reads(reference: Path) -> None:
    with np.load(reference / "reconstructions.npz", allow_pickle=False) as data:
        assert data["pixels"].shape == data["prediction"].shape == (2, 3, 3, 32, 32)
        assert data["pixels"].dtype == np.float32 and 0 <= data["pixels"].min() and data["pixels"].max() <= 1
        assert data["hidden"].shape == (2, 3, 4, 4) and data["hidden"].dtype == bool
        assert (data["hidden"].sum((2, 3)) >= 12).all()  # 25 % of every image is visible, fewer where it is not valid
        assert data["valid"].shape == (2, 3, 32, 32) and int(data["patch_size"]) == 8
        assert set(data["set_id"].tolist()) == {"set-6", "set-7"}
        assert set(data["sensor"].ravel().tolist()) <= {"landsat-oli-c2-l2", "sentinel-2-l2a"}
        assert data["day"].shape == data["gsd_m"].shape == (2, 3)


def test_loss_is_told_per_source_and_mask_group(reference: Path) -> None:
    rows = read_metrics(reference / "metrics.csv")
    assert [int(row["step"]) for row in rows] == [3, 6, 9, 12]
    groups = [name for name in rows[0] if name.startswith("loss/")]
    assert len(groups) == 6 and all(float(row[name]) > 0 for row in rows for name in groups if row[name])
    assert rows[-1]["held_out_loss"] and rows[-1]["same_place_accuracy"] and not rows[0]["held_out_loss"]
    timing = read_metrics(reference / "timing.csv")
    assert [row["step"] for row in timing] == ["3", "6", "9", "12"]
    assert all(0 < float(row["mfu"]) < 1.5 and float(row["samples_per_s"]) > 0 for row in timing)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_sets(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store, learning_rate=1e30, clip_norm=None, steps=30, interval=5, checkpoint_interval=0)
    with pytest.raises(
        NonFiniteLossError, match=r"the loss of step \d+ is not finite. Its samples are of the sets set-"
    ):
        train(tmp_path, spec, StopRequest())
    assert not (tmp_path / "model").exists()


def test_without_held_out_sets_training_sets_stand_in_and_it_is_said(tmp_path: Path, store) -> None:
    from training_runs import make_index

    spec = make_spec(tmp_path, store)
    digest = make_index(train_places=8).write(tmp_path / "index.npz")
    train(tmp_path, spec.replace(data=spec.data.replace(index_hash=digest)), StopRequest())
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["held_out_sets"] == 0 and metrics["train_sets"] == 8
    assert metrics["held_out_loss"] is None and metrics["training_sets_loss"] > 0
    rows = read_metrics(tmp_path / "metrics.csv")
    assert "held_out_loss" not in rows[-1] and float(rows[-1]["training_sets_loss"]) == metrics["training_sets_loss"]


def test_all_bands_and_rgb_train(tmp_path: Path, store) -> None:
    for bands, channels in (("all", 12), ("rgb", 3)):
        run_dir = tmp_path / bands
        train(run_dir, make_spec(run_dir, store, bands=bands, steps=3, warmup_steps=0), StopRequest())
        config = json.loads((run_dir / "model" / "config.json").read_text())
        assert config["kwargs"]["in_chans"] == channels
