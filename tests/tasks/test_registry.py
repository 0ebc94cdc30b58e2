"""A task's entry says all that the other rooms ask, and survives the way to disk and to another process."""

from __future__ import annotations

import inspect
import json
import pickle
import re

import pytest

from a2mae.pipeline_registry import STAGES
from a2mae.tasks.finetune import losses
from a2mae.tasks.metrics.scores import metrics_of
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task
from helpers.checkout import ROOT


@pytest.mark.parametrize("task", list(Task))
def test_an_entry_is_a_stage_with_heads_and_metrics_that_there_are(task: Task) -> None:
    assert task.value in STAGES and json.loads(json.dumps(task)) == task.value
    assert pickle.loads(pickle.dumps(task)) is Task(task.value) is task
    assert list(metrics_of(task)) == list(task.kind.metrics)
    for head in task.kind.heads:
        assert TaskParameters.model_validate({"task": task.value, "head": head}).task.kind is task.kind


def test_several_labels_have_metrics_of_their_own() -> None:
    assert list(metrics_of(Task.CLASSIFY, multi_label=True)) == ["micro_f1", "macro_f1"]


def test_the_page_on_a_further_task_names_what_there_is() -> None:
    page = (ROOT / "docs/own-task.md").read_text("utf-8").split("## A task of another kind")[1]
    named = re.findall(r"`((?:tasks|report)/[a-z_/]*(?:\.py)?)`", page)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / "src/a2mae" / path).exists()] == []
    for task in Task:  # what the page asks of each
        assert (ROOT / f"conf/base/parameters_{task}.yml").is_file()
        assert '"{task}.model"' in (ROOT / "conf/base/catalog_tasks.yml").read_text("utf-8")
    source = inspect.getsource(losses.loss_for)
    assert not [task.name for task in Task if f"Task.{task.name}" in source], "the entry is asked, not the name"
