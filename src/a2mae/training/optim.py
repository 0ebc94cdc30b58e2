"""AdamW with decay groups, its learning rate as a function of the step, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from a2mae.training.spec import OptimizerSpec


def learning_rate(spec: OptimizerSpec, step: int) -> float:
    """Linear warm-up, then half a cosine (METHOD sections 2 and 3, "Optimiser").

    Args:
        spec: Peak, end, warm-up and length.
        step: Steps already taken; the rate is that of the next one.
    """
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    progress = (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return spec.learning_rate_end + (spec.learning_rate - spec.learning_rate_end) * cosine


def make_optimizer(model: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """AdamW, fused; biases, norms and single tokens are not decayed.

    Args:
        model: Its trainable parameters are optimised.
        spec: Rates and moments.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if _is_matrix(p)], "weight_decay": spec.weight_decay},
        {"params": [p for p in trainable if not _is_matrix(p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=learning_rate(spec, 0), betas=spec.betas, fused=True
    )


def _is_matrix(parameter: nn.Parameter) -> bool:
    return sum(side > 1 for side in parameter.shape) > 1


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class MovingAverage:
    """Exponential moving average of a model's parameters, updated in place after every step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the weights as they are.

        Args:
            model: The model; its parameters are read at every update.
            decay: Share of the old average that stays.
        """
        self._decay = decay
        self._live = dict(model.named_parameters())
        self.tensors = {name: parameter.detach().clone() for name, parameter in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights."""
        live: Iterable[Tensor] = (self._live[name].detach() for name in self.tensors)
        torch._foreach_lerp_(list(self.tensors.values()), list(live), 1 - self._decay)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over a saved average.

        Raises:
            KeyError: If a parameter is missing.
        """
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
