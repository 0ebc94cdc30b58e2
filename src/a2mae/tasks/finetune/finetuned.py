"""Finetune from either start, and keep the result as a model directory whose encoder `a2mae.load_encoder` reads.

The starts are the pretrained encoder and the *random_init* baseline: the same architecture with random weights, all
else the same.
"""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from a2mae.config import read_back
from a2mae.errors import InputError
from a2mae.files import digest_of, whole_folder, write_json
from a2mae.models.checkpoint import CONFIG_FILE, Json, load_built, read_config, read_json, save_weights
from a2mae.models.precision import precision_kept
from a2mae.models.released import CheckpointError
from a2mae.tasks.datasets.inputs import InputPlan, TaskInputs
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError, TaskSpec
from a2mae.tasks.finetune.baseline import FITTED_IMAGES, drawn_features
from a2mae.tasks.finetune.calibration import calibrate
from a2mae.tasks.finetune.checkpoints import FinetuneCheckpoint, Progress, identity_of_checkpoint, training_code
from a2mae.tasks.finetune.encoders import encoder_of_task, load_start, pretrained_here, random_init
from a2mae.tasks.finetune.heads import RCFDecoder, RCFHead
from a2mae.tasks.finetune.model import HeadConfig, TaskModel
from a2mae.tasks.finetune.train import computing, finetune, head_for, predict
from a2mae.tasks.metrics.scores import main_score
from a2mae.tasks.parameters import FinetuneParameters, TaskParameters

logger = logging.getLogger(__name__)

STARTS = ("pretrained", "random")
"""The pretrained encoder and the random_init baseline, as files and the score table name them."""


@dataclass(frozen=True)
class Finetuned:
    """A task model with what it needs to meet pixels.

    Attributes:
        model: In evaluation mode.
        plan: Bands and normalisation of its inputs.
        spec: The data set that it was trained on: classes, colours, GSD.
        history: The loss over its training.
        origin: Which weights its encoder started from, where the parameters name others than this run's: file, SHA-256,
            licence, what was adapted.
        folder: Directory that it was read from; None: of a model that was not saved.
    """

    model: TaskModel
    plan: InputPlan
    spec: TaskSpec
    history: Sequence[Progress] = ()
    origin: Mapping[str, Json] | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class FinetuneRun:
    """A finetuned model on its way to disk.

    Attributes:
        finetuned: The model with its inputs and data.
        encoder_config: `config.json` of the model directory that the encoder came from, or what such a one would say.
        start: One of `STARTS`.
        recipe: How it was trained.
    """

    finetuned: Finetuned
    encoder_config: Mapping[str, Any]
    start: str
    recipe: Mapping[str, object]


def save_task_model(directory: Path, run: FinetuneRun) -> None:
    """Write a finetuned model directory: `model.safetensors`, `config.json`, `metrics.json` (the loss curve)."""
    task = {
        "start": run.start,
        "head": run.finetuned.model.config.to_dict(),
        "inputs": run.finetuned.plan.to_dict(),
        "data": run.finetuned.spec.to_dict(),
        "recipe": dict(run.recipe),
        "origin": run.finetuned.origin,
    }
    with whole_folder(directory) as partial:
        save_weights(run.finetuned.model, partial / "model.safetensors")
        write_json(partial / "metrics.json", {"history": [asdict(moment) for moment in run.finetuned.history]})
        write_json(partial / "config.json", {**run.encoder_config, "task": task})


def load_task_model(directory: Path) -> Finetuned:
    """Read a finetuned model back, in evaluation mode.

    Raises:
        CheckpointError: If the directory is no finetuned model or its tensors do not fit.
    """
    task = read_config(directory).get("task")
    where = f"{directory / CONFIG_FILE}: task"
    if task is None:
        raise CheckpointError(f"{directory} is a pretrained model without a task's head: finetune it first")
    if not isinstance(task, dict) or not {"head", "inputs", "data", "origin"} <= task.keys():
        raise CheckpointError(f"{where} must be an object with head, inputs, data and origin")
    metrics = read_json(directory / "metrics.json")
    if not isinstance(metrics, dict) or not isinstance(moments := metrics.get("history"), list):
        raise CheckpointError(f"{directory / 'metrics.json'} must be an object with a list history")
    try:
        head = read_back(HeadConfig, task["head"], f"{where}.head")
        plan = read_back(InputPlan, task["inputs"], f"{where}.inputs")
        spec = read_back(TaskSpec, task["data"], f"{where}.data")
        history = [read_back(Progress, one, f"{directory / 'metrics.json'}: history") for one in moments]
        _check_together(head, plan, spec, where)
    except InputError as error:
        raise CheckpointError(f"{error}: train it again, or ask whoever made it") from error
    model = load_built(lambda: TaskModel(encoder_of_task(directory), head), directory)
    origin = task["origin"]
    if origin is not None and not isinstance(origin, dict):
        raise CheckpointError(f"{where}.origin must be an object or null, found {type(origin).__name__}")
    return Finetuned(model.eval(), plan, spec, history, origin, directory)


