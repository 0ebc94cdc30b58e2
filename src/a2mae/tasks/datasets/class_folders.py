"""Labels of whole images: a folder per class, or pictures with a table of their classes or values."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from a2mae.errors import ReadError
from a2mae.files import is_inside
from a2mae.tasks.datasets.formats import IMAGE_SUFFIXES, FolderFormat, settled
from a2mae.tasks.datasets.labelled import (
    STATED_BY_FOLDERS,
    LabelledScene,
    LabelledScenes,
    Reading,
    folder_spec,
    scene_of,
)
from a2mae.tasks.datasets.listing import check_inside, files_in, folders_in, note_left_out, pictures_below
from a2mae.tasks.datasets.pictures import read_picture
from a2mae.tasks.datasets.splits import position_of
from a2mae.tasks.datasets.task_data import SPLITS, Quantity, Targets, TaskDataError
from a2mae.tasks.datasets.text_tables import file_inside, read_table
from a2mae.tasks.registry import Task

logger = logging.getLogger(__name__)

LABELS_FILE = "labels.csv"
_FEW_SEVERAL = 0.1
"""A smaller share of lines with none or several classes may be an oversight: it decides what every label is."""
_NO_CLASSES = ("picture", "none")
"""Stand where a source has to have classes, and nobody reads the labels."""


@dataclass(frozen=True)
class _Image:
    """An image, its classes or its value, its split where one is stated, and its name in its split."""

    path: Path
    classes: tuple[str, ...]
    split: str | None
    name: str
    value: float = math.nan


def class_folder(
    folder: Path,
    layout: FolderFormat,
    *,
    chip_px: int | None = None,
    resize: bool = False,
    max_files: int | None = None,
    class_names: Sequence[str] = (),
) -> LabelledScenes:
    """Read a folder per class: EuroSAT's JPEGs, its 13-band GeoTIFFs, or the user's own.

    The class folders may lie in `train/`, `val/` and `test/`. Without these, files that say where they lie are split
    by place and others by a hash of their names; the files of a benchmark always are, see `FolderFormat`.

    Args:
        folder: One folder per class inside, or `train/`, `val/` and `test/` with these inside.
        layout: What the files hold.
        chip_px: Side of a sample, cut from the image's middle; None: as the first image is.
        resize: The middle square of each image is brought to that side instead, and its GSD with it.
        max_files: Read only so many, spread over the classes by a hash of their names.
        class_names: The folders' names in the order wanted; empty: sorted.

    Raises:
        TaskDataError: If the folder is absent, has no class folders or others than are named, or a class has no images
            to train on.
    """
    names, found = _images_by_class(folder, layout.group or "classify.data")
    if class_names and set(class_names) != set(names):
        raise TaskDataError(
            f"{layout.group or 'classify.data'}.class_names are {', '.join(class_names)}, and the folders in {folder}"
            f" are {', '.join(names)}: name these, or leave it out"
        )
    images = _subset(found, max_files)
    rule = STATED_BY_FOLDERS if images[0].split else None
    return _scenes(
        folder, layout, tuple(class_names) or names, images,
        split_rule=rule, chip_px=chip_px, resize=resize, found=found,
    )  # fmt: skip


def unlabelled_folder(
    folder: Path, layout: FolderFormat, *, max_files: int | None = None
) -> tuple[LabelledScenes, dict[str, Path]]:
    """Read pictures in folders of any depth, with the splits that a task on the same folder gives them.

    The splits are those of `train/`, `val/` and `test/`, or of a `labels.csv`, where these say them.

    Args:
        folder: Holds the pictures.
        layout: What the files hold.
        max_files: Use only so many, as `class_folder` does.

    Returns:
        The source, whose labels say nothing, and each picture's file by its name, in the order of reading.

    Raises:
        TaskDataError: If the folder is absent or holds no pictures to train on.
    """
    group = layout.group or "pictures"
    if not folder.is_dir():
        raise TaskDataError(f"{group}.folder: no folder at {folder}")
    found = _unlabelled(folder)
    images = _subset(found, max_files)
    if not any(image.split in (None, "train") for image in images):
        where = f"{folder / 'train'}" if images else str(folder)
        raise TaskDataError(f"{group}.folder: no pictures ({', '.join(IMAGE_SUFFIXES)}) in {where} to train on")
    names = [image.name if image.split is None else f"{image.split}/{image.name}" for image in images]
    rule = "splits as the folder says" if images[0].split else None
    source = _scenes(
        folder, layout, _NO_CLASSES, [replace(image, classes=_NO_CLASSES[:1]) for image in images],
        split_rule=rule, chip_px=None, resize=False, found=found,
    )  # fmt: skip
    return source, {name: image.path for name, image in zip(names, images, strict=True)}


def _unlabelled(folder: Path) -> list[_Image]:
    """Find every picture below a folder, in a fixed order; what a link outside it names is no part of it."""
    if has_table(folder):
        return [image for image, _, _ in _rows(folder, "file")]
    top, beside = folders_in(folder, None), any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())
    stated = bool(top) and set(top) <= set(SPLITS) and not beside
    if not stated and {"train", "test"} <= set(top):
        raise _splits_stand_alone(folder, top)
    roots: list[tuple[str | None, Path]] = [(split, folder / split) for split in top] if stated else [(None, folder)]
    return [
        _Image(path, (), split, path.relative_to(root).with_suffix("").as_posix())
        for split, root in roots
        for path in pictures_below(root)
        if not path.is_symlink() or is_inside(path, folder)
    ]


def _splits_stand_alone(folder: Path, names: Sequence[str]) -> TaskDataError:
    beside = sorted(set(names) - set(SPLITS)) or ["pictures"]
    return TaskDataError(
        f"{folder} holds train/ and test/, and {', '.join(beside[:5])} beside them: splits of your own stand alone,"
        " move the others away"
    )


def has_table(folder: Path) -> bool:
    """Whether a folder holds a table of labels; what is wrong with it is told where it is read.

    Raises:
        TaskDataError: If its name differs by capitals alone: it would not count, and nobody would be told.
    """
    near = [name for name in os.listdir(folder) if name.lower() == LABELS_FILE] if folder.is_dir() else []
    if near and LABELS_FILE not in near:
        raise TaskDataError(f"{folder / near[0]} is read under the name {LABELS_FILE} alone: rename it")
    return bool(near)


def _subset(images: list[_Image], count: int | None) -> list[_Image]:
    """Choose so many images by a hash of their names, in their order; None: all."""
    if count is None:
        return images
    spread = sorted(images, key=lambda image: position_of(f"subset/{image.path.stem}"))
    return sorted(spread[:count], key=lambda image: image.path)


def label_table(
    folder: Path,
    layout: FolderFormat,
    class_names: tuple[str, ...],
    *,
    chip_px: int | None,
    resize: bool = False,
    multi_label: bool | None = None,
) -> LabelledScenes:
    """Read pictures by a `labels.csv` with the columns `file`, `classes` (separated by `;`, may be none) and `split`.

    Where every line names just one class an image has one class, as in a folder per class; else it has any number.
    `split` may be left out; images are then split by place where they are georeferenced, by name where they are not.

    Args:
        folder: Holds the table; `file` is a path in it.
        layout: What the files hold.
        class_names: In the order wanted; empty: all that the table names, sorted.
        chip_px: Side of a sample, cut from the image's middle; None: as the first image is.
        resize: The middle square of each image is brought to that side instead, and its GSD with it.
        multi_label: Whether an image may have any number of classes; None: as the lines are.

    Raises:
        TaskDataError: If the table is not whole, names a file that is not there or outside, or an unknown class; or if
            a line names none or several where an image shall have one.
    """
    images = [
        replace(image, classes=tuple(stripped for part in text.split(";") if (stripped := part.strip())))
        for image, text, _ in _rows(folder, "classes")
    ]
    found = sorted({name for image in images for name in image.classes})
    unknown = [name for name in found if class_names and name not in class_names]
    if unknown:
        raise TaskDataError(
            f"{folder / LABELS_FILE} names the class(es) {', '.join(unknown)}, not among classify.data.class_names:"
            f" {', '.join(class_names)}"
        )
    names = class_names or tuple(found)
    if len(names) < 2:
        raise TaskDataError(f"{folder / LABELS_FILE} names {len(names)} class(es); at least two are needed")
    several = _several(folder, images, multi_label)
    told = "an image has any number of classes" if several else f"every line of {LABELS_FILE} names one class"
    other = sum(len(image.classes) != 1 for image in images)
    if several and 0 < other < _FEW_SEVERAL * len(images):
        logger.warning(
            "%s: %s, for %d of %d lines do not name just one", folder / LABELS_FILE, told, other, len(images)
        )
    rule = f"split as {LABELS_FILE} says" if images[0].split else None
    return _scenes(
        folder, layout, names, images,
        split_rule=rule, chip_px=chip_px, resize=resize, multi_label=several, notes=(told,),
    )  # fmt: skip


def value_table(
    folder: Path, layout: FolderFormat, quantity: Quantity, *, chip_px: int | None, resize: bool = False
) -> LabelledScenes:
    """Read pictures by a `labels.csv` with the columns `file`, one named as the quantity, and `split` if there is one.

    Args:
        folder: Holds the table; `file` is a path in it.
        layout: What the files hold.
        quantity: What the values are; an empty cell and NaN are no label.
        chip_px: Side of a sample, cut from the image's middle; None: as the first image is.
        resize: The middle square of a picture becomes `chip_px` instead.

    Raises:
        TaskDataError: If the table is not whole, names a file that is not there or outside, or holds what is no number.
    """
    rows, path = _rows(folder, quantity.name), folder / LABELS_FILE
    images = [replace(image, value=quantity.read(text, f"{path}, line {number}")) for image, text, number in rows]
    known = [image for image in images if math.isfinite(image.value)]
    without = f"lines of {LABELS_FILE} without a value, left out: {len(images) - len(known)}"
    if not known:
        raise TaskDataError(f"{path}: the column {quantity.name!r} holds no value in any of {len(images)} lines")
    rule = f"split as {LABELS_FILE} says" if images[0].split else None
    notes = (without,) if len(known) < len(images) else ()
    return _scenes(
        folder, layout, (), known,
        split_rule=rule, chip_px=chip_px, resize=resize, notes=notes, quantity=quantity, found=images,
    )  # fmt: skip


def _scenes(
    folder: Path,
    layout: FolderFormat,
    class_names: tuple[str, ...],
    images: list[_Image],
    *,
    split_rule: str | None,
    chip_px: int | None,
    resize: bool,
    multi_label: bool = False,
    notes: tuple[str, ...] = (),
    quantity: Quantity | None = None,
    found: Sequence[_Image] = (),
) -> LabelledScenes:
    """Make pictures whose classes or values are known a source; of `found` (else of the images) others are left out."""
    names = Counter(f"{image.split or ''}/{image.name}" for image in images)
    if twice := sorted(name.removeprefix("/") for name, count in names.items() if count > 1):
        raise TaskDataError(
            f"{layout.said_by}.folder: {folder} holds {len(twice)} picture(s) in several formats under one name, first"
            f" {twice[0]}: keep one of each"
        )
    layout = settled(layout, (image.path for image in images))

    def scenes(reading: Reading) -> Iterator[LabelledScene]:
        note_left_out(folder, (image.path for image in found or images), reading)
        for image in images:
            reading.of += 1
            try:
                picture = read_picture(image.path, layout, reading.note)
            except (ReadError, OSError) as error:
                reading.skipped.append(f"{image.path.relative_to(folder)}: {error}")
                continue
            if quantity is not None:
                target: Targets = np.array(image.value, np.float32)
            elif multi_label:
                target = np.isin(class_names, image.classes).astype(np.uint8)
            else:
                target = np.array(class_names.index(image.classes[0]), np.uint8)
            yield scene_of(image.name, image.split, [picture], target, reading.grounds, by_name=layout.benchmark)

    task = Task.CLASSIFY if quantity is None else Task.ESTIMATE
    spec = folder_spec(
        task, folder, layout, class_names, split_rule=split_rule, notes=notes, quantity=quantity, per_pixel=False
    )
    return LabelledScenes(replace(spec, multi_label=multi_label), layout, scenes, chip_px=chip_px, resize=resize)


def _several(folder: Path, images: list[_Image], stated: bool | None) -> bool:
    """Whether an image may have any number of classes, as the user says, else as the lines are."""
    other = [image for image in images if len(image.classes) != 1]
    if stated is False and other:
        first = other[0]
        raise TaskDataError(
            f"{folder / LABELS_FILE}: {len(other)} of {len(images)} lines do not name just one class, first that of"
            f" {first.path.relative_to(folder)} ({'; '.join(first.classes) or 'none'}), but classify.data.multi_label"
            " is false: give each image one class, or leave it out"
        )
    return bool(other) if stated is None else stated


def _rows(folder: Path, label: str) -> list[tuple[_Image, str, int]]:
    """Read the table of labels: images without their classes, what their lines say in the label's column, and which."""
    path = folder / LABELS_FILE
    check_inside(path, folder)
    columns, rows, lines = read_table(path, [("file", label)])
    _check_splits_are_named(path, [name for name in columns if name not in ("file", label)], rows)
    images, labels = list[_Image](), list[str]()
    for number, line in zip(lines, rows, strict=True):
        name, split = line["file"].strip(), line.get("split", "").strip() or None
        found = file_inside(folder, name)
        if found is None:
            raise TaskDataError(
                f"{path}, line {number}: no file {name!r} in {folder}: give its path in this folder, with / between"
                " folders"
            )
        if split is not None and split not in SPLITS:
            raise TaskDataError(f"{path}, line {number}: split {split!r}; there are {', '.join(SPLITS)}")
        images.append(_Image(found, (), split, found.relative_to(folder).with_suffix("").as_posix()))
        labels.append(line[label])
    counts = Counter(image.path.relative_to(folder).as_posix() for image in images)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise TaskDataError(f"{path} names {len(twice)} file(s) more than once: {', '.join(twice[:5])}")
    if len({image.split is None for image in images}) > 1:
        raise TaskDataError(f"{path}: some lines have a split and some have none; give all or none")
    return list(zip(images, labels, lines, strict=True))


