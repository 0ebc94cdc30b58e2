"""Values that are estimated: how a model's output stands for one, and the loss that they are learnt by.

A model gives values on a scale on which those of the training labels have a mean of 0 and a deviation of 1, so that a
learning rate means the same for metres and for tonnes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.errors import InputError
from a2mae.tasks.datasets.task_data import Targets, TaskDataError, TaskSpec, is_labelled
from a2mae.tasks.registry import Task

VALUE_LOSSES = Task.ESTIMATE.kind.losses
_MOST_LABELS = 4_000_000
"""Of which the scale is computed: more change no digit that matters."""


@dataclass(frozen=True)
class ValueScaling:
    """How values become what a model is trained on.

    Attributes:
        mean: Of the training labels, or of the logarithm of 1 + them.
        std: Likewise, their deviation.
        log: Whether it is the logarithm.
    """

    mean: float
    std: float
    log: bool = False

    def scaled(self, values: Tensor) -> Tensor:
        """Turn values into what a model gives; NaN stays NaN."""
        return ((values.log1p() if self.log else values) - self.mean) / self.std

    def values(self, outputs: Tensor) -> Tensor:
        """Turn what a model gives into values: the inverse of `scaled`."""
        found = outputs.float() * self.std + self.mean
        return found.expm1() if self.log else found


def fitted_scaling(targets: Targets, spec: TaskSpec, *, log: bool) -> ValueScaling:
    """Compute the scale of training labels.

    Args:
        targets: Values of any shape, NaN where not known.
        spec: What they are, for messages.
        log: Learn the logarithm of 1 + them.

    Raises:
        TaskDataError: If a value is negative and its logarithm is wanted.
    """
    found = targets[is_labelled(targets)].astype(np.float64)
    found = found[:: -(-found.size // _MOST_LABELS)]
    if log and found.min() < 0:
        raise TaskDataError(
            f"{spec.task}.finetune.log_targets: training labels of {spec.source!r} begin at {found.min():g}, and a"
            " logarithm needs 0 or more: leave it out"
        )
    found = np.log1p(found) if log else found
    return ValueScaling(float(found.mean()), max(float(found.std()), 1e-6), log)


class ValueLoss(nn.Module):
    """Huber loss (squared within one deviation of the labels, then linear) or mean squared error, of scaled values."""

    def __init__(self, kind: str, scaling: ValueScaling) -> None:
        """Make the loss.

        Args:
            kind: One of `VALUE_LOSSES`.
            scaling: Of the model.

        Raises:
            InputError: For another kind.
        """
        super().__init__()
        if kind not in VALUE_LOSSES:
            raise InputError(f"loss of values must be one of {', '.join(VALUE_LOSSES)}, found {kind!r}")
        self.kind = kind
        self.scaling = scaling

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of `(B, 1, ...)` outputs and `(B, ...)` values; 0 where every label is NaN."""
        wanted = self.scaling.scaled(target)
        known = wanted.isfinite()
        if not bool(known.any()):
            return outputs.sum() * 0.0
        found, wanted = outputs[:, 0].float()[known], wanted[known]
        loss: Tensor = F.mse_loss(found, wanted) if self.kind == "mse" else F.huber_loss(found, wanted)
        return loss
