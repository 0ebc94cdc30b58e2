"""How a contender is scored: frozen by kNN and probe, or finetuned on a task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch

from a2mae.models.checkpoint import load_encoder
from a2mae.tasks.datasets.inputs import TaskInputs
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.evaluation.evaluate import frozen_protocol, frozen_rows
from a2mae.tasks.evaluation.frozen import Row
from a2mae.tasks.finetune.baseline import convolution_baseline, linear_head
from a2mae.tasks.finetune.finetuned import finetune_start
from a2mae.tasks.finetune.model import TaskModel
from a2mae.tasks.finetune.train import computing, predict
from a2mae.tasks.metrics.scores import score_row, score_task
from a2mae.tasks.parameters import EvaluateParameters, TaskParameters


@dataclass(frozen=True)
class Contender:
    """One encoder under comparison.

    Attributes:
        name: Of the score table.
        kind: `trained`, `random` (fresh weights), or a baseline of `evaluate.encoders` without an encoder.
        seed: Of the pretraining.
        settings: JSON of what decides its weights.
        like: Of an untrained one: name of the trained one whose architecture, stem and normalisation it takes.
        twin: Of a trained one: name of the untrained one that is like it.
    """

    name: str
    kind: str
    seed: int
    settings: str = ""
    like: str = ""
    twin: str = ""


class Judge(Protocol):
    """One way to score contenders."""

    @property
    def name(self) -> str:
        """For the log."""

    @property
    def settings(self) -> str:
        """JSON of what decides its scores: data and protocol."""

    def judges(self, contender: Contender) -> bool:
        """Tell whether it can score the contender: a baseline has no encoder to finetune."""

    def score(self, contender: Contender, model: Path) -> Sequence[Row]:
        """Make the contender's rows of the score table.

        Args:
            contender: Who is scored.
            model: Its model directory; for one without training, a directory with the architecture.
        """


@dataclass(frozen=True)
class FrozenJudge:
    """Scores frozen encoders by kNN over relative GSDs in both readings and by linear probe.

    Attributes:
        data: Classification data.
        options: Protocols.
    """

    data: TaskData
    options: EvaluateParameters

    @property
    def name(self) -> str:
        """For the log."""
        return f"frozen on {self.data.spec.source}"

    @property
    def settings(self) -> str:
        """JSON of what decides the scores."""
        return frozen_protocol(self.data, self.options)

    def judges(self, contender: Contender) -> bool:
        """Accept every contender."""
        return True

    def score(self, contender: Contender, model: Path) -> Sequence[Row]:
        """Make the contender's rows of the score table."""
        options = self.options.model_copy(update={"seed": contender.seed})
        return frozen_rows(contender.name, contender.kind, model, self.data, options)


@dataclass(frozen=True)
class FinetuneJudge:
    """Finetunes the whole model on a task by its recipe and scores it on the test split.

    Attributes:
        data: Of the task.
        options: Head and recipe.
        run: Where a stopped finetuning goes on; None: it begins again.
    """

    data: TaskData
    options: TaskParameters
    run: Path | None = None

    @property
    def mode(self) -> str:
        """As the score table names it."""
        return "finetuned"

    @property
    def name(self) -> str:
        """For the log."""
        return f"{self.options.task} {self.mode} on {self.data.spec.source}"

    @property
    def settings(self) -> str:
        """JSON of what decides the scores."""
        recipe = self.options.model_dump(mode="json", exclude={"device", "threads", "data", "map", "pictures"})
        return json.dumps([self.mode, self.data.digest, recipe], sort_keys=True)

    def judges(self, contender: Contender) -> bool:
        """Accept whoever has an encoder."""
        return contender.kind in ("trained", "random")

    def score(self, contender: Contender, model: Path) -> Sequence[Row]:
        """Make the contender's rows of the score table."""
        options = self.options.model_copy(update={"seed": contender.seed})
        rows = self.data.rows("test")
        with computing(options.device, options.threads) as device:
            trained, inputs = self._trained(contender, model, options, device)
            prediction = predict(trained, inputs, rows, batch_size=64, device=device)
        scores = score_task(self.data, rows, prediction, resamples=options.bootstrap, seed=contender.seed)
        return [
            score_row(
                self.data.spec,
                contender.name,
                self.mode,
                metric,
                score,
                seed=contender.seed,
                drawn=scores.drawn[metric],
            )
            for metric, score in scores.scores.items()
        ]

    def _trained(
        self, contender: Contender, model: Path, options: TaskParameters, device: torch.device
    ) -> tuple[TaskModel, TaskInputs]:
        start = "random" if contender.kind == "random" else "pretrained"
        found = finetune_start(options, self.data, model, start, self.run).finetuned
        return found.model, TaskInputs(self.data, found.plan)


@dataclass(frozen=True)
class FrozenTaskJudge(FinetuneJudge):
    """Trains one linear layer on a frozen encoder, or on random convolution features, and scores it on the test split.

    Attributes:
        head: `linear`: on the tokens; `rcf`: on the tokens and their patch's random convolution features.
    """

    head: Literal["linear", "rcf"] = "linear"

    @property
    def mode(self) -> str:
        """As the score table names it."""
        return "frozen" if self.head == "linear" else "frozen_rcf"

    def judges(self, contender: Contender) -> bool:
        """Accept whoever has a map of features; the features alone have the same score beside either head."""
        return contender.kind in ("trained", "random", "rcf")

    def _trained(
        self, contender: Contender, model: Path, options: TaskParameters, device: torch.device
    ) -> tuple[TaskModel, TaskInputs]:
        options = options.model_copy(update={"head": self.head, "finetune": linear_head(options.finetune)})
        if contender.kind == "rcf":
            return convolution_baseline(options, self.data, load_encoder(model).patch_size, device)
        return super()._trained(contender, model, options, device)
