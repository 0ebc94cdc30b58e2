"""Losses of classes, for imbalanced ones too (`IGNORE` never counts), and which loss a task's model is trained by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.errors import InputError
from a2mae.tasks.datasets.task_data import IGNORE, TaskData
from a2mae.tasks.finetune.model import HeadConfig
from a2mae.tasks.finetune.transitions import TransitionLoss
from a2mae.tasks.finetune.values import ValueLoss
from a2mae.tasks.parameters import FinetuneParameters
from a2mae.tasks.registry import Task
from a2mae.tasks.transitions import decode

CLASS_LOSSES = Task.SEGMENT.kind.losses


def loss_for(
    config: HeadConfig, recipe: FinetuneParameters, data: TaskData, rows: npt.NDArray[np.int64]
) -> TaskLoss | ValueLoss | TransitionLoss:
    """Make the loss of a task's model.

    Args:
        config: Of the model.
        recipe: Names the loss; otherwise it is the task's first.
        data: The task data.
        rows: Training rows, by whose labels rare classes are lifted.
    """
    kind = recipe.loss or config.task.kind.losses[0]
    if config.scaling is not None:
        return ValueLoss(kind, config.scaling)
    weight = None
    power = recipe.class_weight_power
    if config.task.kind.transitions:
        of_classes = of_change = None
        if power > 0:
            codes = data.read_targets(rows).astype(np.uint8)
            before, after = decode(codes, config.classes)
            changed = np.where(codes == IGNORE, np.uint8(IGNORE), before != after).astype(np.uint8)
            of_classes = class_weights(np.stack([before, after]), config.classes, power=power)
            of_change = class_weights(changed, 2, power=power)
        return TransitionLoss(TaskLoss(kind, of_classes), TaskLoss(kind, of_change), config.classes)
    if power > 0:
        targets = data.read_targets(rows).astype(np.uint8)
        weight = (
            label_weights(targets, power=power)
            if config.multi_label
            else class_weights(targets, config.classes, power=power)
        )
    return TaskLoss(kind, weight, multi_label=config.multi_label)


class TaskLoss(nn.Module):
    """Cross-entropy, focal (arXiv 1708.02002), Dice, or cross-entropy plus Dice, with class weights by option."""

    def __init__(
        self, kind: str, weight: Tensor | None = None, *, focal_gamma: float = 2.0, multi_label: bool = False
    ) -> None:
        """Make the loss.

        Args:
            kind: One of `CLASS_LOSSES`.
            weight: `(K,)` weight of each class in the cross-entropy and focal terms.
            focal_gamma: Exponent of the focal loss.
            multi_label: Targets are `(B, K)` of 0 and 1: every class is a yes or no of its own, and `weight` is that
                of a yes. For cross-entropy only.

        Raises:
            InputError: For another kind.
        """
        super().__init__()
        if kind not in CLASS_LOSSES:
            raise InputError(f"loss must be one of {', '.join(CLASS_LOSSES)}, found {kind!r}")
        if multi_label and kind != "cross_entropy":
            raise InputError(f"several labels per image are learnt by cross_entropy, found {kind!r}")
        self.multi_label = multi_label
        self.kind = kind
        self.focal_gamma = focal_gamma
        self.weight: Tensor | None
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of `(B, K, ...)` logits and `(B, ...)` classes; 0 where every label is ignored."""
        logits = logits.float()
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits, target.float(), pos_weight=self.weight)
        target = target.long()
        if not bool((target != IGNORE).any()):
            return logits.sum() * 0.0
        if self.kind == "dice":
            return dice_loss(logits, target)
        if self.kind == "focal":
            return self._focal(logits, target)
        loss = F.cross_entropy(logits, target, self.weight, ignore_index=IGNORE)
        return loss + dice_loss(logits, target) if self.kind == "cross_entropy_dice" else loss

    def _focal(self, logits: Tensor, target: Tensor) -> Tensor:
        plain = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        weighted = F.cross_entropy(logits, target, self.weight, ignore_index=IGNORE, reduction="none")
        focused = weighted * (1 - (-plain).exp()) ** self.focal_gamma
        return focused.sum() / (target != IGNORE).sum()


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return 1 − the mean soft Dice of the classes that are in the batch's truth.

    Args:
        logits: `(B, K, ...)`.
        target: `(B, ...)` int64 with `IGNORE`.
    """
    classes = logits.shape[1]
    scored = target != IGNORE
    probability = logits.softmax(dim=1) * scored.unsqueeze(1)
    truth = F.one_hot(torch.where(scored, target, 0), classes).movedim(-1, 1) * scored.unsqueeze(1)
    axes = [0, *range(2, logits.ndim)]
    overlap = (probability * truth).sum(axes)
    total = probability.sum(axes) + truth.sum(axes)
    present = truth.sum(axes) > 0
    dice: Tensor = (2 * overlap / total.clamp_min(1e-6))[present].mean()
    return 1 - dice


def label_weights(targets: npt.NDArray[np.uint8], *, power: float = 0.5) -> Tensor:
    """Weigh a yes of rare labels: (no / yes) ** power.

    Args:
        targets: `(N, K)` of 0 and 1.
        power: 0 leaves all equal, 1 balances fully.
    """
    yes = targets.sum(axis=0).astype(np.float64)
    weights = np.where(yes > 0, ((len(targets) - yes) / np.maximum(yes, 1)) ** power, 1.0)
    return torch.from_numpy(np.maximum(weights, 1e-3).astype(np.float32))


def class_weights(targets: npt.NDArray[np.uint8], classes: int, *, power: float = 0.5) -> Tensor:
    """Weigh rare classes higher: (1 / frequency) ** power, with a mean of 1 over the labels.

    Args:
        targets: Training labels, any shape, with `IGNORE`.
        classes: K; a class without labels gets weight 1.
        power: 0 leaves all equal, 1 balances fully.
    """
    counts = np.bincount(targets[targets != IGNORE].ravel(), minlength=classes).astype(np.float64)
    frequency = counts / counts.sum()
    weights = np.where(counts > 0, np.maximum(frequency, 1e-12) ** -power, 0.0)
    weights = np.where(counts > 0, weights / (weights * frequency).sum(), 1.0)
    return torch.from_numpy(weights.astype(np.float32))
