"""Weights & Biases as a sink: one run per task with configuration, loss curves, metrics and pictures."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping

from a2mae.tasks.judging.twins import TaskResult
from a2mae.tasks.learning.checkpoint import Finetuned
from a2mae.tasks.parameters import TaskParameters
from a2mae.tracking import mode, open_run, running

logger = logging.getLogger(__name__)


def track(options: TaskParameters, models: Mapping[str, Finetuned], result: TaskResult) -> None:
    """Log a task's result. Offline unless `WANDB_MODE` says otherwise; nothing at all where that is `disabled`.

    Args:
        options: The task's parameters.
        models: By start; their loss curves are logged.
        result: Scores and pictures.
    """
    if mode() == "disabled":
        return
    if importlib.util.find_spec("wandb") is None:
        logger.warning("wandb is not installed: the %s run is in its metrics file only", options.task)
        return
    import wandb  # noqa: PLC0415 (optional, and slow to import)

    stage = running(options.task)
    run = stage or open_run(options.task, options.model_dump(mode="json"))
    for moments in zip(*(models[start].history for start in models), strict=True):
        row = {f"{start}/loss": moment.loss for start, moment in zip(models, moments, strict=True)}
        run.log({**row, "lr": moments[0].lr}, step=moments[0].step)
    names = [name for name in result.pictures if name.startswith("image")]
    if names and len(result.pictures["truth"]):
        run.log({name: [wandb.Image(picture) for picture in result.pictures[name]] for name in names})
    for start in models:
        scores = result.metrics[start]
        assert isinstance(scores, dict)
        run.summary.update({f"{start}/{name}": value for name, value in scores.items() if isinstance(value, float)})
    if stage is None:
        run.finish()
