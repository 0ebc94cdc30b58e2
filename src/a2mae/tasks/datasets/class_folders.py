"""Classification data from a folder per class or a table of labels.

The user's own images whose classes stand in a table: just one each, or any number.

Classification data from a folder per class: EuroSAT's JPEGs, its 13-band GeoTIFFs, or the user's own.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform, transform_bounds

from a2mae.tasks.datasets.formats import IMAGE_SUFFIXES, FolderFormat, ValueRange, check_integers
from a2mae.tasks.datasets.labelled import MAX_SKIPPED_SHARE, LabelledScene, LabelledScenes, Reading
from a2mae.tasks.datasets.scene_folders import folder_spec, read_picture, scene_of
from a2mae.tasks.datasets.splits import BLOCK_DEG, position_of, split_of, square_of
from a2mae.tasks.datasets.task_data import SPLITS, Sample, Task, TaskDataError, TaskSpec

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


_BY_NAME = "split by a hash of the file name: 70 % train, 10 % val, 20 % test"
_BY_PLACE = f"split by place ({BLOCK_DEG:g} degrees) where georeferenced, else by a hash of the file name"
_STATED = "split as the folders train/, val/ and test/ say"


@dataclass(frozen=True)
class _File:
    """An image, its class, and its split where a folder says it."""

    path: Path
    label: str
    split: str | None


@dataclass(frozen=True)
class _Where:
    """Where an image lies: its centre and its box (west, south, east, north), degrees."""

    lon: float
    lat: float
    box: tuple[float, float, float, float]


class ClassFolder:
    """Reads a folder per class, sample by sample; unreadable files are skipped, counted and named.

    The class folders may lie in `train/`, `val/` and `test/`. Without these, files that say where they lie are split
    by place and others by a hash of their names; the files of a benchmark always are, see `FolderFormat`.

    Attributes:
        spec: What the samples are.
    """

    def __init__(
        self,
        folder: Path,
        layout: FolderFormat,
        *,
        max_skipped_share: float = MAX_SKIPPED_SHARE,
        max_files: int | None = None,
    ) -> None:
        """Prepare to read.

        Args:
            folder: One folder per class inside, or `train/`, `val/` and `test/` with these inside.
            layout: What the files hold.
            max_skipped_share: More unreadable files than this share are an error.
            max_files: Read only so many, spread over the classes by a hash of their names.

        Raises:
            TaskDataError: If the folder is absent, has no class folders, or a class has no images to train on.
        """
        self.folder = folder
        self.layout = layout
        self._max_skipped_share = max_skipped_share
        self._reading = Reading(max_skipped_share=max_skipped_share)
        names, self._files = _classes_and_files(folder, layout.group or "classify.data")
        stated = self._files[0].split is not None
        self.spec = TaskSpec(
            task=Task.CLASSIFY,
            source=folder.name,
            class_names=names,
            colors=(),
            bands=layout.sensor.bands,
            encoding=layout.sensor.encoding,
            gsd_m=layout.gsd_m,
            notes=(_STATED if stated else _BY_NAME if layout.benchmark else _BY_PLACE,),
        )
        if max_files is not None:
            spread = sorted(self._files, key=lambda file: position_of(f"subset/{file.path.stem}"))
            self._files = sorted(spread[:max_files], key=lambda file: file.path)

    @property
    def sensors(self) -> tuple[str, ...]:
        """The one that the layout states."""
        return (self.layout.sensor.id,)

    def __len__(self) -> int:
        """How many image files there are."""
        return len(self._files)

    @property
    def skipped(self) -> list[str]:
        """`path: reason` of every file left out so far."""
        return self._reading.skipped

    def samples(self) -> Iterator[Sample]:
        """Read every file.

        Raises:
            TaskDataError: If files do not fit the stated bands, size or units, or too many cannot be read.
        """
        labels = {name: index for index, name in enumerate(self.spec.class_names)}
        seen = ValueRange(self.layout)
        self._reading = Reading(max_skipped_share=self._max_skipped_share)
        for file in self._files:
            self._reading.of += 1
            try:
                pixels, where = _read(file.path)
            except (RasterioError, OSError) as error:
                self._reading.skipped.append(f"{file.path.relative_to(self.folder)}: {error}")
                continue
            self._check(file.path, pixels)
            seen.add(pixels)
            split, place = self._split_and_place(file, where)
            label = labels[file.label]
            yield Sample(
                pixels=pixels[None],
                valid=np.ones((1, *pixels.shape[1:]), bool),
                target=np.array(label, np.uint8),
                row={
                    "sample_id": self._name(file),
                    "split": split,
                    "place": place,
                    "sensor": self.layout.sensor.id,
                    "sensor_before": "",
                    "gsd_m": self.layout.gsd_m,
                    "lon": math.nan if where is None else where.lon,
                    "lat": math.nan if where is None else where.lat,
                    "day": math.nan,
                    "day_before": math.nan,
                    "label": label,
                },
            )
        seen.check(str(self.folder))
        self._reading.check(str(self.folder))

    def late_notes(self) -> tuple[str, ...]:
        """What was left out or lies on the ground of another split, known once all was read."""
        return self._reading.notes()

    def _name(self, file: _File) -> str:
        """The path in the folder, without its suffix: `Forest/Forest_12`, `train/Forest/Forest_12`."""
        return file.path.relative_to(self.folder).with_suffix("").as_posix()

    def _split_and_place(self, file: _File, where: _Where | None) -> tuple[str, str]:
        name = self._name(file)
        if file.split is not None:
            own = name.removeprefix(f"{file.split}/")
            return file.split, name if where is None else self._reading.grounds.place(own, file.split, where.box)
        place = name if where is None or self.layout.benchmark else square_of(where.lon, where.lat)
        return split_of(place), place

    def _check(self, path: Path, pixels: npt.NDArray[np.integer[Any]]) -> None:
        bands = len(self.layout.sensor.bands)
        if pixels.shape[0] != bands:
            raise TaskDataError(
                f"{path}: {pixels.shape[0]} bands, but the stated format has {bands}"
                f" ({', '.join(self.layout.sensor.band_names)}); {self.layout.advice}"
            )
        check_integers(path, pixels, self.layout)


def _classes_and_files(folder: Path, group: str) -> tuple[tuple[str, ...], list[_File]]:
    """Every class by name, and every image in a fixed order.

    Raises:
        TaskDataError: If there is no folder, fewer than two classes, or a class without an image to train on.
    """
    if not folder.is_dir():
        raise TaskDataError(f"{group}.folder: no folder at {folder}")
    roots: list[tuple[str | None, Path]] = [(split, folder / split) for split in _stated_splits(folder)]
    files: list[_File] = []
    names: set[str] = set()
    for split, root in roots or [(None, folder)]:
        classes = _folders(root)
        names |= set(classes)
        files += [_File(path, name, split) for name in classes for path in sorted(_images(root / name))]
    if len(names) < 2:
        raise TaskDataError(f"{folder} must hold one folder per class with images inside; found {len(names)} folders")
    taught = {file.label for file in files if file.split in (None, "train")}
    if empty := sorted(names - taught):
        where = f"{folder}/train" if roots else str(folder)
        raise TaskDataError(
            f"{where}: no images ({', '.join(IMAGE_SUFFIXES)}) in class {', '.join(empty)}. Each folder is a class with"
            " its images inside; splits of your own are train/, val/ and test/ above the class folders, and no other"
            " folder beside them"
        )
    return tuple(sorted(names)), files


def _stated_splits(folder: Path) -> list[str]:
    """`train`, `val` and `test` where they alone are there and hold folders, no images; else none.

    Raises:
        TaskDataError: If such folders are there, but one of train and test is not.
    """
    found = _folders(folder)
    splits = [split for split in SPLITS if split in found]
    if not splits or len(splits) < len(found) or any(any(_images(folder / split)) for split in splits):
        return []
    if missing := {"train", "test"} - set(splits):
        raise TaskDataError(
            f"{folder} holds {', '.join(f'{split}/' for split in splits)}, but no {', '.join(sorted(missing))}/: splits"
            " of your own need train/ and test/, each with the class folders inside"
        )
    return splits


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _read(path: Path) -> tuple[npt.NDArray[np.integer[Any]], _Where | None]:
    """Pixels `(C, H, W)`, and where they lie (None: not georeferenced)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # JPEGs are not; their lon/lat stay NaN
        with rasterio.open(path) as source:
            pixels = source.read()
            if source.crs is None:
                return pixels, None
            x, y = source.xy((source.height - 1) / 2, (source.width - 1) / 2)
            (lon,), (lat,) = transform(source.crs, "EPSG:4326", [x], [y])
            box = transform_bounds(source.crs, "EPSG:4326", *source.bounds)
    return pixels, _Where(float(lon), float(lat), box)
