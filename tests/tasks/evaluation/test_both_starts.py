"""Test samples as pictures, with all that is true and all that was found."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.evaluation.both_starts import pictures
from a2mae.tasks.registry import Task
from helpers.task_samples import make_samples, make_spec


def test_several_classes_of_an_image_are_all_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = [
        dataclasses.replace(sample, target=rng.integers(0, 2, 3).astype(np.uint8))
        for sample in make_samples(Task.CLASSIFY)
    ]
    write_task_data(tmp_path / "data", dataclasses.replace(make_spec(), multi_label=True), iter(samples))
    data = TaskData(tmp_path / "data")
    rows = data.rows("test")
    truth = data.read_targets(rows)
    assert (truth.sum(axis=1) > 1).any()
    shown = pictures(data, rows, 1 - truth, count=len(rows), seed=0)
    np.testing.assert_array_equal(shown["truth"], truth)
    np.testing.assert_array_equal(shown["prediction"], 1 - truth)
