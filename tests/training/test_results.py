"""W&B is a sink: offline it holds what our own files hold; without it training works."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from training_runs import make_spec

from a2mae.training.launch import StopRequest
from a2mae.training.loop import train
from a2mae.training.results import open_tracking


def test_an_offline_run_is_written_with_metrics_and_pictures(tmp_path: Path, store, monkeypatch) -> None:
    pytest.importorskip("wandb")
    from helpers.wandb_runs import read_run  # reads its format

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    spec = make_spec(tmp_path / "run", store, wandb_project="a2mae-test")
    assert train(tmp_path / "run", spec, StopRequest())
    (folder,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*-pretrain-{spec.identity[:12]}")
    path = next(folder.glob("*.wandb"))
    assert read_run(path).made["pretrained_model"]  # it waits until W&B's own process has written all
    log = path.read_bytes()
    for name in (b"effective_rank", b"held_out_loss", b"samples_per_s", b"a2mae_vit_tiny_patch8"):
        assert name in log
    assert len(list((folder / "files" / "media" / "images").glob("reconstructions_*.png"))) == 2


def test_a_log_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from helpers.wandb_runs import read_run

    path = tmp_path / "run-x.wandb"
    path.write_bytes(b":W&B" + bytes(3) + b"\x07\x01")  # the header and half a record's
    with pytest.raises(AssertionError, match="holds no record"):
        read_run(path, patience_s=0.3)


def test_without_wandb_or_when_disabled_nothing_is_tracked(tmp_path: Path, store, monkeypatch, caplog) -> None:
    spec = make_spec(tmp_path, store, wandb_project="a2mae-test")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert open_tracking(spec, tmp_path)._run is None
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert open_tracking(spec, tmp_path)._run is None
    assert "wandb is not installed" in caplog.text
