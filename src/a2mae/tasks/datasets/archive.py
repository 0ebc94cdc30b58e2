"""Samples where labels of one's own lie on the archive: cut from the image sets, place by place and date by date.

A label that no sample has is counted and named with the reason: it lies outside every location, holds at no image's
time, covers no whole pixel, or lies where nothing was seen. What no label covers is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from a2mae.raster.read import RasterReader
from a2mae.tasks.datasets.archive_features import cut_features
from a2mae.tasks.datasets.archive_labels import (
    FeatureLabels,
    RasterLabels,
    read_feature_labels,
    read_raster_labels,
)
from a2mae.tasks.datasets.formats import IMAGE_SUFFIXES
from a2mae.tasks.datasets.image_sets import join_images, told_of_sets
from a2mae.tasks.datasets.labelled import Reading
from a2mae.tasks.datasets.masks import Masks
from a2mae.tasks.datasets.places import by_places, labelled_images, on_task_grid
from a2mae.tasks.datasets.polygons import FolderLabels
from a2mae.tasks.datasets.store_samples import Cut, StoreImages, StoreSamples, Tables, budgeted
from a2mae.tasks.datasets.task_data import Targets, TaskDataError, TaskSpec, is_labelled
from a2mae.tasks.parameters import TaskParameters

logger = logging.getLogger(__name__)

_DOMINANT = 0.5
"""Share of an image that a class of a raster must cover to be that of the image."""


def cut_labelled(options: TaskParameters, tables: Tables, stated: FolderLabels) -> StoreSamples:
    """Decide which windows of which images become samples of the labels that `data.labels` names.

    For labels of pixels, windows lie side by side and hold at least one label that was seen. For labels of images a
    window lies around each feature (within its footprint); of a raster, windows side by side get their class or mean.

    Args:
        options: The task's parameters.
        tables: What the builder wrote.
        stated: What labels stand for.

    Raises:
        TaskDataError: If labels cannot be read, none of them lies on an image, or there is no image in the time asked
            for; the message says what was found and what to change.
    """
    task, data = options.task, options.data
    path = Path(str(data.labels))
    _check_dates(options, path)
    images = StoreImages(task, tables, data.archive)
    table = labelled_images(options, images)
    images = images.at(sorted(table["location_id"].unique()))
    grids = {place: images.grid(place) for place in sorted(table["location_id"].unique())}
    found, joined = Reading(), Reading()
    labels: FeatureLabels | RasterLabels
    if path.suffix.lower() in IMAGE_SUFFIXES:
        labels = read_raster_labels(path, stated, list(grids.values()))
        cuts = _all_of_raster(options, images, labels, found, joined)
    else:
        labels = read_feature_labels(path, stated, list(grids.values()), found.note)
        if task.kind.dates == 2 and np.isnat(labels.start).all() and np.isnat(labels.end).all():
            raise TaskDataError(
                f"{path}: no feature says when its class holds, so none differs between two dates: give it columns"
                " start and end (days)"
            )
        cuts = cut_features(options, images, labels, found, joined)
    found.add(joined)
    cuts = budgeted(cuts, data.archive, np.random.default_rng(options.seed))
    main, names = images.main, labels.stated.class_names
    notes = [
        f"labels of {path.name} on images of {', '.join(images.sensors)}: {len(cuts)} samples at"
        f" {len({str(cut.images[0]['location_id']) for cut in cuts})} of {len(grids)} locations; splits by place",
        f"ground without a label: {stated.outside if stated.quantity is None else 'unknown'}",
    ]
    if images.inputs is not None:
        notes.append(told_of_sets(cuts, images.inputs))
    if data.archive.allow_future:
        notes.append("labels may be later than the image (allow_future)")
    for line in found.notes():
        logger.warning("%s: %s", path, line)
    if not cuts:
        why = "".join(f"; {line}" for line in found.notes())
        raise TaskDataError(
            f"{path}: no label lies on an image that was seen{why}; give labels of the images' ground and days"
        )
    spec = TaskSpec(
        task=task,
        source=path.name,
        class_names=names,
        colors=(),
        bands=images.bands,
        encoding=main.encoding,
        gsd_m=main.gsd_m,
        notes=(*notes, *found.notes()),
        quantity=stated.quantity,
        per_pixel=options.per_pixel,
        set_sensors=images.set_sensors,
    )
    return StoreSamples(spec, tuple(cuts), tables, images.grid_px)


def _check_dates(options: TaskParameters, path: Path) -> None:
    """Reject labels that cannot say what a pair of dates shows."""
    task = options.task
    if task.kind.dates == 1:
        return
    found = "tells classes and not change: detect_transitions learns from them"
    if task.kind.transitions and path.suffix.lower() in IMAGE_SUFFIXES:
        found = "is of one date as a raster, and of two as features with start and end"
    elif task.kind.transitions and options.data.archive.allow_future:
        found = "is of the image's own day: leave archive.allow_future out"
    elif task.kind.transitions:
        return
    raise TaskDataError(
        f"{task}.data.labels: {task} compares two dates, and a label on the archive {found}; or give pairs in a folder"
        f" ({task}.data.folder)"
    )


def _all_of_raster(
    options: TaskParameters, images: StoreImages, labels: RasterLabels, found: Reading, joined: Reading
) -> list[Cut]:
    """Cut where a raster has labels, by any number of workers."""
    cuts: list[Cut] = []
    parts = by_places(images, lambda some: partial(_of_raster, options, some, labels), options, f"{options.task}.data")
    for of_places, noted, of_sets, masks in parts:
        cuts += of_places
        found.add(noted)
        joined.add(of_sets)
        labels.masks.add(masks)
    labels.masks.check_all()
    return cuts


def _of_raster(
    options: TaskParameters, images: StoreImages, labels: RasterLabels
) -> tuple[list[Cut], Reading, Reading, Masks]:
    table, found, joined = labelled_images(options, images), Reading(), Reading()
    cuts = join_images(_singles_of_raster(options, images, table, labels, found), images, table, joined)
    return cuts, found, joined, labels.masks


def _singles_of_raster(
    options: TaskParameters, images: StoreImages, table: pd.DataFrame, labels: RasterLabels, found: Reading
) -> Iterator[Cut]:
    with RasterReader() as reader:
        for place, here in table.groupby("location_id", sort=True):
            target = labels.on(images.grid(place), reader)
            if not is_labelled(target).any():
                found.note("locations without a label", str(place))
                continue
            for _, image in here.iterrows():
                valid = images.valid(image)
                seen = on_task_grid(valid, images.grid_px)
                for window in images.usable(valid):
                    y0, y1, x0, x1 = window
                    one: Targets | None = target[y0:y1, x0:x1]
                    if not options.per_pixel:
                        one = _of_image(target[y0:y1, x0:x1], seen[y0:y1, x0:x1], options)
                    elif not (is_labelled(target[y0:y1, x0:x1]) & seen[y0:y1, x0:x1]).any():
                        one = None
                    if one is not None:
                        yield Cut((image,), window, one, str(image["split"]))


def _of_image(target: Targets, seen: npt.NDArray[np.bool_], options: TaskParameters) -> Targets | None:
    """Give an image the class that covers most of it, or the mean of its values; None where it has none."""
    known = is_labelled(target) & seen
    if options.task.kind.values:
        enough = known.mean() >= options.data.archive.min_valid
        return np.array(target[known].mean(), np.float32) if enough else None
    counts = np.bincount(target[known].astype(np.int64), minlength=1)
    return np.array(counts.argmax(), np.uint8) if counts.max() > _DOMINANT * target.size else None
