"""How encoders are judged: frozen by kNN and probe, finetuned on a task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from a2mae.models.checkpoint import load_encoder
from a2mae.tasks.datasets.inputs import TaskInputs
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.evaluation.features import EncoderFeatures, histogram_features, pixel_features
from a2mae.tasks.evaluation.frozen import Candidate, Row, evaluate_frozen
from a2mae.tasks.finetune.finetuned import finetune_start, plan_for_model, random_init
from a2mae.tasks.finetune.train import computing, predict
from a2mae.tasks.metrics.scores import score_row, score_task
from a2mae.tasks.parameters import EvaluateParameters, TaskParameters


@dataclass(frozen=True)
class Contender:
    """One encoder under comparison.

    Attributes:
        name: Of the score table.
        kind: `trained`, `random` (the architecture of the first trained one, fresh weights), `pixels` or `histogram`.
        seed: Of the pretraining.
        settings: JSON of what decides its weights.
    """

    name: str
    kind: str
    seed: int
    settings: str = ""


class Judge(Protocol):
    """One way to score contenders."""

    @property
    def name(self) -> str:
        """For the log."""

    @property
    def settings(self) -> str:
        """JSON of what decides its scores: data and protocol."""

    def judges(self, contender: Contender) -> bool:
        """Whether it can score the contender: a baseline has no encoder to finetune."""

    def score(self, contender: Contender, model: Path) -> Sequence[Row]:
        """Rows of the score table.

        Args:
            contender: Who is judged.
            model: Its model directory; for one without training, a directory with the architecture.
        """


@dataclass(frozen=True)
class FrozenJudge:
    """kNN over relative GSDs in both readings, linear probe.

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
        """What decides the scores."""
        # No part of one judgement, or of it by a rounding alone.
        elsewhere = {"device", "threads", "folder", "format", "folder_samples", "encoders", "others"}
        protocol = self.options.model_dump(mode="json", exclude=elsewhere)
        return json.dumps(["frozen", self.data.digest, protocol], sort_keys=True)

    def judges(self, contender: Contender) -> bool:
        """Every contender."""
        return True

    def score(self, contender: Contender, model: Path) -> Sequence[Row]:
        """Rows of the score table."""
        options = self.options.model_copy(update={"seed": contender.seed})
        with computing(options.device, options.threads) as device:
            return self._score(contender, model, options, device)

    def _score(
        self, contender: Contender, model: Path, options: EvaluateParameters, device: torch.device
    ) -> Sequence[Row]:
        encoder = load_encoder(model)
        if contender.kind == "random":
            encoder = random_init(encoder, contender.seed)
        plan = plan_for_model(self.data, options.bands, model, encoder, location=options.location, group="evaluate")
        candidate = {
            "pixels": Candidate(contender.name, pixel_features),
            "histogram": Candidate(contender.name, histogram_features),
        }.get(contender.kind)
        if candidate is None:
            features = EncoderFeatures(
                encoder.to(device), pool=options.pool, bands_per_view=plan.bands_per_view, precision=options.precision
            )
            candidate = Candidate(contender.name, features, encoder.patch_size)
        return evaluate_frozen(candidate, TaskInputs(self.data, plan), options, device)


@dataclass(frozen=True)
class FinetuneJudge:
    """The whole model trained on a task by its recipe, scored on the test split.

    Attributes:
        data: Of the task.
        options: Head and recipe.
        run: Where a stopped finetuning goes on; None: it begins again.
    """

    data: TaskData
    options: TaskParameters
    run: Path | None = None

    @property
    def name(self) -> str:
        """For the log."""
        return f"{self.options.task} on {self.data.spec.source}"

    @property
    def settings(self) -> str:
        """What decides the scores."""
        recipe = self.options.model_dump(mode="json", exclude={"device", "threads", "data", "map", "pictures"})
        return json.dumps(["finetune", self.data.digest, recipe], sort_keys=True)

    def judges(self, contender: Contender) -> bool:
        """Whoever has an encoder."""
        return contender.kind in ("trained", "random")

    def score(self, contender: Contender, model: Path) -> Sequence[Row]:
        """Rows of the score table."""
        options = self.options.model_copy(update={"seed": contender.seed})
        start = "random" if contender.kind == "random" else "pretrained"
        found = finetune_start(options, self.data, model, start, self.run).finetuned
        rows = self.data.rows("test")
        inputs = TaskInputs(self.data, found.plan)
        with computing(options.device, options.threads) as device:
            prediction = predict(found.model, inputs, rows, batch_size=64, device=device)
        scores = score_task(self.data, rows, prediction, resamples=options.bootstrap, seed=contender.seed)
        return [
            score_row(self.data.spec, contender.name, "finetuned", metric, score, seed=contender.seed)
            for metric, score in scores.scores.items()
        ]
