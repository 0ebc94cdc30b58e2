"""The steps of a task, in order: prepare its data, finetune the pretrained encoder and its random twin, score both."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from a2mae.models.checkpoint import load_encoder, read_config
from a2mae.tasks.checkpoint import (
    Finetuned,
    FinetuneRun,
    plan_for_model,
    random_twin,
)
from a2mae.tasks.data import Task, TaskData, TaskDataError
from a2mae.tasks.data_writer import TaskDataSource
from a2mae.tasks.finetune import Progress, finetune, predict
from a2mae.tasks.folders import ClassFolder, FolderFormat, layout_named
from a2mae.tasks.inputs import TaskInputs
from a2mae.tasks.label_tables import LABELS_FILE, label_table
from a2mae.tasks.model import HeadConfig, TaskModel
from a2mae.tasks.parameters import DataParameters, FinetuneParameters, TaskParameters
from a2mae.tasks.pictures import PictureArrays, pictures
from a2mae.tasks.scene_folders import FolderLabels, mask_folder, pair_folder
from a2mae.tasks.scores import TaskScores, flat_scores, gain, main_score, score_task
from a2mae.tasks.simulated import Tables, cut_simulated
from a2mae.tasks.torchgeo_sets import torchgeo_data
from a2mae.tasks.truth import Truth

logger = logging.getLogger(__name__)

STARTS = ("pretrained", "random")


def choose_device(name: str) -> torch.device:
    """The device that a parameter names; `auto` takes an accelerator where there is one."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare(options: TaskParameters, tables: Tables, simulation: Path) -> TaskDataSource:
    """Where a task's samples come from: a named data set or the user's folder, else the simulated truth.

    Args:
        options: The task's parameters.
        tables: What the builder wrote.
        simulation: Folder of the simulated Earth.

    Raises:
        TaskDataError: If a data set is named without its folder, or masks without class names.
    """
    task = Task(options.task)
    found = options.data
    if found.dataset is not None:
        if found.folder is None:
            raise TaskDataError(f"{task}.data.dataset {found.dataset!r}: set {task}.data.folder to where it lies")
        return torchgeo_data(
            found.dataset, Path(found.folder), task,
            chip_px=found.chip_px, stated=found.torchgeo, layout=_layout(found), class_names=found.class_names,
        )  # fmt: skip
    if found.folder is not None:
        folder, layout = Path(found.folder), _layout(found)
        if task is Task.CLASSIFY and (folder / LABELS_FILE).is_file():
            return label_table(folder, layout, found.class_names, chip_px=found.chip_px)
        if task is Task.CLASSIFY:
            return ClassFolder(folder, layout)
        if task is Task.DETECT_CHANGE:
            return pair_folder(folder, layout, chip_px=found.chip_px)
        if len(found.class_names) < 2:
            raise TaskDataError(f"{task}.data.class_names: name the classes that the masks' values 0, 1, … stand for")
        labels = FolderLabels(found.class_names, found.class_property)
        return mask_folder(folder, layout, labels, chip_px=found.chip_px)
    source = cut_simulated(task, tables, Truth(simulation), options.data.simulated, seed=options.seed)
    splits = [cut.split for cut in source.cuts]
    logger.info("%s: %d samples to train, %d to test", task, splits.count("train"), splits.count("test"))
    return source


def _layout(data: DataParameters) -> FolderFormat:
    """What the files hold, as stated."""
    return layout_named(data.format, gsd_m=data.gsd_m, bands=data.file_bands, scale=data.scale, offset=data.offset)


def finetune_start(options: TaskParameters, data: TaskData, pretrained: Path, start: str) -> FinetuneRun:
    """Finetune from the pretrained encoder, or from its random-initialised twin: all else is the same.

    Args:
        options: The task's parameters.
        data: Its samples.
        pretrained: Model directory.
        start: "pretrained" or "random".
    """
    spec = data.spec
    encoder = load_encoder(pretrained)
    plan = plan_for_model(data, options.bands, pretrained, encoder, location=options.location)
    inputs, device = TaskInputs(data, plan), choose_device(options.device)
    train, val = data.rows("train"), data.rows("val")
    recipe = options.finetune
    if (recipe.lr_grid or recipe.val_checks) and not len(val):
        raise TaskDataError(
            f"{spec.task}: lr_grid and val_checks need a validation split, and {spec.source!r} has none"
        )
    head = HeadConfig(spec.task, options.head, len(spec.class_names), plan.views, plan.bands_per_view, options.fusion)
    head = replace(head, multi_label=spec.multi_label)

    def validated(model: TaskModel) -> float:
        return main_score(data, val, predict(model, inputs, val, batch_size=64, device=device))

    tried: list[tuple[float, TaskModel, FinetuneParameters, list[Progress]]] = []
    for lr in recipe.lr_grid or (recipe.lr,):
        encoder = load_encoder(pretrained)
        if start == "random":
            encoder = random_twin(encoder, options.seed)
        torch.manual_seed(options.seed)  # the head's initial weights: the same for both starts and every rate
        model = TaskModel(encoder, head)
        used = recipe.model_copy(update={"lr": lr})
        name = f"{spec.task} from {start}"
        history = finetune(model, inputs, train, used, seed=options.seed, device=device, name=name, validate=validated)
        score = validated(model) if len(recipe.lr_grid) > 1 else 0.0
        if len(recipe.lr_grid) > 1:
            logger.info("%s, rate %g: %.4f on validation", name, lr, score)
        tried.append((score, model, used, history))
    _, model, used, history = max(tried, key=lambda one: one[0])
    finetuned = Finetuned(model, plan, spec, tuple(history))
    return FinetuneRun(finetuned, read_config(pretrained), start, used.model_dump(mode="json"))


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
    spec = data.spec
    rows = data.rows("test")
    device = choose_device(options.device)
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
        **{start: scores[start].confusion.tolist() for start in STARTS},
    }
    return TaskResult(metrics, shown, confusion)
