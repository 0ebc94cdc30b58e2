"""The user's own images with any number of classes each: pictures in a folder, their classes in a table."""

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
    folder: Path, layout: FolderFormat, class_names: tuple[str, ...], *, chip_px: int | None
) -> LabelledScenes:
    """Pictures beside a `labels.csv` with the columns `file`, `classes` (separated by `;`, may be none) and `split`.

    `split` may be left out; images are then split by place where they are georeferenced, by name where they are not.

    Args:
        folder: Holds the table; `file` is a path in it.
        layout: What the files hold.
        class_names: In the order wanted; empty: all that the table names, sorted.
        chip_px: Side of a sample, cut from the image's middle; None: that of the first image.

    Raises:
        TaskDataError: If the table is not whole, names a file that is not there or outside, or an unknown class.
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

    def scenes(reading: Reading) -> Iterator[LabelledScene]:
        for row in rows:
            reading.of += 1
            try:
                picture = read_picture(folder / row.file, layout)
            except (RasterioError, OSError) as error:
                reading.skipped.append(f"{row.file}: {error}")
                continue
            target = np.isin(names, row.classes).astype(np.uint8)
            yield scene_of(Path(row.file).with_suffix("").as_posix(), row.split, [picture], target, reading.grounds)

    spec = replace(folder_spec(Task.CLASSIFY, folder, layout, names, ()), multi_label=True)
    return LabelledScenes(spec, layout, scenes, chip_px=chip_px)


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
