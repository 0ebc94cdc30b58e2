"""Checkpoints of a finetuning: how far it is, its loss, and the state that scored best on validation.

Samples and flips follow from the seed and the number of the step (`train.py` draws them anew up to where it goes on);
the random numbers of the layers are kept with the weights. So a stopped finetuning ends with the bytes that it would
have had.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from a2mae.provenance.code import code_digest
from a2mae.tasks.finetune.model import TaskModel
from a2mae.training.checkpoints import Checkpoint, Checkpoints, Fact, capture, restore

logger = logging.getLogger(__name__)

EVERY_S = 60.0
"""Seconds between two checkpoints: what a stop costs at most."""
_COLUMNS = ("step", "loss", "lr")


@dataclass(frozen=True)
class Progress:
    """One logged moment.

    Attributes:
        step: Steps done.
        loss: Mean since the last one.
        lr: Largest learning rate of the groups.
    """

    step: int
    loss: float
    lr: float


@dataclass(frozen=True)
class BestState:
    """The weights that scored best on validation; the earlier ones where two are equal.

    Attributes:
        score: On validation, higher is better.
        step: Steps done.
        weights: Of the model.
    """

    score: float
    step: int
    weights: dict[str, Tensor]


@dataclass
class FinetuneState:
    """How far a finetuning is.

    Attributes:
        step: Steps done.
        history: The loss.
        best: None as long as validation was not scored.
    """

    step: int = 0
    history: list[Progress] = field(default_factory=list)
    best: BestState | None = None

    def keep_if_best(self, model: TaskModel, score: float) -> None:
        """Remember the model's weights if none before scored as high.

        Args:
            model: As it is now.
            score: On validation.
        """
        if self.best is None or score > self.best.score:
            weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
            self.best = BestState(score, self.step, weights)

    def restore_best(self, model: TaskModel) -> None:
        """Give the model its best weights back, if validation was scored."""
        if self.best is not None:
            model.load_state_dict(self.best.weights)
            logger.info("kept the state of step %d: %.4f on validation", self.best.step, self.best.score)


@cache
def training_code() -> str:
    """Return the digest of the code that finetunes: a checkpoint of other code is not gone on with."""
    return code_digest(__package__)


def identity_of_checkpoint(folder: Path) -> str:
    """Return the identity of the finetuning whose checkpoint lies in a folder; empty where none does."""
    found = Checkpoints(folder, keep=1).latest()
    return "" if found is None else str(found.facts.get("identity", ""))


class FinetuneCheckpoint:
    """The newest checkpoint of one finetuning, in a folder of its own."""

    def __init__(self, folder: Path, identity: str, *, every_s: float = EVERY_S, keep_last: bool = True) -> None:
        """Look after a folder.

        Args:
            folder: Of this finetuning alone.
            identity: Of everything that decides its result; what another left is not gone on with.
            every_s: Seconds between two checkpoints.
            keep_last: Also write one at the end, because others follow before the result is saved.
        """
        self._checkpoints, self._identity = Checkpoints(folder, keep=1), identity
        self._every_s, self._keep_last = every_s, keep_last
        self._written_at = time.monotonic()

    def due(self, *, last: bool) -> bool:
        """Say whether it is time for a checkpoint.

        Args:
            last: All steps are done.
        """
        return self._keep_last if last else time.monotonic() - self._written_at >= self._every_s

    def resume(self, model: TaskModel, optimizer: torch.optim.Optimizer) -> FinetuneState:
        """Put the newest checkpoint back, if there is one; else the finetuning is at its beginning.

        Args:
            model: As built; filled.
            optimizer: As built; filled.
        """
        found = self._checkpoints.latest()
        if found is None or found.facts.get("identity") != self._identity:
            return FinetuneState()
        tensors = found.tensors
        restore(tensors, model, optimizer, None)
        torch.set_rng_state(tensors["chance"]["cpu"])
        if "cuda" in tensors["chance"]:
            torch.cuda.set_rng_state(tensors["chance"]["cuda"])
        columns = (tensors["history"][name].tolist() for name in _COLUMNS)
        history = [Progress(int(step), loss, lr) for step, loss, lr in zip(*columns, strict=True)]
        best = None
        if "best" in tensors:
            score, step = found.facts["best_score"], found.facts["best_step"]
            assert isinstance(score, float) and isinstance(step, int)
            best = BestState(score, step, dict(tensors["best"]))
        return FinetuneState(found.step, history, best)

    def save(self, state: FinetuneState, model: TaskModel, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint; the one before goes.

        Args:
            state: How far the finetuning is.
            model: With its weights.
            optimizer: With its moments.

        Raises:
            CheckpointWriteError: If it cannot be written, for example because the disk is full.
        """
        tensors = capture(model, optimizer, None)
        tensors["chance"] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["chance"]["cuda"] = torch.cuda.get_rng_state()
        tensors["history"] = {
            name: torch.tensor([getattr(moment, name) for moment in state.history], dtype=torch.float64)
            for name in _COLUMNS
        }
        facts: dict[str, Fact] = {"identity": self._identity}
        if state.best is not None:
            tensors["best"] = state.best.weights
            facts |= {"best_score": state.best.score, "best_step": state.best.step}
        self._checkpoints.save(Checkpoint(state.step, tensors, facts))
        self._written_at = time.monotonic()
