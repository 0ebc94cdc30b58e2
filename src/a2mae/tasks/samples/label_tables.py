"""The user's own images whose classes stand in a table: just one each, or any number."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError

from a2mae.tasks.samples.folders import FolderFormat
from a2mae.tasks.samples.labelled import LabelledScene, LabelledScenes, Reading
from a2mae.tasks.samples.scene_folders import folder_spec, read_picture, scene_of
from a2mae.tasks.samples.task_data import SPLITS, Task, TaskDataError

LABELS_FILE = "labels.csv"
_COLUMNS = ("file", "classes")


@dataclass(frozen=True)
class _Row:
    """One line of the table."""

    file: str
    classes: tuple[str, ...]
    split: str | None


def label_table(
    folder: Path,
    layout: FolderFormat,
    class_names: tuple[str, ...],
    *,
    chip_px: int | None,
    multi_label: bool | None = None,
) -> LabelledScenes:
    """Pictures beside a `labels.csv` with the columns `file`, `classes` (separated by `;`, may be none) and `split`.

    Where every line names just one class an image has one class, as in a folder per class; else it has any number.
    `split` may be left out; images are then split by place where they are georeferenced, by name where they are not.

    Args:
        folder: Holds the table; `file` is a path in it.
        layout: What the files hold.
        class_names: In the order wanted; empty: all that the table names, sorted.
        chip_px: Side of a sample, cut from the image's middle; None: that of the first image.
        multi_label: Whether an image may have any number of classes; None: as the lines are.

    Raises:
        TaskDataError: If the table is not whole, names a file that is not there or outside, or an unknown class; or if
            a line names none or several where an image shall have one.
    """
    rows = _rows(folder)
    found = sorted({name for row in rows for name in row.classes})
    unknown = [name for name in found if class_names and name not in class_names]
    if unknown:
        raise TaskDataError(
            f"{folder / LABELS_FILE} names the class(es) {', '.join(unknown)}, not among classify.data.class_names:"
            f" {', '.join(class_names)}"
        )
    names = class_names or tuple(found)
    if len(names) < 2:
        raise TaskDataError(f"{folder / LABELS_FILE} names {len(names)} class(es); at least two are needed")

    several = _several(folder, rows, multi_label)

    def scenes(reading: Reading) -> Iterator[LabelledScene]:
        for row in rows:
            reading.of += 1
            try:
                picture = read_picture(folder / row.file, layout)
            except (RasterioError, OSError) as error:
                reading.skipped.append(f"{row.file}: {error}")
                continue
            target = np.isin(names, row.classes) if several else np.array(names.index(row.classes[0]))
            name = Path(row.file).with_suffix("").as_posix()
            yield scene_of(name, row.split, [picture], target.astype(np.uint8), reading.grounds)

    spec = folder_spec(Task.CLASSIFY, folder, layout, names, ())
    told = "an image has any number of classes" if several else f"every line of {LABELS_FILE} names one class"
    spec = replace(spec, multi_label=several, notes=(*spec.notes, told))
    return LabelledScenes(spec, layout, scenes, chip_px=chip_px)


def _several(folder: Path, rows: list[_Row], stated: bool | None) -> bool:
    """Whether an image may have any number of classes, as the user says, else as the lines are."""
    other = [row for row in rows if len(row.classes) != 1]
    if stated is False and other:
        raise TaskDataError(
            f"{folder / LABELS_FILE}: {len(other)} of {len(rows)} lines do not name just one class, first that of"
            f" {other[0].file} ({'; '.join(other[0].classes) or 'none'}), but classify.data.multi_label is false: give"
            " each image one class, or leave it out"
        )
    return bool(other) if stated is None else stated


def _rows(folder: Path) -> list[_Row]:
    path, root = folder / LABELS_FILE, folder.resolve()
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if not set(_COLUMNS) <= set(columns):
            raise TaskDataError(f"{path} has the columns {', '.join(columns)}; needed are {', '.join(_COLUMNS)}")
        rows = []
        for number, line in enumerate(reader, start=2):
            name, split = (line["file"] or "").strip(), (line.get("split") or "").strip() or None
            if not (folder / name).resolve().is_relative_to(root) or not (folder / name).is_file():
                raise TaskDataError(f"{path}, line {number}: no file {name!r} in {folder}")
            if split is not None and split not in SPLITS:
                raise TaskDataError(f"{path}, line {number}: split {split!r}; there are {', '.join(SPLITS)}")
            classes = (part.strip() for part in (line["classes"] or "").split(";"))
            rows.append(_Row(name, tuple(part for part in classes if part), split))
    twice = sorted(name for name, count in Counter(row.file for row in rows).items() if count > 1)
    if twice:
        raise TaskDataError(f"{path} names {len(twice)} file(s) more than once: {', '.join(twice[:5])}")
    if len({row.split is None for row in rows}) > 1:
        raise TaskDataError(f"{path}: some lines have a split and some have none; give all or none")
    return rows
