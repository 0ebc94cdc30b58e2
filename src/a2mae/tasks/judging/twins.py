"""What a task's two models are worth: the pretrained one, and its random-initialised twin."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from a2mae.tasks.device import computing
from a2mae.tasks.learning.checkpoint import Finetuned
from a2mae.tasks.learning.finetune import predict
from a2mae.tasks.learning.starts import STARTS
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.samples.inputs import TaskInputs
from a2mae.tasks.samples.task_data import TaskData
from a2mae.tasks.scoring.pictures import PictureArrays, pictures
from a2mae.tasks.scoring.scores import TaskScores, flat_scores, gain, score_task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskResult:
    """What a task's two models are worth.

    Attributes:
        metrics: JSON-ready: what was scored, then `pretrained` and `random` with flat scores, and the `gain` of the
            first over the second, paired over places.
        pictures: Test samples with the pretrained model's answer.
        confusion: JSON-ready counts of the pretrained model, truth by rows.
    """

    metrics: dict[str, object]
    pictures: PictureArrays
    confusion: dict[str, object]


def score_both(options: TaskParameters, data: TaskData, models: Mapping[str, Finetuned]) -> TaskResult:
    """Score both models on the test split, as they were saved.

    Args:
        options: The task's parameters.
        data: Its samples.
        models: By start.
    """
    with computing(options.device, options.threads) as device:
        return _score_both(options, data, models, device)


def _score_both(
    options: TaskParameters, data: TaskData, models: Mapping[str, Finetuned], device: torch.device
) -> TaskResult:
    spec = data.spec
    rows = data.rows("test")
    scores: dict[str, TaskScores] = {}
    shown: PictureArrays = {}
    for start in STARTS:
        found = models[start]
        prediction = predict(found.model, TaskInputs(data, found.plan), rows, batch_size=64, device=device)
        scores[start] = score_task(data, rows, prediction, resamples=options.bootstrap, seed=options.seed)
        if start == "pretrained":
            shown = pictures(data, rows, prediction, count=options.pictures, seed=options.seed)
    main = next(iter(scores["pretrained"].scores))
    first, twin = scores["pretrained"].scores[main], scores["random"].scores[main]
    gains = gain(scores["pretrained"], scores["random"])
    logger.info(
        "%s: %s %.3f (%.3f-%.3f) from pretrained, %.3f (%.3f-%.3f) from random, difference %+.3f (%+.3f to %+.3f),"
        " %d test samples of %d places",
        spec.task, main, first.value, first.low, first.high, twin.value, twin.low, twin.high,
        gains[main].value, gains[main].low, gains[main].high, first.n, first.groups,
    )  # fmt: skip
    metrics: dict[str, object] = {
        "task": spec.task.value,
        "data": spec.source,
        "gsd_m": spec.gsd_m,
        "train_samples": len(data.rows("train")),
        "rules": list(spec.notes),
        **{start: scores[start].to_dict() for start in STARTS},
        "gain": flat_scores(gains),
    }
    confusion = {
        "class_names": list(spec.class_names),
        "multi_label": spec.multi_label,
        **{start: scores[start].confusion.tolist() for start in STARTS},
    }
    return TaskResult(metrics, shown, confusion)
