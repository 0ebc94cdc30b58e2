"""Finetune from either start, and keep the result as a model directory whose encoder `a2mae.load_encoder` reads.

The starts are the pretrained encoder and the *random_init* baseline: the same architecture with random weights, all
else the same.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from a2mae.files import digest_of, whole_folder, write_json
from a2mae.models.checkpoint import load_encoder, load_strictly, read_config, read_safetensors, save_weights
from a2mae.models.encoder import Encoder
from a2mae.models.released import CheckpointError
from a2mae.models.sources import weights_digest
from a2mae.tasks.datasets.inputs import InputPlan, Normalisation, TaskInputs, input_plan_from_dict, plan_inputs
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError, TaskSpec, task_spec_from_dict
from a2mae.tasks.finetune.baseline import FITTED_IMAGES, drawn_features
from a2mae.tasks.finetune.checkpoints import FinetuneCheckpoint, Progress, training_code
from a2mae.tasks.finetune.heads import RCFDecoder, RCFHead
from a2mae.tasks.finetune.model import HeadConfig, TaskModel, head_config_from_dict
from a2mae.tasks.finetune.train import computing, finetune, predict
from a2mae.tasks.metrics.scores import main_score
from a2mae.tasks.parameters import FinetuneParameters, TaskParameters

logger = logging.getLogger(__name__)

STARTS = ("pretrained", "random")
"""The pretrained encoder and the random_init baseline, as files and the score table name them."""


def encoder_normalisation(directory: Path) -> Normalisation:
    """Read the statistics that an encoder was pretrained with.

    Args:
        directory: Model directory.

    Returns:
        `{sensor: {band: [mean, std]}}` in physical units.

    Raises:
        CheckpointError: If the model directory does not say.
    """
    found = read_config(directory).get("normalization")
    if not isinstance(found, dict):
        raise CheckpointError(f"{directory}/config.json has no 'normalization': {{sensor: {{band: [mean, std]}}}}")
    return cast(Normalisation, found)


def bands_per_view(encoder: Encoder) -> int | None:
    """Return how many bands an encoder takes at once; None for any number."""
    return None if encoder.config.bands == "wavelength" else encoder.config.in_chans


def plan_for_model(
    data: TaskData, bands: Sequence[str], directory: Path, encoder: Encoder, *, location: bool, group: str = ""
) -> InputPlan:
    """Decide how task data enters the encoder of a model directory: so many bands at a time, its own normalisation.

    Args:
        data: The task data.
        bands: Names or common names.
        directory: Where the encoder came from.
        encoder: Loaded from it.
        location: Tell the encoder where an image lies.
        group: Parameters that name the bands, for messages; empty: the task's.
    """
    return plan_inputs(
        data,
        bands,
        encoder_normalisation(directory),
        bands_per_view=bands_per_view(encoder),
        location=location,
        group=group,
    )


def random_init(encoder: Encoder, seed: int) -> Encoder:
    """Make the baseline of an encoder: the same architecture with random weights.

    Args:
        encoder: Whose configuration is used, and what no training changes: the filters of a stem of random convolution
            features. Its weights are not.
        seed: Of the random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = Encoder(encoder.config)
    fresh.load_state_dict(dict(encoder.named_buffers()), strict=False)
    return fresh


@dataclass(frozen=True)
class Finetuned:
    """A task model with what it needs to meet pixels.

    Attributes:
        model: In evaluation mode.
        plan: Bands and normalisation of its inputs.
        spec: The data set that it was trained on: classes, colours, GSD.
        history: The loss over its training.
    """

    model: TaskModel
    plan: InputPlan
    spec: TaskSpec
    history: Sequence[Progress] = ()


@dataclass(frozen=True)
class FinetuneRun:
    """A finetuned model on its way to disk.

    Attributes:
        finetuned: The model with its inputs and data.
        pretrained_config: `config.json` of the model directory that the encoder came from.
        start: One of `STARTS`.
        recipe: How it was trained.
    """

    finetuned: Finetuned
    pretrained_config: Mapping[str, Any]
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
    }
    with whole_folder(directory) as partial:
        save_weights(run.finetuned.model, partial / "model.safetensors")
        write_json(partial / "metrics.json", {"history": [asdict(moment) for moment in run.finetuned.history]})
        write_json(partial / "config.json", {**run.pretrained_config, "task": task})


def load_task_model(directory: Path) -> Finetuned:
    """Read a finetuned model back, in evaluation mode.

    Raises:
        CheckpointError: If the directory is no finetuned model or its tensors do not fit.
    """
    config = cast("dict[str, Any]", read_config(directory))
    task = config.get("task")
    if task is None:
        raise CheckpointError(f"{directory} is a pretrained model without a task's head: finetune it first")
    model = TaskModel(load_encoder(directory), head_config_from_dict(task["head"]))
    load_strictly(model, read_safetensors(directory / "model.safetensors"), str(directory))
    history = [Progress(**moment) for moment in json.loads((directory / "metrics.json").read_text())["history"]]
    return Finetuned(model.eval(), input_plan_from_dict(task["inputs"]), task_spec_from_dict(task["data"]), history)


def finetune_start(
    options: TaskParameters, data: TaskData, pretrained: Path, start: str, run: Path | None = None
) -> FinetuneRun:
    """Finetune from the pretrained encoder, or from its random_init baseline: all else is the same.

    Args:
        options: The task's parameters.
        data: Its samples.
        pretrained: Model directory.
        start: One of `STARTS`.
        run: Folder where a stopped finetuning goes on; emptied when it is finished. None: it begins again.

    Returns:
        The model of the learning rate that scored best on validation, with its record.

    Raises:
        TaskDataError: If the recipe needs a validation split and the data has none.
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
    pretrained: Path,
    start: str,
    *,
    device: torch.device,
    checkpoints: Path | None,
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
            encoder = random_init(encoder, options.seed)
        torch.manual_seed(options.seed)  # the head's initial weights: the same for both starts and every rate
        model = TaskModel(encoder, head)
        if isinstance(model.head, (RCFHead, RCFDecoder)):
            patch_size = encoder.patch_size if spec.task.kind.per_pixel else None
            model.head.rcf = drawn_features(inputs, options.seed, most=FITTED_IMAGES, patch_size=patch_size)
        used = recipe.model_copy(update={"lr": lr})
        checkpoint = None
        if checkpoints is not None:
            decided = [start, used.model_dump(mode="json"), head.to_dict(), plan.to_dict(), options.seed, data.digest]
            decided += [training_code(), weights_digest(pretrained), str(device), torch.get_num_threads()]
            checkpoint = FinetuneCheckpoint(
                checkpoints / f"rate-{number}", digest_of(decided), keep_last=len(rates) > 1
            )
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
    finetuned = Finetuned(model, plan, spec, tuple(history))
    return FinetuneRun(finetuned, read_config(pretrained), start, used.model_dump(mode="json"))
