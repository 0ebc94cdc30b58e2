"""What a frozen encoder gives for the training samples, computed once for each of their symmetries."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from a2mae.tasks.datasets.inputs import TaskInputs
from a2mae.tasks.finetune.model import Symmetry, TaskModel, flipped, symmetries
from a2mae.tasks.finetune.sets import Encoded
from a2mae.tasks.parameters import FinetuneParameters

MOST_BYTES = 2 << 30
"""Kept of the samples of one training, at most."""


class RememberedSamples:
    """Encoded training samples of a model whose encoder does not learn.

    A head is trained for many steps on few labels, so the same sample meets the encoder again and again. Samples are
    encoded in batches of their own, whatever the steps draw: a stopped training that goes on finds the same numbers.
    """

    def __init__(
        self, model: TaskModel, inputs: TaskInputs, rows: npt.NDArray[np.int64], batch_size: int, device: torch.device
    ) -> None:
        """Prepare; encoding begins with the first samples asked for.

        Args:
            model: On its device, its encoder in evaluation mode.
            inputs: Where batches come from.
            rows: Training rows.
            batch_size: Samples that are encoded at once.
            device: Where the model is.
        """
        self._model, self._inputs, self._rows, self._device = model, inputs, np.sort(rows), device
        self._batch_size = batch_size
        self._of_symmetry: dict[Symmetry | None, Encoded] = {}

    def encoded(self, chosen: npt.NDArray[np.int64], symmetry: Symmetry | None) -> Encoded:
        """Give what the encoder makes of samples, flipped and turned by a symmetry.

        Args:
            chosen: Rows of the data.
            symmetry: As drawn; None: as they are.
        """
        if symmetry not in self._of_symmetry:
            starts = range(0, len(self._rows), self._batch_size)
            parts = [self.encode(self._rows[start : start + self._batch_size], symmetry) for start in starts]
            self._of_symmetry[symmetry] = Encoded.joined(parts)
        positions = torch.from_numpy(np.searchsorted(self._rows, chosen)).to(self._device)
        return self._of_symmetry[symmetry].take(positions)

    @torch.no_grad()
    def encode(self, rows: npt.NDArray[np.int64], symmetry: Symmetry | None) -> Encoded:
        """Encode samples, and keep nothing."""
        batch = self._inputs.batch(rows).to(self._device)
        if symmetry is not None:
            batch = flipped(batch, symmetry, pixels=self._model.config.per_pixel)
        return self._model.encode(batch)


def remember(
    model: TaskModel,
    inputs: TaskInputs,
    rows: npt.NDArray[np.int64],
    recipe: FinetuneParameters,
    device: torch.device,
) -> RememberedSamples | None:
    """Keep encoded samples where that saves work: the encoder stays, and samples are drawn more often than there are.

    Args:
        model: On the device, its encoder in evaluation mode if it is not trained.
        inputs: Where batches come from.
        rows: Training rows.
        recipe: Steps, and whether samples are flipped and turned.
        device: Where the model is.

    Returns:
        None where the encoder learns, where it would encode more than without, or what it gives exceeds `MOST_BYTES`.
    """
    size = inputs.data.image_shape[-2:]
    count = len(rows) * (len(symmetries(*size)) if recipe.augment else 1)
    if recipe.mode != "frozen" or recipe.steps * recipe.batch_size <= count:
        return None
    found = RememberedSamples(model, inputs, rows, recipe.batch_size, device)
    bytes_each = sum(values.nbytes for values in found.encode(rows[:1], None).tensors)
    return found if count * bytes_each <= MOST_BYTES else None
