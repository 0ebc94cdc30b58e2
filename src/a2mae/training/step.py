"""One training step: the forward pass that DDP, FSDP and `torch.compile` wrap, AdamW, its rate, and the average."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from a2mae.errors import A2maeError
from a2mae.models import ImageSetBatch, Pretrainer, loss_by_group
from a2mae.training.data.draw import Stream, generator
from a2mae.training.spec import OptimizerSpec

FIELDS = tuple(field.name for field in dataclasses.fields(ImageSetBatch))


@dataclass(frozen=True)
class StepTotals:
    """Sums over a batch, which add up over micro-batches and processes.

    Attributes:
        weight: Scalar, number of scored values (pixels times bands) behind the loss.
        loss: Scalar, loss times weight.
        group_loss: `(sensors, 3)` per source and mask group.
        group_weight: `(sensors, 3)`.
    """

    weight: Tensor
    loss: Tensor
    group_loss: Tensor
    group_weight: Tensor

    def __add__(self, other: StepTotals) -> StepTotals:
        """The totals of both."""
        return StepTotals(*(getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)))

    def flat(self) -> Tensor:
        """Put all of them into one vector, for one reduction over processes."""
        return torch.cat([self.weight[None], self.loss[None], self.group_loss.flatten(), self.group_weight.flatten()])

    @classmethod
    def from_flat(cls, vector: Tensor, sensors: int) -> StepTotals:
        """Take apart what `flat` put together."""
        groups = vector[2:].view(2, sensors, -1)
        return cls(vector[0], vector[1], groups[0], groups[1])


class TrainStep(nn.Module):
    """The model's loss on a batch, and its totals.

    Attributes:
        model: The pretrainer.
    """

    def __init__(self, model: Pretrainer, sensors: int) -> None:
        """Wrap a model.

        Args:
            model: A²-MAE, Scale-MAE or MAE.
            sensors: How many sensors the run has.
        """
        super().__init__()
        self.model = model
        self._sensors = sensors

    def forward(
        self,
        *tensors: Tensor,
        generator: torch.Generator | None = None,
        fully_valid: bool = False,
        teacher: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the loss, its weight, and both per sensor and mask group.

        Args:
            *tensors: The fields of an `ImageSetBatch` in order: wrappers hand tensors on, not dataclasses.
            generator: What masks are drawn from.
            fully_valid: True if every pixel is valid.
            teacher: A teacher's features of the anchors, where the run has one.

        Returns:
            `loss` with its graph; `weight`, `group_loss` and `group_weight` without.
        """
        batch = ImageSetBatch(**dict(zip(FIELDS, tensors, strict=True)))
        taught = {} if teacher is None else {"teacher": teacher}
        output = self.model(batch, generator=generator, fully_valid=fully_valid or None, **taught)
        group_loss, group_weight = loss_by_group(output, batch.sensor_id, batch.same_source_as_anchor, self._sensors)
        return output.loss, output.token_weight.sum(), group_loss, group_weight


def batch_tensors(batch: ImageSetBatch) -> tuple[Tensor, ...]:
    """Give the batch's fields in the order that `TrainStep` takes them."""
    return tuple(getattr(batch, name) for name in FIELDS)


def step_generator(seed: int, step: int, device: torch.device, skip: tuple[int, int, int]) -> torch.Generator:
    """Make the generator that a process draws its masks from in one step.

    The masks of a global batch are one stream, and a process skips those of the processes before it: masks do not
    depend on how many processes share the batch (exactly so on the CPU, whose generator has no parallel streams).

    Args:
        seed: The run's seed.
        step: The step.
        device: Where the masks are drawn.
        skip: Samples of the processes before, images per sample, patches per image.
    """
    source = torch.Generator(device).manual_seed(int(generator(seed, Stream.STEP, step).integers(2**63)))
    if skip[0]:
        torch.rand(*skip, generator=source, device=device)
    return source


def learning_rate(spec: OptimizerSpec, step: int) -> float:
    """Linear warm-up, then half a cosine (docs/methods.md, A²-MAE and Scale-MAE).

    Args:
        spec: Peak, end, warm-up and length.
        step: Steps already taken; the rate is that of the next one.
    """
    return warmup_cosine(step, spec.warmup_steps, spec.steps, peak=spec.learning_rate, end=spec.learning_rate_end)


def warmup_cosine(
    step: int, warmup_steps: int, steps: int, *, peak: float = 1.0, end: float = 0.0, divide_first: bool = True
) -> float:
    """Rise linearly to `peak` over the warm-up, then fall along half a cosine to `end`.

    Args:
        step: Steps already taken.
        warmup_steps: Steps of the warm-up.
        steps: Steps in all; after them it stays at `end`.
        peak: Value at the end of the warm-up.
        end: Value at the end.
        divide_first: How the angle is rounded, which decides the last bit and so a model's bytes: pi (done / of) as in
            pretraining, else (pi done) / of as in finetuning.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    of = max(1, steps - warmup_steps)
    done = min(step - warmup_steps, of)
    cosine = 0.5 * (1 + math.cos(math.pi * (done / of) if divide_first else math.pi * done / of))
    return end + (peak - end) * cosine


def make_optimizer(model: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """Make a fused AdamW; biases, norms and single tokens are not decayed.

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
    """Exponential moving average of a model's parameters, updated after every step."""

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
        """Load a saved average.

        Raises:
            KeyError: If a parameter is missing.
        """
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


class NonFiniteLossError(A2maeError, RuntimeError):
    """The loss became NaN or infinite."""
