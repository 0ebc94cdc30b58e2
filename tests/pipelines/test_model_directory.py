"""A model directory is replaced as a whole, and a missing one says which stage makes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kedro.io import DatasetError

from a2mae.pipelines.datasets import ModelDirectory, RunDirectory


def make_model(path: Path, text: str) -> Path:
    (path / "run").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model": text}))
    (path / "run" / "metrics.csv").write_text(text)
    return path


def test_a_saved_model_replaces_the_old_one_entirely(tmp_path: Path) -> None:
    dataset = ModelDirectory(filepath=str(tmp_path / "out" / "pretrain"))
    assert not dataset.exists()
    (tmp_path / "out").mkdir()
    first = make_model(tmp_path / "first", "first")
    (first / "only_in_first").write_text("")
    dataset.save(first)
    dataset.save(make_model(tmp_path / "second", "second"))
    assert dataset.exists() and dataset.load() == tmp_path / "out" / "pretrain"
    assert sorted(p.name for p in dataset.load().iterdir()) == ["config.json", "run"]
    assert (dataset.load() / "run" / "metrics.csv").read_text() == "second"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["pretrain"]
    dataset.save(dataset.load())  # its own place: nothing to do
    assert "second" in str(dataset.preview())


def test_what_is_no_model_is_neither_saved_nor_loaded(tmp_path: Path) -> None:
    dataset = ModelDirectory(filepath=str(tmp_path / "pretrain"))
    with pytest.raises(DatasetError, match="holds no model"):
        dataset.load()
    with pytest.raises(DatasetError, match="is no model directory"):
        dataset.save(tmp_path)


def test_a_run_directory_is_made_and_never_saved(tmp_path: Path) -> None:
    dataset = RunDirectory(filepath=str(tmp_path / "a" / "run"))
    assert dataset.load().is_dir()
    with pytest.raises(DatasetError, match="not written as a dataset"):
        dataset.save(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot make the run directory"):
        RunDirectory(filepath=str(tmp_path / "file" / "run")).load()
