"""A task's entry says all that the other rooms ask, and survives the way to disk and to another process."""

from __future__ import annotations

import json
import pickle

import pytest

from a2mae.pipeline_registry import STAGES
from a2mae.tasks.metrics.scores import metrics_of
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task


@pytest.mark.parametrize("task", list(Task))
def test_an_entry_is_a_stage_with_heads_and_metrics_that_there_are(task: Task) -> None:
    assert task.value in STAGES and json.loads(json.dumps(task)) == task.value
    assert pickle.loads(pickle.dumps(task)) is Task(task.value) is task
    assert list(metrics_of(task)) == list(task.kind.metrics)
    for head in task.kind.heads:
        assert TaskParameters.model_validate({"task": task.value, "head": head}).task.kind is task.kind


def test_several_labels_have_metrics_of_their_own() -> None:
    assert list(metrics_of(Task.CLASSIFY, multi_label=True)) == ["micro_f1", "macro_f1"]
