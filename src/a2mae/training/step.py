"""One training step's forward as a module: what DDP, FSDP and `torch.compile` wrap."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from a2mae.models import ImageSetBatch, Pretrainer, loss_by_group
from a2mae.training.reading.draw import Stream, generator

FIELDS = tuple(field.name for field in dataclasses.fields(ImageSetBatch))


@dataclass(frozen=True)
class StepTotals:
    """Sums over a batch that add up over micro-batches and processes.

    Attributes:
        weight: Scalar, scored values (pixels times bands) behind the loss.
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
        """All of them in one vector, for one reduction over processes."""
        return torch.cat([self.weight[None], self.loss[None], self.group_loss.flatten(), self.group_weight.flatten()])

    @classmethod
    def from_flat(cls, vector: Tensor, sensors: int) -> StepTotals:
        """The inverse of `flat`."""
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
        self, *tensors: Tensor, generator: torch.Generator | None = None, fully_valid: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, its weight, and both per source and mask group.

        Args:
            *tensors: The fields of an `ImageSetBatch` in order: wrappers hand tensors on, not dataclasses.
            generator: What masks are drawn from.
            fully_valid: True if every pixel is valid.

        Returns:
            `loss` with its graph; `weight`, `group_loss`, `group_weight` without.
        """
        batch = ImageSetBatch(**dict(zip(FIELDS, tensors, strict=True)))
        # In fp32 whatever the autocast: the models compute their losses so (METHOD section 4).
        output = self.model(batch, generator=generator, fully_valid=fully_valid or None)
        group_loss, group_weight = loss_by_group(output, batch.sensor_id, batch.same_source_as_anchor, self._sensors)
        return output.loss, output.token_weight.sum(), group_loss, group_weight


def batch_tensors(batch: ImageSetBatch) -> tuple[Tensor, ...]:
    """The batch's fields in the order that `TrainStep` takes them."""
    return tuple(getattr(batch, name) for name in FIELDS)


def step_generator(seed: int, step: int, device: torch.device, skip: tuple[int, int, int]) -> torch.Generator:
    """What a process draws its masks from in one step.

    The masks of a global batch are one stream; a process skips those of the processes before it, so that the masks do
    not depend on how many processes share the batch (exactly on the CPU, whose generator has no parallel streams).

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
