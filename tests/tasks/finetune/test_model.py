"""Task models: every head and fusion, views of bands, answers over symmetries."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from a2mae.config import read_back
from a2mae.tasks.finetune.model import HeadConfig, Symmetry, TaskModel, symmetries
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task
from helpers.task_models import build


@pytest.mark.parametrize(("task", "head"), [(task, head) for task in Task for head in task.kind.heads])
def test_every_head_gives_logits_of_the_targets_shape_and_gradients_everywhere(pretrained, data, task, head):
    model, inputs, _ = build(pretrained, data, task, head)
    batch = inputs.batch(np.arange(4))
    outputs = model(batch)
    pixels = batch.images.shape[-2:] if task.kind.answers_pixels(head) else ()
    assert outputs.shape == (4, model.config.outputs, *pixels)
    outputs.square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None and "encoder.norm" not in name]
    assert silent == []


@pytest.mark.parametrize(("task", "head"), [(task, head) for task in Task for head in task.kind.heads])
def test_every_head_can_be_asked_for(task, head):
    assert TaskParameters.model_validate({"task": str(task), "head": head}).head == head


@pytest.mark.parametrize("task", [Task.SEGMENT, Task.DETECT_CHANGE])
def test_the_detail_head_tells_pixels_of_one_patch_apart(pretrained, data, task):
    torch.manual_seed(0)
    model, inputs, _ = build(pretrained, data, task, "detail")
    model.eval()
    batch = inputs.batch(np.arange(1))
    images = batch.images.clone()
    images[:, -1, :, 8, 8] += 1  # the corner of a patch
    effect = (model(dataclasses.replace(batch, images=images)) - model(batch)).abs().sum(1)[0]
    patch = model.encoder.patch_size
    assert effect[8, 8] > 2 * effect[8 + patch - 1, 8 + patch - 1]


@pytest.mark.parametrize("fusion", ["difference", "concat", "difference_concat", "attention"])
def test_every_fusion_sees_both_dates(pretrained, data, fusion):
    model, inputs, _ = build(pretrained, data, Task.DETECT_CHANGE, "conv", fusion=fusion)
    model.eval()
    batch = inputs.batch(np.arange(2))
    base = model(batch)
    for time in (0, 1):
        images = batch.images.clone()
        images[:, time, :, :8, :8] += 1
        assert (model(dataclasses.replace(batch, images=images)) - base).abs().max() > 1e-4


def test_two_views_join_their_features(pretrained, data):
    model, inputs, plan = build(pretrained, data, Task.SEGMENT, "linear", bands=("red", "green", "blue") * 2)
    assert plan.views == 2
    assert model(inputs.batch(np.arange(2))).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("task", Task)
def test_symmetric_answers_move_with_the_image(pretrained, data, task):
    """A turned image gets the turned answer, which one look does not give; in training one look is taken."""
    plain, inputs, _ = build(pretrained, data, task, "mean" if task is Task.CLASSIFY else "conv")
    model = TaskModel(plain.encoder, dataclasses.replace(plain.config, symmetric=True)).eval()
    model.load_state_dict(plain.state_dict())
    batch = inputs.batch(np.arange(3))
    turned = Symmetry(1, mirror=False)
    moved = dataclasses.replace(batch, images=turned.move(batch.images))

    def moves_along(asked):
        answer = asked(batch)
        return float((asked(moved) - (answer if task is Task.CLASSIFY else turned.move(answer))).abs().max())

    looks = []
    model.head.register_forward_hook(lambda *_: looks.append(1))
    with torch.no_grad():
        assert moves_along(model) < 0.01 * moves_along(plain.eval())
        looks.clear()
        model.train()(batch)
    assert len(looks) == (2 if task.kind.transitions else 1), "one head reads both dates"
    assert read_back(HeadConfig, json.loads(json.dumps(model.config.to_dict())), "head") == model.config


def test_heads_of_another_task_are_refused():
    with pytest.raises(
        ValueError, match="segment: head must be one of linear, rcf, conv, upernet, detail, found 'attentive'"
    ):
        HeadConfig(Task.SEGMENT, "attentive", 3)


@pytest.mark.parametrize(("height", "width", "count"), [(5, 5, 8), (3, 5, 4)])
def test_symmetries_differ_keep_the_shape_and_can_be_undone(height, width, count):
    image = torch.arange(2 * height * width).reshape(2, height, width)
    found = symmetries(height, width)
    assert torch.equal(found[0].move(image), image)
    moved = [symmetry.move(image) for symmetry in found]
    assert len({tuple(values.flatten().tolist()) for values in moved}) == count
    for symmetry, values in zip(found, moved, strict=True):
        assert values.shape == image.shape
        assert torch.equal(symmetry.undo(values), image)
