"""Scores of a task's predictions, and the gain over random_init."""

from dataclasses import replace

import numpy as np
import pytest

from a2mae.files import json_text
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.metrics.scores import finetuned_rows, flat_scores, gain, metrics_of, score_task
from a2mae.tasks.registry import Task
from helpers.task_samples import make_samples, make_spec, spec_for


@pytest.mark.parametrize("task", list(Task))
def test_scores_have_their_tasks_metrics(tmp_path, task):
    write_task_data(tmp_path / "data", spec_for(task), make_samples(task))
    data = TaskData(tmp_path / "data")
    rows = data.rows("test")
    truth = data.read_targets(rows)
    perfect = score_task(data, rows, truth, resamples=100, seed=0)
    assert list(perfect.scores) == list(metrics_of(task))
    best = {"rmse": 0.0, "mae": 0.0, "bias": 0.0}
    assert {name: score.value for name, score in perfect.scores.items()} == {
        name: best.get(name, 1.0) for name in metrics_of(task)
    }
    assert perfect.confusion.sum() == (0 if task.kind.values else truth.size)
    flat = perfect.to_dict()
    both = {"pretrained": flat, "random": flat, "gain": flat_scores(gain(perfect, perfect))}
    table = finetuned_rows({"task": task.value, "data": "x", "gsd_m": 10.0, **both}, seed=0)
    assert [(row["model"], row["mode"]) for row in table[:: len(metrics_of(task))]] == [
        ("pretrained", "finetuned"), ("random", "finetuned"), ("pretrained", "gain")
    ]  # fmt: skip
    assert len(table) == 3 * len(metrics_of(task))


def test_a_gain_is_paired_over_places(tmp_path):
    """Two models that fail at the same hard places: each interval is wide, their difference's is narrow."""
    write_task_data(tmp_path / "data", make_spec(), make_samples(Task.CLASSIFY, count=240, size=16))
    data = TaskData(tmp_path / "data")
    rows, rng = np.concatenate([data.rows(split) for split in ("train", "val", "test")]), np.random.default_rng(0)
    truth, places = data.read_targets(rows), data.samples["place"].to_numpy()[rows]
    assert len(set(places)) > 8
    hard = np.isin(places, sorted(set(places))[::2])
    wrong = (truth + 1) % len(data.spec.class_names)
    better = np.where(hard & (rng.random(len(rows)) < 0.9), wrong, truth).astype(np.uint8)
    worse = np.where(rng.random(len(rows)) < 0.05, wrong, better).astype(np.uint8)
    first, second = (score_task(data, rows, one, resamples=500, seed=3) for one in (better, worse))
    found, back = gain(first, second)["top1"], gain(second, first)["top1"]
    assert found.value == pytest.approx(first.scores["top1"].value - second.scores["top1"].value)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert 0 < found.low < found.high
    assert first.scores["top1"].low < second.scores["top1"].high  # side by side, the two intervals say nothing
    same = gain(first, first)["top1"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_one_place_tells_nothing_of_a_gain(tmp_path):
    write_task_data(tmp_path / "data", make_spec(), make_samples(Task.CLASSIFY, count=60, size=16))
    data = TaskData(tmp_path / "data")
    rows = data.rows("test")
    one = rows[data.samples["place"].to_numpy()[rows] == data.samples["place"].iloc[rows[0]]]
    scores = score_task(data, one, data.read_targets(one), resamples=50, seed=0)
    assert (gain(scores, scores)["top1"].low, gain(scores, scores)["top1"].high) == (-1.0, 1.0)


def test_an_error_on_one_place_has_no_end_of_its_interval(tmp_path):
    """A share lies between 0 and 1 whatever is not known; an error in metres may be any."""
    samples = [replace(one, row={**one.row, "place": one.row["split"]}) for one in make_samples(Task.ESTIMATE)]
    write_task_data(tmp_path / "data", spec_for(Task.ESTIMATE), samples)
    data = TaskData(tmp_path / "data")
    rows = data.rows("test")
    found = score_task(data, rows, data.read_targets(rows) + 1, resamples=100, seed=0)
    flat = flat_scores(found.scores)
    assert (flat["rmse"], flat["rmse_low"], flat["rmse_high"]) == (1.0, 0.0, None)
    assert (flat["bias_low"], flat["bias_high"], flat["r2_low"], flat["r2_high"]) == (None, None, None, 1.0)
    gains = flat_scores(gain(found, found))
    assert (gains["r2_low"], gains["r2_high"]) == (None, None)
    json_text(flat)
