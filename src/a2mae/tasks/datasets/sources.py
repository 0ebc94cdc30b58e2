"""Where a task's samples come from, as its parameters say."""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from pathlib import Path

from a2mae.tasks.data_parameters import DataParameters
from a2mae.tasks.datasets.archive import cut_labelled
from a2mae.tasks.datasets.class_folders import class_folder, has_table, label_table, value_table
from a2mae.tasks.datasets.cuts import Truth
from a2mae.tasks.datasets.formats import FolderFormat, stated_layout
from a2mae.tasks.datasets.polygons import FolderLabels
from a2mae.tasks.datasets.scene_folders import mask_folder, pair_folder, transition_folder
from a2mae.tasks.datasets.simulated import cut_simulated
from a2mae.tasks.datasets.store_samples import Tables
from a2mae.tasks.datasets.task_data import CHANGE_CLASSES, SPLITS, Quantity, TaskDataError
from a2mae.tasks.datasets.torchgeo import torchgeo_data
from a2mae.tasks.datasets.writer import TaskDataSource
from a2mae.tasks.palette import named_colours
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task

logger = logging.getLogger(__name__)


def prepare(options: TaskParameters, tables: Tables | None, simulation: Path | None) -> TaskDataSource:
    """Find a task's samples: in a named data set, in the user's folder, where labels lie, else in the simulated truth.

    Args:
        options: The task's parameters.
        tables: What the builder wrote; None where a folder is all there is.
        simulation: Folder of the simulated Earth; None where there is none.

    Returns:
        A source that reads its samples as they are asked for.

    Raises:
        TaskDataError: If a data set is named without its folder, masks without class names, or a colour is of a class
            that is not there.
    """
    task, data = Task(options.task), options.data
    if data.resize and task is not Task.CLASSIFY:
        raise TaskDataError(f"{task}.data.resize: labels of pixels are not resized; leave it out, chip_px cuts scenes")
    if data.dataset is not None:
        source: TaskDataSource = _benchmark(task, data, tables)
    elif data.folder is not None:
        try:
            source = _folder(task, Path(data.folder), data, tables)
        except OSError as error:
            raise TaskDataError(f"{task}.data.folder: {error.filename} cannot be read: {error.strerror}") from error
        if source.spec.per_pixel != options.per_pixel:
            raise TaskDataError(_other_head(options, of_pixels=bool(source.spec.per_pixel)))
    elif data.labels is not None:
        if tables is None:
            raise TaskDataError(
                f"{task}.data.labels: labels lie on image sets, and no stage of this environment's chain makes any"
                " (parameter 'chain'); put ingest, coregister, tag and prune into it, or give images of your own in"
                f" {task}.data.folder"
            )
        source = cut_labelled(options, tables, _labels(task, data, data.class_names))
    elif tables is None or simulation is None:
        raise TaskDataError(
            f"{task}.data.folder or labels: name one. This environment's chain has no simulated Earth and"
            " image sets of it to cut samples from (parameter 'chain')"
        )
    else:
        told = [key for key in ("class_names", "class_values", "first_class", "ignore") if getattr(data, key)]
        if told:
            raise TaskDataError(
                f"{task}.data: the classes of the simulated truth are known, and {', '.join(told)} names those of"
                " labels of your own: leave it out, or name folder or labels"
            )
        source = cut_simulated(
            task, tables, Truth(simulation), data.simulated,
            seed=options.seed, per_pixel=options.per_pixel, crew=options,
        )  # fmt: skip
    if data.class_colors:
        try:
            colours = named_colours(source.spec.class_names, data.class_colors)
        except ValueError as error:
            raise TaskDataError(f"{task}.data.class_colors: {error}") from error
        source.spec = dataclasses.replace(source.spec, colors=colours)
    return source


