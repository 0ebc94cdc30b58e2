"""Task data cut from the image-set store, with labels from the simulated truth.

The labels lie where the image shows the ground: see `a2mae.tasks.datasets.cuts`.
"""

from __future__ import annotations

import logging
from functools import partial

import numpy as np

from a2mae.config import WorkerParameters
from a2mae.tasks.data_parameters import SimulatedDataParameters
from a2mae.tasks.datasets.cuts import TREES, Cutter, Truth, balanced, known_classes
from a2mae.tasks.datasets.image_sets import join_images, told_of_sets
from a2mae.tasks.datasets.labelled import Reading
from a2mae.tasks.datasets.places import by_places
from a2mae.tasks.datasets.store_samples import Cut, StoreSamples, Tables, budgeted
from a2mae.tasks.datasets.task_data import CHANGE_CLASSES, CHANGE_COLORS, TaskSpec
from a2mae.tasks.registry import Task

logger = logging.getLogger(__name__)


def cut_simulated(
    task: Task,
    tables: Tables,
    truth: Truth,
    parameters: SimulatedDataParameters,
    *,
    seed: int,
    per_pixel: bool | None = None,
    crew: WorkerParameters | None = None,
) -> StoreSamples:
    """Decide which windows of which images become samples.

    Args:
        task: What is predicted.
        tables: What the builder wrote.
        truth: Of the simulation that the scenes came from.
        parameters: How to cut.
        seed: Of the draws that keep label budgets.
        per_pixel: Whether labels are of pixels, else of whole images; None: as the task's usually are.
        crew: Who looks at the images of many places; None: this process.

    Raises:
        TaskDataError: If a sensor or band is absent, units differ between sensors, or nothing is left.
    """
    cutter = Cutter(task, tables, truth, parameters)
    main = cutter.main
    rng = np.random.default_rng(seed)
    notes = [f"splits by place; {main.title} grid of {main.gsd_m:g} m; samples need {parameters.min_valid:.0%} usable"]
    names: tuple[str, ...] = CHANGE_CLASSES
    colors: tuple[tuple[int, int, int], ...] = CHANGE_COLORS
    per_pixel = task.kind.per_pixel if per_pixel is None else per_pixel

    found = by_places(cutter, lambda some: partial(_cut, task, some, per_pixel), crew, f"{task}.data")
    cuts = [cut for of_places in found for cut in of_places]
    if task.kind.values:
        names, colors = (), ()
        cuts = budgeted(cuts, parameters, rng)
        notes.append("mean height over the whole pixel, 0 m where no tree stands")
    elif task is Task.DETECT_CHANGE:
        cuts = budgeted(cuts, parameters, rng)
    else:
        if per_pixel:  # what a budget leaves out cannot be learnt, so classes are counted after it
            cuts = budgeted(cuts, parameters, rng)
        cuts, kept = known_classes(cuts, truth.class_names, transitions=task.kind.transitions)
        dropped = [name for index, name in enumerate(truth.class_names) if index not in kept]
        if dropped:
            notes.append(f"left out, too few samples: {', '.join(dropped)}")
        names, colors = tuple(truth.class_names[i] for i in kept), tuple(truth.colors[i] for i in kept)
        if task is Task.CLASSIFY:
            cuts = balanced(cuts, parameters, rng)
    if cutter.inputs is not None:
        notes.append(told_of_sets(cuts, cutter.inputs))
    spec = TaskSpec(
        task=task,
        source="simulated",
        class_names=names,
        colors=colors,
        bands=cutter.bands,
        encoding=main.encoding,
        gsd_m=main.gsd_m,
        notes=tuple(notes),
        quantity=TREES if task.kind.values else None,
        per_pixel=per_pixel,
        set_sensors=cutter.set_sensors,
    )
    splits = [cut.split for cut in cuts]
    logger.info("%s: %d samples to train, %d to test", task, splits.count("train"), splits.count("test"))
    return StoreSamples(spec, tuple(cuts), tables, cutter.grid_px)


def _cut(task: Task, cutter: Cutter, per_pixel: bool) -> list[Cut]:
    """Cut all that the images of some places have."""
    if task.kind.values:
        singles = cutter.heights(by_image=not per_pixel)
    elif task.kind.dates == 2:
        singles = cutter.date_pairs(transitions=task.kind.transitions)
    else:
        singles = cutter.single(by_image=task is Task.CLASSIFY)
    return join_images(singles, cutter, cutter.once() if task.kind.dates == 1 else cutter.registered(), Reading())