def _check_together(head: HeadConfig, plan: InputPlan, spec: TaskSpec, where: str) -> None:
    """Refuse a head that does not answer what the data has, or does not see what the plan gives it."""
    if unknown := sorted(set(plan.bands) - set(spec.band_names)):
        raise InputError(f"{where}: the inputs are of a band {unknown[0]!r:.80}, and the data has {spec.band_names}")
    classes = 1 if spec.quantity is not None else len(spec.class_names)
    found = (head.task, head.classes, head.views, head.bands_per_view)
    expected = (spec.task, classes, plan.views, plan.bands_per_view)
    if found != expected:
        raise InputError(
            f"{where}: the head is of {found[0]}, {found[1]} classes and {found[2]} views of {found[3]} bands, and its"
            f" data and inputs of {expected[0]}, {expected[1]} classes and {expected[2]} views of {expected[3]} bands"
        )


def finetune_start(
    options: TaskParameters, data: TaskData, pretrained: Path | None, start: str, run: Path | None = None
) -> FinetuneRun:
    """Finetune from the pretrained encoder, or from its random_init baseline: all else is the same.

    Args:
        options: The task's parameters; with `start` they name the encoder.
        data: Its samples.
        pretrained: Model directory, where they name none.
        start: One of `STARTS`.
        run: Folder where a stopped finetuning goes on; emptied when it is finished. None: it begins again.

    Returns:
        The model of the learning rate that scored best on validation, with its record.

    Raises:
        TaskDataError: If the recipe needs a validation split and the data has none.
        CheckpointError: If the encoder cannot be loaded.
    """
    checkpoints = None if run is None else run / "checkpoints"
    with computing(options.device, options.threads) as device:
        finetuned = _finetune_start(options, data, pretrained, start, device=device, checkpoints=checkpoints)
    if checkpoints is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return finetuned


def _finetune_start(
    options: TaskParameters,
    data: TaskData,
    pretrained: Path | None,
    start: str,
    *,
    device: torch.device,
    checkpoints: Path | None,
) -> FinetuneRun:
    spec = data.spec
    named = options.start
    if named is None:
        assert pretrained is not None, "a pretrained model is an input of tasks that name no other"
        named = pretrained_here(pretrained)
    loaded = load_start(named, data, options.bands, location=options.location)
    plan = loaded.plan
    inputs = TaskInputs(data, plan)
    train, val = data.rows("train"), data.rows("val")
    recipe = options.finetune
    rates = recipe.lr_grid or (recipe.lr,)
    if (recipe.lr_grid or recipe.val_checks) and not len(val):
        raise TaskDataError(
            f"{spec.task}: lr_grid and val_checks need a validation split, and {spec.source!r} has none"
        )
    head = replace(head_for(data, plan, options, options.head), symmetric=options.symmetric)

    def validated(model: TaskModel) -> float:
        return main_score(data, val, predict(model, inputs, val, batch_size=64, device=device))

    def identity(used: FinetuneParameters) -> str:
        decided = [start, used.model_dump(mode="json"), head.to_dict(), plan.to_dict(), options.seed, data.digest]
        return digest_of([*decided, training_code(), loaded.digest, str(device), torch.get_num_threads()])

    if recipe.precision == "auto":
        # The checkpoint of the first rate stays to the end.
        begun = "" if checkpoints is None else identity_of_checkpoint(_rate_folder(checkpoints, 0))
        first = recipe.model_copy(update={"lr": rates[0]})
        kept = precision_kept(lambda one: identity(first.model_copy(update={"precision": one})), begun, device)
        recipe = recipe.model_copy(update={"precision": kept})
    features = None
    if options.head == "rcf":
        patch_size = loaded.encoder.patch_size if head.per_pixel else None
        features = drawn_features(inputs, options.seed, most=FITTED_IMAGES, patch_size=patch_size)
    tried: list[tuple[float, TaskModel, FinetuneParameters, list[Progress]]] = []
    for number, lr in enumerate(rates):
        encoder = random_init(loaded.encoder, options.seed) if start == "random" else copy.deepcopy(loaded.encoder)
        torch.manual_seed(options.seed)  # the head's initial weights: the same for both starts and every rate
        model = TaskModel(encoder, head)
        if features is not None:
            for part in model.children():
                if isinstance(part, (RCFHead, RCFDecoder)):
                    part.rcf.load_state_dict(features.state_dict())
        used = recipe.model_copy(update={"lr": lr})
        checkpoint = None
        if checkpoints is not None:
            folder = _rate_folder(checkpoints, number)
            checkpoint = FinetuneCheckpoint(folder, identity(used), keep_last=len(rates) > 1)
        history = finetune(
            model, inputs, train, used,
            seed=options.seed, device=device, name=f"{spec.task} from {start}", validate=validated,
            checkpoint=checkpoint,
        )  # fmt: skip
        score = validated(model) if len(rates) > 1 else 0.0
        if len(rates) > 1:
            logger.info("%s from %s, rate %g: %.4f on validation", spec.task, start, lr, score)
        tried.append((score, model, used, history))
    _, model, used, history = max(tried, key=lambda one: one[0])
    calibrate(model, inputs, val, seed=options.seed, device=device)
    origin = None if options.start is None else loaded.origin
    finetuned = Finetuned(model, plan, spec, tuple(history), origin)
    return FinetuneRun(finetuned, loaded.config, start, used.model_dump(mode="json"))


def _rate_folder(checkpoints: Path, number: int) -> Path:
    return checkpoints / f"rate-{number}"
