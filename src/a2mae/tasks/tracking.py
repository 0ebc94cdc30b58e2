"""Weights & Biases as a sink: one run per task with configuration, loss curves, metrics and pictures."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping

from a2mae.privacy import without_places
from a2mae.tasks.checkpoint import Finetuned
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.run import TaskResult
from a2mae.training.tracking import private_settings

logger = logging.getLogger(__name__)

PROJECT = "a2mae"


def track(options: TaskParameters, models: Mapping[str, Finetuned], result: TaskResult) -> None:
    """Log a task's result. Offline unless `WANDB_MODE` says otherwise; nothing at all where that is `disabled`.

    Args:
        options: The task's parameters.
        models: By start; their loss curves are logged.
        result: Scores and pictures.
    """
    mode = os.environ.get("WANDB_MODE", "offline")
    if mode == "disabled":
        return
    if importlib.util.find_spec("wandb") is None:
        logger.warning("wandb is not installed: the %s run is in its metrics file only", options.task)
        return
    import wandb  # noqa: PLC0415 (optional, and slow to import)

    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    run = wandb.init(
        project=PROJECT,
        name=options.task,
        job_type=options.task,
        dir=os.environ.get("WANDB_DIR"),  # wandb remembers the first it saw in a process
        config=without_places(options.model_dump(mode="json")),  # type: ignore[arg-type]
        mode=mode,  # type: ignore[arg-type]  # wandb itself names the modes that it knows
        settings=private_settings(),
    )
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
    run.finish()
