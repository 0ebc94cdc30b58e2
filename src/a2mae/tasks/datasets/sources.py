"""Where a task's samples come from, as its parameters say."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from a2mae.tasks.datasets.class_folders import LABELS_FILE, ClassFolder, label_table
from a2mae.tasks.datasets.cuts import Tables, Truth
from a2mae.tasks.datasets.formats import FolderFormat, layout_named
from a2mae.tasks.datasets.scene_folders import FolderLabels, mask_folder, pair_folder
from a2mae.tasks.datasets.simulated import cut_simulated
from a2mae.tasks.datasets.task_data import Sample, Task, TaskDataError, TaskSpec
from a2mae.tasks.datasets.torchgeo import torchgeo_data
from a2mae.tasks.datasets.writer import TaskDataSource
from a2mae.tasks.palette import named_colours
from a2mae.tasks.parameters import DataParameters, TaskParameters

logger = logging.getLogger(__name__)


def prepare(options: TaskParameters, tables: Tables | None, simulation: Path | None) -> TaskDataSource:
    """Where a task's samples come from: a named data set or the user's folder, else the simulated truth.

    Args:
        options: The task's parameters.
        tables: What the builder wrote; None where a folder is all there is.
        simulation: Folder of the simulated Earth; None where there is none.

    Raises:
        TaskDataError: If a data set is named without its folder, masks without class names, or a colour is of a class
            that is not there.
    """
    source = _source(options, tables, simulation)
    return _coloured(source, options.data.class_colors) if options.data.class_colors else source


@dataclass(frozen=True)
class _Coloured:
    """A source whose classes have colours of the user's."""

    source: TaskDataSource
    spec: TaskSpec

    @property
    def sensors(self) -> tuple[str, ...]:
        return self.source.sensors

    def samples(self) -> Iterator[Sample]:
        return self.source.samples()

    def late_notes(self) -> tuple[str, ...]:
        return self.source.late_notes()


def _coloured(source: TaskDataSource, named: Mapping[str, str]) -> TaskDataSource:
    spec = source.spec
    try:
        colours = named_colours(spec.class_names, named)
    except ValueError as error:
        raise TaskDataError(f"{spec.task}.data.class_colors: {error}") from error
    return _Coloured(source, dataclasses.replace(spec, colors=colours))


def _source(options: TaskParameters, tables: Tables | None, simulation: Path | None) -> TaskDataSource:
    task = Task(options.task)
    found = options.data
    if found.dataset is not None:
        if found.folder is None:
            raise TaskDataError(f"{task}.data.dataset {found.dataset!r}: set {task}.data.folder to where it lies")
        return torchgeo_data(
            found.dataset, Path(found.folder), task,
            chip_px=found.chip_px, stated=found.torchgeo, layout=_layout(task, found, tables),
            class_names=found.class_names,
        )  # fmt: skip
    if found.folder is not None:
        folder, layout = Path(found.folder), _layout(task, found, tables)
        if task is Task.CLASSIFY and (folder / LABELS_FILE).is_file():
            return label_table(folder, layout, found.class_names, chip_px=found.chip_px, multi_label=found.multi_label)
        if task is Task.CLASSIFY:
            return ClassFolder(folder, layout)
        if task is Task.DETECT_CHANGE:
            return pair_folder(folder, layout, chip_px=found.chip_px)
        if len(found.class_names) < 2:
            raise TaskDataError(f"{task}.data.class_names: name the classes that the masks' values 0, 1, … stand for")
        labels = FolderLabels(found.class_names, found.class_property)
        return mask_folder(folder, layout, labels, chip_px=found.chip_px)
    if tables is None or simulation is None:
        raise TaskDataError(
            f"{task}.data.folder: name one. This environment's chain has no simulated Earth and image sets of it to cut"
            " samples from (parameter 'chain')"
        )
    source = cut_simulated(task, tables, Truth(simulation), options.data.simulated, seed=options.seed)
    splits = [cut.split for cut in source.cuts]
    logger.info("%s: %d samples to train, %d to test", task, splits.count("train"), splits.count("test"))
    return source


def _layout(task: Task, data: DataParameters, tables: Tables | None) -> FolderFormat:
    """What the files hold, as stated; the sensors of the image sets are known beside the built-in ones."""
    own = [] if tables is None else [tables.store.sensor(sensor_id) for sensor_id in tables.store.sensors]
    return layout_named(
        data.format, gsd_m=data.gsd_m, bands=data.file_bands, scale=data.scale, offset=data.offset, own=own,
        group=f"{task}.data",
    )  # fmt: skip