def _check_splits_are_named(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Reject splits in a column that is not called so: they would not count, and nobody would be told."""
    for name in columns if "split" not in columns else ():
        words = {row[name].strip().lower() for row in rows}
        if {"train", "test"} <= words <= set(SPLITS):
            raise TaskDataError(f"{path}: the column {name!r} holds splits, which are read as 'split' alone: rename it")


def _images_by_class(folder: Path, group: str) -> tuple[tuple[str, ...], list[_Image]]:
    """Find every class by name, and every image in a fixed order.

    Raises:
        TaskDataError: If there is no folder, fewer than two classes, or a class without an image to train on.
    """
    if not folder.is_dir():
        raise TaskDataError(f"{group}.folder: no folder at {folder}")
    splits = _stated_splits(folder)
    roots: list[tuple[str | None, Path]] = [(split, folder / split) for split in splits] or [(None, folder)]
    images: list[_Image] = []
    names: set[str] = set()
    for split, root in roots:
        classes = folders_in(root, folder)
        names |= set(classes)
        images += [
            _Image(path, (name,), split, path.relative_to(root).with_suffix("").as_posix())
            for name in classes
            for path in files_in(root / name, folder)
        ]
    if len(names) < 2:
        raise TaskDataError(f"{folder} must hold one folder per class with images inside; found {len(names)} folders")
    taught = {image.classes[0] for image in images if image.split in (None, "train")}
    if empty := sorted(names - taught):
        where = f"{folder}/train" if splits else str(folder)
        raise TaskDataError(
            f"{where}: no images ({', '.join(IMAGE_SUFFIXES)}) in class {', '.join(empty)}. Each folder is a class with"
            " its images inside; splits of your own are train/, val/ and test/ above the class folders, and no other"
            " folder beside them"
        )
    return tuple(sorted(names)), images


def _stated_splits(folder: Path) -> list[str]:
    """Return `train`, `val` and `test` where they alone are there; else none, for a class may have such a name.

    Raises:
        TaskDataError: If such folders are there, but one of train and test is not, other folders lie beside the two, or
            images lie in them outside of class folders.
    """
    found = folders_in(folder, folder)
    splits = [split for split in SPLITS if split in found]
    if len(splits) < len(found) and {"train", "test"} <= set(splits):
        raise _splits_stand_alone(folder, found)
    if not splits or len(splits) < len(found):
        return []
    if stray := [path for split in splits for path in files_in(folder / split, folder)]:
        told = ", ".join(f"{split}/" for split in splits)
        raise TaskDataError(
            f"{stray[0]} lies in no class folder ({len(stray)} images do not), and {told} are splits with the class"
            f" folders inside: move the images into these, or name their classes in {LABELS_FILE}"
        )
    if missing := {"train", "test"} - set(splits):
        raise TaskDataError(
            f"{folder} holds {', '.join(f'{split}/' for split in splits)}, but no {', '.join(sorted(missing))}/: splits"
            " of your own need train/ and test/, each with the class folders inside"
        )
    return splits
