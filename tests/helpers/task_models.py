"""Small task models on small real data, for the tests of finetuning and inputs."""

from __future__ import annotations

from pathlib import Path

import torch

from a2mae.models.checkpoint import load_encoder, save_pretrained
from a2mae.models.registry import create_model
from a2mae.tasks.datasets.inputs import TaskInputs, plan_inputs
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.finetune.encoders import bands_per_view, encoder_normalisation
from a2mae.tasks.finetune.model import TaskModel
from a2mae.tasks.finetune.train import head_for
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task
from helpers.task_samples import SENTINEL2, make_samples, spec_for

CPU = torch.device("cpu")
LEARNED = {
    Task.CLASSIFY: ("mean", 0.9),
    Task.SEGMENT: ("conv", 0.7),
    Task.DETECT_CHANGE: ("conv", 0.7),
    Task.ESTIMATE: ("conv", 0.7),
    Task.DETECT_TRANSITIONS: ("conv", 0.5),
}
"""Head, and what the task's main metric reaches at least after a few steps."""
STATISTICS = {SENTINEL2.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}


def pretrained_directory(folder: Path) -> Path:
    """A model directory as pretraining leaves it, small."""
    torch.manual_seed(0)
    model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=4, decoder_dim=32)
    return save_pretrained(model, folder, config={"sensors": [SENTINEL2.id], "normalization": STATISTICS})


def data_of_each_task(folder: Path) -> dict[Task, TaskData]:
    """Forty samples per task."""
    for task in Task:
        write_task_data(folder / task, spec_for(task), make_samples(task, count=40, size=32))
    return {task: TaskData(folder / task) for task in Task}


def build(pretrained, data, task, head, *, fusion="difference_concat", bands=("red", "green", "blue")):
    encoder = load_encoder(pretrained)
    plan = plan_inputs(data[task], bands, encoder_normalisation(pretrained), bands_per_view=bands_per_view(encoder))
    options = TaskParameters.model_validate({"task": task.value, "head": head, "fusion": fusion})
    torch.manual_seed(1)
    model = TaskModel(encoder, head_for(data[task], plan, options, head))
    return model, TaskInputs(data[task], plan), plan