def _benchmark(task: Task, data: DataParameters, tables: Tables | None) -> TaskDataSource:
    assert data.dataset is not None
    if data.folder is None:
        raise TaskDataError(f"{task}.data.dataset {data.dataset!r}: set {task}.data.folder to where it lies")
    if data.torchgeo is None and (data.first_class or data.class_values or data.ignore):
        told = "first_class, class_values and ignore say what labels stand for"
        raise TaskDataError(f"{task}.data: {told}, and those of {data.dataset} are known: leave them out")
    return torchgeo_data(
        data.dataset, Path(data.folder), task,
        chip_px=data.chip_px, resize=data.resize, stated=data.torchgeo, layout=_layout(task, data, tables),
        class_names=data.class_names, labels_of=partial(_labels, task, data),
    )  # fmt: skip


def _other_head(options: TaskParameters, *, of_pixels: bool) -> str:
    heads = [head for head in options.task.kind.heads if options.task.kind.answers_pixels(head) == of_pixels]
    labels = "of pixels" if of_pixels else "of whole images"
    return (
        f"{options.task}.head: the labels in {options.data.folder} are {labels}, and the head {options.head!r} answers"
        f" {'once per image' if of_pixels else 'for every pixel'}: set it to {', '.join(heads[:-1])} or {heads[-1]}"
    )


def _folder(task: Task, folder: Path, data: DataParameters, tables: Tables | None) -> TaskDataSource:
    layout = _layout(task, data, tables)
    roots = (folder, *(folder / split for split in SPLITS))
    masked = task.kind.dates == 2 or any((root / "masks").is_dir() for root in roots)
    if not masked and (data.first_class or data.class_values or data.ignore):
        told = "first_class, class_values and ignore say what masks hold"
        raise TaskDataError(f"{task}.data: {told}, and {folder} holds none: leave them out")
    if task is Task.CLASSIFY and has_table(folder):
        return label_table(
            folder, layout, data.class_names,
            chip_px=data.chip_px, resize=data.resize, multi_label=data.multi_label,
        )  # fmt: skip
    if task is Task.CLASSIFY:
        return class_folder(folder, layout, chip_px=data.chip_px, resize=data.resize, class_names=data.class_names)
    if task.kind.values and has_table(folder):
        quantity = Quantity(data.value_property, data.units)
        return value_table(folder, layout, quantity, chip_px=data.chip_px, resize=data.resize)
    if task.kind.values:
        return mask_folder(folder, layout, _labels(task, data, ()), chip_px=data.chip_px)
    if task is Task.DETECT_CHANGE:
        if data.class_names not in ((), CHANGE_CLASSES):
            raise TaskDataError(
                f"{task}.data.class_names: pairs have the classes {', '.join(CHANGE_CLASSES)}; leave it out"
            )
        return pair_folder(folder, layout, _labels(task, data, CHANGE_CLASSES), chip_px=data.chip_px)
    if len(data.class_names) < 2:
        first = "1, 2" if task.kind.transitions else "0, 1"
        raise TaskDataError(f"{task}.data.class_names: name the classes that the masks' values {first}, … stand for")
    if task.kind.transitions:
        return transition_folder(folder, layout, _labels(task, data, data.class_names), chip_px=data.chip_px)
    return mask_folder(folder, layout, _labels(task, data, data.class_names), chip_px=data.chip_px)


def _labels(task: Task, data: DataParameters, class_names: tuple[str, ...]) -> FolderLabels:
    first_class = data.first_class or int(task.kind.transitions)  # 0 is unchanged ground there
    counted = tuple(range(first_class, first_class + len(class_names)))
    values = data.class_values or counted
    quantity = Quantity(data.value_property, data.units) if task.kind.values else None
    colors: tuple[tuple[int, int, int], ...] = ()
    if class_names and set(class_names) <= set(data.class_colors):
        colors = named_colours(class_names, {name: data.class_colors[name] for name in class_names})
    return FolderLabels(
        class_names, data.class_property, data.outside, data.buffer_m, values, data.ignore, quantity, f"{task}.data",
        colors,
    )  # fmt: skip


def _layout(task: Task, data: DataParameters, tables: Tables | None) -> FolderFormat:
    """What the files hold, as stated; the sensors of the image sets are known beside the built-in ones."""
    own = [] if tables is None else [tables.store.sensor(sensor_id) for sensor_id in tables.store.sensors]
    return stated_layout(data, f"{task}.data", own)
