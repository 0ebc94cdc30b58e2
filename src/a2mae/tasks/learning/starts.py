"""Finetuning from either start: the pretrained encoder, or its random-initialised twin; all else is the same."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch

from a2mae.models.checkpoint import load_encoder, read_config
from a2mae.tasks.device import computing
from a2mae.tasks.learning.checkpoint import Finetuned, FinetuneRun, model_digest, plan_for_model, random_twin
from a2mae.tasks.learning.course import Keeping, Progress
from a2mae.tasks.learning.finetune import finetune, predict
from a2mae.tasks.learning.model import HeadConfig, TaskModel
from a2mae.tasks.parameters import FinetuneParameters, TaskParameters
from a2mae.tasks.samples.inputs import TaskInputs
from a2mae.tasks.samples.task_data import TaskData, TaskDataError
from a2mae.tasks.scoring.scores import main_score

logger = logging.getLogger(__name__)

STARTS = ("pretrained", "random")


def finetune_start(
    options: TaskParameters, data: TaskData, pretrained: Path, start: str, keeping: Keeping | None = None
) -> FinetuneRun:
    """Finetune from the pretrained encoder, or from its random-initialised twin: all else is the same.

    Args:
        options: The task's parameters.
        data: Its samples.
        pretrained: Model directory.
        start: "pretrained" or "random".
        keeping: Where what was stopped goes on; None: it begins again.
    """
    with computing(options.device, options.threads) as device:
        run = _finetune_start(options, data, pretrained, start, device, keeping=keeping)
    if keeping is not None:
        keeping.clear()
    return run


def _finetune_start(
    options: TaskParameters,
    data: TaskData,
    pretrained: Path,
    start: str,
    device: torch.device,
    *,
    keeping: Keeping | None,
) -> FinetuneRun:
    spec = data.spec
    encoder = load_encoder(pretrained)
    plan = plan_for_model(data, options.bands, pretrained, encoder, location=options.location)
    inputs = TaskInputs(data, plan)
    train, val = data.rows("train"), data.rows("val")
    recipe = options.finetune
    if (recipe.lr_grid or recipe.val_checks) and not len(val):
        raise TaskDataError(
            f"{spec.task}: lr_grid and val_checks need a validation split, and {spec.source!r} has none"
        )
    head = HeadConfig(spec.task, options.head, len(spec.class_names), plan.views, plan.bands_per_view, options.fusion)
    head = replace(head, multi_label=spec.multi_label, symmetric=options.symmetric)

    def validated(model: TaskModel) -> float:
        return main_score(data, val, predict(model, inputs, val, batch_size=64, device=device))

    tried: list[tuple[float, TaskModel, FinetuneParameters, list[Progress]]] = []
    rates = recipe.lr_grid or (recipe.lr,)
    for number, lr in enumerate(rates):
        encoder = load_encoder(pretrained)
        if start == "random":
            encoder = random_twin(encoder, options.seed)
        torch.manual_seed(options.seed)  # the head's initial weights: the same for both starts and every rate
        model = TaskModel(encoder, head)
        used = recipe.model_copy(update={"lr": lr})
        kept = None
        if keeping is not None:
            decided = [start, used.model_dump(mode="json"), head.to_dict(), plan.to_dict(), options.seed, data.digest]
            decided += [model_digest(pretrained), str(device), torch.get_num_threads()]
            kept = keeping.course(f"rate-{number}", decided, to_the_end=len(rates) > 1)
        history = finetune(
            model, inputs, train, used,
            seed=options.seed, device=device, name=f"{spec.task} from {start}", validate=validated, kept=kept,
        )  # fmt: skip
        score = validated(model) if len(rates) > 1 else 0.0
        if len(rates) > 1:
            logger.info("%s from %s, rate %g: %.4f on validation", spec.task, start, lr, score)
        tried.append((score, model, used, history))
    _, model, used, history = max(tried, key=lambda one: one[0])
    finetuned = Finetuned(model, plan, spec, tuple(history))
    return FinetuneRun(finetuned, read_config(pretrained), start, used.model_dump(mode="json"))
