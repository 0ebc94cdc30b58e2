"""Samples that a frozen encoder has seen are not encoded again, and the head learns what it would have learnt."""

import numpy as np
import pytest
import torch

from a2mae.tasks.finetune import remembered, train
from a2mae.tasks.finetune.remembered import remember
from a2mae.tasks.finetune.train import finetune
from a2mae.tasks.parameters import FinetuneParameters
from a2mae.tasks.registry import Task
from helpers.task_models import CPU, build

HEADS = [
    (task, head)
    for task in Task
    for head in task.kind.heads
    if head != "rcf" and task.kind.answers_pixels(head) == (task is not Task.CLASSIFY)  # rcf is fitted first
]
FROZEN = {"mode": "frozen", "batch_size": 8, "lr": 1e-2, "warmup_steps": 2}


@pytest.fixture
def models(pretrained, data):
    return pretrained, data


def encoded_samples(monkeypatch, model):
    """Count the samples that a model encodes."""
    seen, encode = [], model.encode
    monkeypatch.setattr(model, "encode", lambda batch: seen.append(len(batch.images)) or encode(batch))
    return seen


@pytest.mark.parametrize(("task", "head"), HEADS)
@pytest.mark.parametrize("augment", [True, False])
def test_a_head_learns_the_same_from_what_is_remembered(models, monkeypatch, task, head, augment):
    pretrained, data = models
    rows = data[task].rows("train")[:7]  # no whole number of batches
    recipe = FinetuneParameters(steps=10, augment=augment, **FROZEN)
    found = []
    for remembers in (True, False):
        if not remembers:
            monkeypatch.setattr(train, "remember", lambda *_: None)
        model, inputs, _ = build(pretrained, data, task, head)
        seen = encoded_samples(monkeypatch, model)
        history = finetune(model, inputs, rows, recipe, seed=0, device=CPU)
        found.append(([moment.loss for moment in history], sum(seen)))
    (losses, encoded), (expected, without) = found
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
    assert without == 88  # ten steps, and the look at what the last one left
    assert encoded <= 1 + 7 * (8 if augment else 1) + 8


def test_only_a_frozen_encoder_whose_samples_come_again_and_fit_is_remembered(pretrained, data, monkeypatch):
    model, inputs, _ = build(pretrained, data, Task.SEGMENT, "linear")
    rows = data[Task.SEGMENT].rows("train")[:8]

    def remembers(**options):
        recipe = FinetuneParameters(**FROZEN | {"steps": 9} | options)
        return remember(model, inputs, rows, recipe, CPU) is not None

    assert remembers()
    assert not remembers(steps=8)  # 64 draws of 8 samples in 8 symmetries
    assert remembers(steps=2, augment=False)
    assert not remembers(steps=1, augment=False)
    assert not remembers(mode="full") and not remembers(mode="lora")
    maps = sum(values.nbytes for values in model.encode(inputs.batch(rows[:1])).tensors)
    monkeypatch.setattr(remembered, "MOST_BYTES", 64 * maps)
    assert remembers()
    monkeypatch.setattr(remembered, "MOST_BYTES", 64 * maps - 1)
    assert not remembers()


def test_what_is_remembered_is_what_the_encoder_gives(pretrained, data):
    """Of any sample in any symmetry, in any order of asking."""
    model, inputs, _ = build(pretrained, data, Task.DETECT_CHANGE, "linear")
    model.eval()
    rows = data[Task.DETECT_CHANGE].rows("train")[:11]
    kept = remember(model, inputs, rows, FinetuneParameters(**FROZEN | {"steps": 500}), CPU)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for _ in range(12):
            chosen = rng.permutation(rows)[:5]
            symmetry = train.Symmetry(int(rng.integers(4)), bool(rng.integers(2)))
            batch = train.flipped(inputs.batch(chosen), symmetry, pixels=True)
            torch.testing.assert_close(model(batch, kept.encoded(chosen, symmetry)), model(batch), rtol=1e-4, atol=1e-5)
