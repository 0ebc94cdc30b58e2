"""Losses of classes and of values: what is not known has no say."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from a2mae.tasks.datasets.task_data import IGNORE, TaskDataError
from a2mae.tasks.finetune.losses import CLASS_LOSSES, TaskLoss, class_weights, dice_loss, label_weights
from a2mae.tasks.finetune.values import VALUE_LOSSES, ValueLoss, ValueScaling, fitted_scaling
from a2mae.tasks.registry import Task
from helpers.task_samples import spec_for


def logits_and_target(seed=0, ignored=0.3):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 5, 7, generator=generator)
    target = torch.randint(0, 3, (2, 5, 7), generator=generator)
    hidden = torch.rand(2, 5, 7, generator=generator) < ignored
    return logits, torch.where(hidden, IGNORE, target)


@pytest.mark.parametrize("kind", CLASS_LOSSES)
def test_what_is_ignored_has_no_say_and_no_gradient(kind):
    logits, target = logits_and_target()
    other = torch.where((target == IGNORE).unsqueeze(1), logits + 5 * torch.randn_like(logits), logits)
    loss_of = TaskLoss(kind, torch.tensor([1.0, 2.0, 0.5]))
    torch.testing.assert_close(loss_of(other, target), loss_of(logits, target))
    logits.requires_grad_()
    loss_of(logits, target).backward()
    assert logits.grad.movedim(1, -1)[target == IGNORE].abs().max() == 0
    assert logits.grad.movedim(1, -1)[target != IGNORE].abs().max() > 0


@pytest.mark.parametrize("kind", CLASS_LOSSES)
def test_a_batch_without_labels_costs_nothing_and_breaks_nothing(kind):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = TaskLoss(kind)(logits, torch.full((1, 4, 4), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_focal_loss_is_the_published_one():
    logits, target = logits_and_target()
    scored = target != IGNORE
    chance = logits.softmax(1).gather(1, torch.where(scored, target, 0).unsqueeze(1)).squeeze(1)[scored]
    expected = (-((1 - chance) ** 2) * chance.log()).mean()
    torch.testing.assert_close(TaskLoss("focal")(logits, target), expected)
    flat = TaskLoss("focal", focal_gamma=0.0)(logits, target)
    torch.testing.assert_close(flat, F.cross_entropy(logits, target, ignore_index=IGNORE))
    weight = torch.tensor([3.0, 1.0, 1.0])
    assert TaskLoss("focal", weight)(logits, target) > TaskLoss("focal")(logits, target)


def test_dice_by_hand():
    target = torch.tensor([[0, 0, 1, IGNORE]])
    logits = torch.tensor([[[2.0, 0.0, 1.0, 9.0], [0.0, 0.0, 3.0, -9.0], [-1.0, 0.0, 0.0, 0.0]]])
    chance = logits.softmax(1)[0, :, :3]
    first = 2 * chance[0, :2].sum() / (chance[0].sum() + 2)
    second = 2 * chance[1, 2] / (chance[1].sum() + 1)
    torch.testing.assert_close(dice_loss(logits, target), 1 - (first + second) / 2)  # class 2 is not in the truth
    sure = 50 * F.one_hot(torch.tensor([[0, 0, 1, 2]]), 3).movedim(-1, 1).float()
    assert dice_loss(sure, target).item() == pytest.approx(0, abs=1e-6)
    both = TaskLoss("cross_entropy_dice")(logits, target)
    torch.testing.assert_close(both, TaskLoss("cross_entropy")(logits, target) + dice_loss(logits, target))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_class_weights_lift_the_rare_and_keep_the_mean(power):
    targets = np.array([0] * 80 + [1] * 16 + [2] * 4 + [IGNORE] * 50, np.uint8)
    weights = class_weights(targets, 4, power=power).numpy()
    assert (np.array([80, 16, 4]) @ weights[:3]) / 100 == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(weights[2] / weights[0], 20**power, rtol=1e-5)
    assert weights[3] == 1  # a class without labels


def test_several_labels_are_so_many_yes_or_no():
    logits, targets = torch.randn(6, 4), torch.randint(0, 2, (6, 4))
    weight = label_weights(np.array([[1, 0], [1, 0], [1, 1], [0, 0]], np.uint8), power=1.0)
    np.testing.assert_allclose(weight.numpy(), [1 / 3, 3.0])
    expected = F.binary_cross_entropy_with_logits(logits, targets.float())
    torch.testing.assert_close(TaskLoss("cross_entropy", multi_label=True)(logits, targets), expected)
    with pytest.raises(ValueError, match="several labels per image are learnt by cross_entropy, found 'dice'"):
        TaskLoss("dice", multi_label=True)
    with pytest.raises(ValueError, match="loss must be one of"):
        TaskLoss("hinge")


def values_and_target(seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = 10 + 4 * torch.randn(2, 5, 7, generator=generator)
    target[torch.rand(2, 5, 7, generator=generator) < 0.3] = float("nan")
    return torch.randn(2, 1, 5, 7, generator=generator), target


@pytest.mark.parametrize("kind", VALUE_LOSSES)
def test_nan_is_no_label(kind):
    outputs, target = values_and_target()
    loss_of, known = ValueLoss(kind, ValueScaling(10.0, 4.0)), target.isfinite()
    other = torch.where(known.unsqueeze(1), outputs, outputs + 5)
    torch.testing.assert_close(loss_of(other, target), loss_of(outputs, target))
    outputs.requires_grad_()
    loss_of(outputs, target).backward()
    assert outputs.grad[:, 0][~known].abs().max() == 0 < outputs.grad[:, 0][known].abs().min()
    nothing = loss_of(outputs, torch.full_like(target, float("nan")))
    nothing.backward()
    assert nothing.item() == 0


def test_values_are_learnt_in_deviations_of_the_labels():
    outputs, target = values_and_target()
    known = target.isfinite()
    wanted = (target[known] - 10) / 4
    found = outputs[:, 0][known]
    torch.testing.assert_close(ValueLoss("mse", ValueScaling(10.0, 4.0))(outputs, target), F.mse_loss(found, wanted))
    torch.testing.assert_close(
        ValueLoss("huber", ValueScaling(10.0, 4.0))(outputs, target), F.huber_loss(found, wanted, delta=1.0)
    )
    with pytest.raises(ValueError, match="loss of values must be one of huber, mse, found 'dice'"):
        ValueLoss("dice", ValueScaling(0.0, 1.0))


@pytest.mark.parametrize("log", [False, True])
def test_a_scale_is_undone(log):
    targets = np.array([[0.0, 1.5, np.nan], [300.0, 7.0, 2.0]], np.float32)
    scaling = fitted_scaling(targets, spec_for(Task.ESTIMATE), log=log)
    scaled = scaling.scaled(torch.from_numpy(targets))
    known = scaled[scaled.isfinite()]
    assert known.mean().item() == pytest.approx(0, abs=1e-5) and known.std(correction=0).item() == pytest.approx(1)
    np.testing.assert_allclose(scaling.values(scaled).numpy(), targets, rtol=1e-4, atol=1e-4)
    largest = scaled[1, 0].item()
    assert largest < 1.95 if log else largest > 1.95, "the logarithm brings what is far out nearer"


def test_a_logarithm_needs_labels_that_have_one():
    with pytest.raises(
        TaskDataError, match=r"estimate.finetune.log_targets: training labels of 'test' begin at -2, and"
    ):
        fitted_scaling(np.array([1.0, -2.0], np.float32), spec_for(Task.ESTIMATE), log=True)
