"""The course of a finetuning: its loss, and the state that validation liked best; kept, so that it can be gone on with.

Samples and flips follow from the seed and the step's number (`finetune.py` draws them anew up to where it goes on); the
layers' own chance is kept with the weights. So a stopped finetuning ends with the bytes that it would have had.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from a2mae.provenance.code import code_digest
from a2mae.provenance.record import digest_of
from a2mae.tasks.finetune.model import TaskModel
from a2mae.training.checkpoints import Checkpoint, Checkpoints, capture, restore
from a2mae.training.strict_json import Scalar

logger = logging.getLogger(__name__)

EVERY_S = 60.0
"""Between two states on disk: what a stop costs at most."""


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


_MOMENT = ("step", "loss", "lr")


@dataclass(frozen=True)
class Best:
    """The state that validation liked best; the earlier one where two are equal.

    Attributes:
        score: On validation, higher is better.
        step: Steps done.
        state: Of the model.
    """

    score: float
    step: int
    state: dict[str, Tensor]


@dataclass
class Course:
    """What has been so far.

    Attributes:
        step: Steps done.
        history: The loss.
        best: None as long as validation was not asked.
    """

    step: int = 0
    history: list[Progress] = field(default_factory=list)
    best: Best | None = None

    def look(self, model: TaskModel, score: float) -> None:
        """Remember the model's state if it is the best so far."""
        if self.best is None or score > self.best.score:
            state = {name: value.detach().clone() for name, value in model.state_dict().items()}
            self.best = Best(score, self.step, state)

    def leave_best(self, model: TaskModel) -> None:
        """Give the model its best state back, if validation was asked."""
        if self.best is not None:
            model.load_state_dict(self.best.state)
            logger.info("kept the state of step %d: %.4f on validation", self.best.step, self.best.score)


@dataclass(frozen=True)
class Keeping:
    """Where finetunings keep their courses.

    Attributes:
        folder: Each has a folder of its own in it.
        code: Digest of the code that trains: the course of other code is not gone on with.
    """

    folder: Path
    code: str

    def course(self, name: str, decided_by: Sequence[object], *, to_the_end: bool = True) -> KeptCourse:
        """Where one finetuning keeps its course.

        Args:
            name: Of its folder; a new one of this name takes the place of an unfinished one.
            decided_by: Plain values: all that its result depends on, except code.
            to_the_end: Others follow before the result is saved: its last state is kept, too.
        """
        return KeptCourse(self.folder / name, digest_of([self.code, *decided_by]), to_the_end=to_the_end)

    def clear(self) -> None:
        """Remove all courses: what they led to is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


def keeping_courses(run: Path) -> Keeping:
    """Keep courses in a run directory, under the digest of the code as it is now."""
    return Keeping(run / "courses", _code())


@cache
def _code() -> str:
    """Of what this process has imported, or will: once for all of its finetunings."""
    return code_digest(__package__, Path(__file__).parents[3])


class KeptCourse:
    """The course of one finetuning on disk."""

    def __init__(self, folder: Path, identity: str, *, every_s: float = EVERY_S, to_the_end: bool = True) -> None:
        """Look after a folder.

        Args:
            folder: Of this finetuning alone.
            identity: Of everything that decides its result; what another left is not gone on with.
            every_s: Between two states, seconds.
            to_the_end: The last state is kept.
        """
        self._checkpoints, self._identity = Checkpoints(folder, keep=1), identity
        self._every_s, self._to_the_end = every_s, to_the_end
        self._kept_at = time.monotonic()

    def due(self, *, last: bool) -> bool:
        """Whether it is time to keep the state.

        Args:
            last: All steps are done.
        """
        return self._to_the_end if last else time.monotonic() - self._kept_at >= self._every_s

    def resume(self, model: TaskModel, optimiser: torch.optim.Optimizer) -> Course:
        """Put the newest state back, if there is one; else the course is at its beginning.

        Args:
            model: As built; filled.
            optimiser: As built; filled.
        """
        found = self._checkpoints.latest()
        if found is None or found.facts.get("identity") != self._identity:
            return Course()
        tensors = found.tensors
        restore(tensors, model, optimiser, None)
        torch.set_rng_state(tensors["chance"]["cpu"])
        if "cuda" in tensors["chance"]:
            torch.cuda.set_rng_state(tensors["chance"]["cuda"])
        steps, losses, rates = (tensors["history"][name].tolist() for name in _MOMENT)
        history = [Progress(int(step), loss, lr) for step, loss, lr in zip(steps, losses, rates, strict=True)]
        best = None
        if "best" in tensors:
            score, step = found.facts["best_score"], found.facts["best_step"]
            assert isinstance(score, float) and isinstance(step, int)
            best = Best(score, step, dict(tensors["best"]))
        return Course(found.step, history, best)

    def keep(self, course: Course, model: TaskModel, optimiser: torch.optim.Optimizer) -> None:
        """Write the state; the one before goes.

        Raises:
            CheckpointError: If it cannot be written, for example because the disk is full.
        """
        tensors = capture(model, optimiser, None)
        tensors["chance"] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["chance"]["cuda"] = torch.cuda.get_rng_state()
        tensors["history"] = {
            name: torch.tensor([getattr(moment, name) for moment in course.history], dtype=torch.float64)
            for name in _MOMENT
        }
        facts: dict[str, Scalar] = {"identity": self._identity}
        if course.best is not None:
            tensors["best"] = course.best.state
            facts |= {"best_score": course.best.score, "best_step": course.best.step}
        self._checkpoints.save(Checkpoint(course.step, tensors, facts))
        self._kept_at = time.monotonic()
