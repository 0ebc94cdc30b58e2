"""The user's own labels of pixels: images with masks, values or polygons, and dates before and after with a mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2mae.errors import ReadError, plural
from a2mae.tasks.datasets.formats import IMAGE_SUFFIXES, FolderFormat, settled
from a2mae.tasks.datasets.labelled import (
    STATED_BY_FOLDERS,
    LabelledScene,
    LabelledScenes,
    Reading,
    folder_spec,
    scene_of,
)
from a2mae.tasks.datasets.listing import files_in, note_left_out
from a2mae.tasks.datasets.masks import Masks, check_grids, read_values
from a2mae.tasks.datasets.pictures import ImageFile, read_picture
from a2mae.tasks.datasets.polygons import FolderLabels, draw_polygons
from a2mae.tasks.datasets.task_data import CHANGE_CLASSES, CHANGE_COLORS, IGNORE, SPLITS, Targets, TaskDataError
from a2mae.tasks.datasets.vector_files import VECTOR_SUFFIXES
from a2mae.tasks.registry import Task
from a2mae.tasks.transitions import UNCHANGED, encode


def mask_folder(folder: Path, layout: FolderFormat, labels: FolderLabels, *, chip_px: int | None) -> LabelledScenes:
    """Read `images/` with `masks/` (rasters of class numbers) or `labels/` (polygons) of the same names.

    Where labels are values, rasters of them lie in `values/` instead of `masks/`. The folders may lie in `train/`,
    `val/` and `test/`; else scenes are split by place where they are georeferenced, by name where they are not.

    Args:
        folder: Holds them.
        layout: What the images hold.
        labels: What the labels stand for.
        chip_px: Side of a sample; None: the shorter side of the first image.

    Raises:
        TaskDataError: If folders are absent, or an image has no label or a label no image; all are named.
    """
    roots = _roots(folder, "images")
    kind, task = ("masks", Task.SEGMENT) if labels.quantity is None else ("values", Task.ESTIMATE)
    found = [
        (split, one) for split, root in roots for one in _with_labels(root, kind, folder)
    ]  # named before hours of reading
    layout = settled(layout, (one[1] for _, one in found))
    polygons = any((root / "labels").is_dir() and not (root / kind).is_dir() for _, root in roots)
    told = (f"ground in no polygon: {labels.outside} ({task}.data.outside)",) if polygons else ()

    def scenes(reading: Reading) -> Iterator[LabelledScene]:
        note_left_out(folder, (path for _, one in found for path in one[1:]), reading)
        masks = Masks(labels, _group(layout, task))
        for split, (name, image, truth) in found:
            reading.of += 1
            try:
                picture = read_picture(image, layout, reading.note)
                target: Targets
                if labels.quantity is not None and truth.suffix.lower() in IMAGE_SUFFIXES:
                    target = read_values(truth, picture, image)
                elif truth.suffix.lower() in IMAGE_SUFFIXES:
                    target = masks.read(truth, picture, image)
                elif picture.grid is None:
                    raise TaskDataError(f"{truth}: its image has no CRS, so polygons cannot be laid on it")
                else:
                    target = draw_polygons(truth, picture.grid, labels, reading.note)
            except (ReadError, OSError) as error:
                reading.skipped.append(f"{image.relative_to(folder)}: {error}")
                continue
            yield scene_of(name, split, [picture], target, reading.grounds)
        masks.check_all()

    rule = STATED_BY_FOLDERS if roots[0][0] else None
    spec = folder_spec(task, folder, layout, labels.class_names, split_rule=rule, notes=told, quantity=labels.quantity)
    return LabelledScenes(spec, layout, scenes, chip_px=chip_px)


def pair_folder(folder: Path, layout: FolderFormat, labels: FolderLabels, *, chip_px: int | None) -> LabelledScenes:
    """Read `A/` (before), `B/` (after) and `label/` (0 unchanged; 1 or 255 changed) of the same names, as LEVIR-CD.

    Args:
        folder: Holds them, or `train/`, `val/` and `test/` with these inside.
        layout: What the images hold.
        labels: What the labels' values stand for.
        chip_px: Side of a sample; None: the shorter side of the first image.

    Raises:
        TaskDataError: If folders are absent, or a date or label is missing; all are named.
    """
    roots = _roots(folder, "A")
    kinds = [(name, IMAGE_SUFFIXES) for name in ("A", "B", "label")]
    found = [(split, one) for split, root in roots for one in _matched(root, folder, *kinds)]
    layout = settled(layout, (one[1] for _, one in found))

    def scenes(reading: Reading) -> Iterator[LabelledScene]:
        note_left_out(folder, (path for _, one in found for path in one[1:]), reading)
        masks = Masks(labels, _group(layout, Task.DETECT_CHANGE), white_is_second=True)
        for split, (name, before, after, truth) in found:
            reading.of += 1
            try:
                first, second = (read_picture(date, layout, reading.note) for date in (before, after))
                _check_dates(first, second, before, after, reading)
                target = masks.read(truth, first, before)
            except (ReadError, OSError) as error:
                reading.skipped.append(f"{before.relative_to(folder)}: {error}")
                continue
            yield scene_of(name, split, [first, second], target, reading.grounds)

    rule = STATED_BY_FOLDERS if roots[0][0] else None
    spec = folder_spec(Task.DETECT_CHANGE, folder, layout, CHANGE_CLASSES, split_rule=rule, colors=CHANGE_COLORS)
    return LabelledScenes(spec, layout, scenes, chip_px=chip_px)


def transition_folder(
    folder: Path, layout: FolderFormat, labels: FolderLabels, *, chip_px: int | None
) -> LabelledScenes:
    """Read `im1/` and `im2/` with `label1/` and `label2/` of the same names, as SECOND: what was, and what became.

    Args:
        folder: Holds them, or `train/`, `val/` and `test/` with these inside.
        layout: What the images hold.
        labels: What the labels' values stand for; 0, where it is no class, is unchanged ground, whatever its class (in
            labels of colours white).
        chip_px: Side of a sample; None: the shorter side of the first image.

    Raises:
        TaskDataError: If folders are absent, a date or label is missing (all are named), or one label says that a pixel
            is unchanged and the other gives its class.
    """
    roots = _roots(folder, "im1")
    kinds = [(name, IMAGE_SUFFIXES) for name in ("im1", "im2", "label1", "label2")]
    found = [(split, one) for split, root in roots for one in _matched(root, folder, *kinds)]
    layout = settled(layout, (one[1] for _, one in found))
    names, has_unchanged = labels.class_names, 0 not in (*labels.values, *labels.ignore)
    if has_unchanged:
        colors = ((255, 255, 255), *labels.colors) if labels.colors else ()
        labels = replace(labels, class_names=("unchanged", *names), values=(0, *labels.values), colors=colors)

    def scenes(reading: Reading) -> Iterator[LabelledScene]:
        note_left_out(folder, (path for _, one in found for path in one[1:]), reading)
        masks = Masks(labels, _group(layout, Task.DETECT_TRANSITIONS))
        for split, (name, before, after, was, became) in found:
            reading.of += 1
            try:
                first, second = (read_picture(date, layout, reading.note) for date in (before, after))
                _check_dates(first, second, before, after, reading)
                labelled = [masks.read(path, first, before) for path in (was, became)]
            except (ReadError, OSError) as error:
                reading.skipped.append(f"{before.relative_to(folder)}: {error}")
                continue
            target = (
                _transitions(labelled[0], labelled[1], len(names), (was, became))
                if has_unchanged
                else encode(labelled[0], labelled[1], len(names))
            )
            yield scene_of(name, split, [first, second], target, reading.grounds)

    rule = STATED_BY_FOLDERS if roots[0][0] else None
    told = ("ground of 0 in the labels is unchanged; its class is not known",) if has_unchanged else ()
    spec = folder_spec(Task.DETECT_TRANSITIONS, folder, layout, names, split_rule=rule, notes=told)
    return LabelledScenes(spec, layout, scenes, chip_px=chip_px)


def _transitions(
    before: NDArray[np.uint8], after: NDArray[np.uint8], classes: int, paths: tuple[Path, Path]
) -> NDArray[np.uint8]:
    """Number transitions where 0 is unchanged and k + 1 a class at each date."""
    known = (before != IGNORE) & (after != IGNORE)
    torn = known & ((before == 0) != (after == 0))
    if torn.any():
        row, column = np.argwhere(torn)[0]
        raise TaskDataError(
            f"{paths[1]}: {plural(int(torn.sum()), 'pixel')}, the first at row {row}, column {column}, unchanged (0) in"
            f" one of {paths[0].parent.name}/ and {paths[1].parent.name}/ and of a class in the other: give both dates"
            " their class, or write 0 into both"
        )
    was, became = (np.where(date == IGNORE, IGNORE, date - np.uint8(1)).astype(np.uint8) for date in (before, after))
    return np.where((before == 0) & (after == 0), np.uint8(UNCHANGED), encode(was, became, classes))


def _check_dates(first: ImageFile, second: ImageFile, before: Path, after: Path, reading: Reading) -> None:
    """Reject two dates that are not pixel on pixel; note two that are one picture, which shows no change."""
    check_grids(first, second, before, after)
    if np.array_equal(first.pixels, second.pixels):
        reading.note("pairs whose two dates are the same picture", before.stem)


def _group(layout: FolderFormat, task: Task) -> str:
    return layout.group or f"{task}.data"


def _roots(folder: Path, inner: str) -> list[tuple[str | None, Path]]:
    """Find the folders that hold `inner`, with their split.

    Raises:
        TaskDataError: If there are none, some lie in splits and some do not, or one of the splits holds none.
    """
    found = [split for split in SPLITS if (folder / split / inner).is_dir()]
    others = [split for split in SPLITS if (folder / split).is_dir() and split not in found]
    if (folder / inner).is_dir():
        if found:
            raise TaskDataError(f"{folder} holds {inner}/ and {found[0]}/{inner}/: keep one of the two layouts")
        return [(None, folder)]
    if not found:
        raise TaskDataError(f"{folder} holds neither {inner}/ nor {', '.join(f'{s}/{inner}/' for s in SPLITS)}")
    if others:
        raise TaskDataError(
            f"{folder / others[0]} holds no folder {inner}/ as {found[0]}/ does: it would be in no split"
        )
    return [(split, folder / split) for split in found]


def _with_labels(root: Path, kind: str, folder: Path) -> list[tuple[Any, ...]]:
    """`(name, image, label)` of a folder; its labels are polygons where there are no rasters of the kind."""
    labels = (kind, IMAGE_SUFFIXES) if (root / kind).is_dir() else ("labels", VECTOR_SUFFIXES)
    return _matched(root, folder, ("images", IMAGE_SUFFIXES), labels)


def _matched(root: Path, folder: Path, *kinds: tuple[str, Sequence[str]]) -> list[tuple[Any, ...]]:
    """`(name, file of each kind)`; every name must be in every kind, once."""
    files: list[dict[str, Path]] = []
    for kind, suffixes in kinds:
        if not (root / kind).is_dir():
            raise TaskDataError(f"{root} has no folder {kind}/ beside {kinds[0][0]}/")
        there = files_in(root / kind, folder, suffixes)
        files.append({path.stem: path for path in there})
        if len(files[-1]) < len(there):
            twice = next(path for path in there if files[-1][path.stem] != path)
            raise TaskDataError(
                f"{root / kind}: {twice.name} and {files[-1][twice.stem].name} are files of one name: keep one of them"
            )
    everyone = set().union(*files)
    lacking = [
        f"{name} ({', '.join(kind for (kind, _), found in zip(kinds, files, strict=True) if name not in found)})"
        for name in sorted(everyone)
        if any(name not in found for found in files)
    ]
    if lacking or not everyone:
        read = "; ".join(f"{kind}/ {' '.join(suffixes)}" for kind, suffixes in kinds)
        raise TaskDataError(
            f"{root}: {len(lacking)} of {len(everyone)} names are not in every folder"
            f" ({', '.join(kind for kind, _ in kinds)}); missing: {', '.join(lacking[:5])}"
            f"{' …' if len(lacking) > 5 else ''}. Endings that are read: {read}"
        )
    return [(name, *(found[name] for found in files)) for name in sorted(everyone)]
