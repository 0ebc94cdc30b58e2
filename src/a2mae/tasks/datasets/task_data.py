"""Task data on disk: images, labels and a table of samples; written once, read lazily.

A task data set is a folder: `task.json` (what it is), `arrays.zarr` (the pixels, sharded) and `samples.parquet` (one
row per sample). Pixels stay integers with one typed encoding, so a unit is never guessed when they are read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from a2mae.config import read_back
from a2mae.errors import InputError, plain_text
from a2mae.raster.statements import FileNumbers
from a2mae.sensors import Band, Encoding
from a2mae.tasks.palette import class_colours
from a2mae.tasks.registry import Task
from a2mae.tasks.transitions import MOST_CLASSES, UNKNOWN, transition_colors, transition_names

FORMAT_VERSION = 1
IGNORE = UNKNOWN
_LONGEST_NAME = 200
_LARGEST = float(np.finfo(np.float32).max)
"""Label of what is not scored: nodata, cloud, unlabelled ground, a class that training never saw."""

SAMPLE_COLUMNS: dict[str, str] = {
    "sample_id": "object",
    "split": "object",  # "train", "val" or "test": by place, never by image
    "place": "object",  # location id; the sample's own name where places are not known
    "sensor": "object",  # of the last date
    "sensor_before": "object",  # of the first date of a pair; empty otherwise
    "gsd_m": "float64",  # of the stored grid, metres
    "lon": "float64",  # centre, degrees; NaN where not georeferenced
    "lat": "float64",
    "day": "float64",  # days since 1970-01-01 UTC of the last date; NaN where not known
    "day_before": "float64",
    "label": "int64",  # class index (classification), -1 otherwise
}
"""Columns of `samples.parquet`; row i describes row i of the arrays. Further ones (text) say of which groups it is."""

SPLITS = ("train", "val", "test")
CHANGE_CLASSES = ("unchanged", "changed")
CHANGE_COLORS = ((235, 235, 235), (214, 39, 40))


class TaskDataError(InputError):
    """Raised for task data that cannot be what was asked for."""


Targets = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""Labels: classes with `IGNORE`, or values with NaN, where nothing is known."""


def is_labelled(targets: Targets) -> npt.NDArray[np.bool_]:
    """Tell where something is known; the same shape."""
    return np.isfinite(targets) if targets.dtype.kind == "f" else np.asarray(targets != IGNORE)


def _as_seen(name: str) -> str:
    """A name as a reader sees it: without signs that take no room, with single spaces and letters coded in one way."""
    seen = "".join(sign for sign in unicodedata.normalize("NFC", name) if unicodedata.category(sign) != "Cf")
    return " ".join(seen.split())


def same_names(names: Iterable[str], as_read: Callable[[str], str]) -> list[str]:
    """Return the first of some names that are the same when they are read in a way; empty where there are none.

    Args:
        names: Of classes.
        as_read: Gives a name as it is read.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(as_read(name), []).append(name)
    return next((alike for alike in found.values() if len(alike) > 1), [])


def read_number(text: str) -> float:
    """Read a number as tables write it: `float` alone takes 1_5 for 15.

    Raises:
        ValueError: If it is none.
    """
    if "_" in text:
        raise ValueError(f"{text!r} is no number")
    return float(text)


@dataclass(frozen=True)
class Quantity:
    """What a value stands for.

    Attributes:
        name: For people and as the name of a map's band, as "tree height".
        units: As "m"; empty: it has none.
    """

    name: str
    units: str = ""

    def __str__(self) -> str:
        """Name and units, as the title of an axis."""
        return f"{self.name}, {self.units}" if self.units else self.name

    def read(self, found: object, where: str) -> float:
        """Read a value of a table; NaN where there is none.

        Args:
            found: In a cell or an attribute: text or a number.
            where: It stands, for the message.

        Raises:
            TaskDataError: For what is no number, or infinite.
        """
        text = "" if pd.isna(found) else str(found).strip()  # type: ignore[call-overload]  # any scalar
        try:
            value = read_number(text or "nan")
        except ValueError as error:
            comma = text.replace(",", "", 1).lstrip("-").isdigit()
            advice = "write a decimal point, not a comma" if comma else "leave it empty where it is not known"
            raise TaskDataError(f"{where}: {self.name} is {text[:80]!r}, expected a number; {advice}") from error
        if abs(value) > _LARGEST:
            raise TaskDataError(
                f"{where}: {self.name} is {text!r}, expected a finite number, or nothing where it is not known; the"
                f" largest is {_LARGEST:.1e}"
            )
        return value


@dataclass(frozen=True)
class SetSensor:
    """How the images of a sensor are stored among those of others.

    Attributes:
        id: Of the sensor.
        encoding: How its stored integers become physical values.
        lacks: Names of the data set's bands that it does not have.
    """

    id: str
    encoding: Encoding
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskSpec:
    """What a task data set holds.

    Attributes:
        task: What is predicted.
        source: Where it was cut from, for people: "simulated" or a folder's name.
        class_names: One per class index; empty where labels are values.
        colors: RGB 0–255 per class for maps; empty where none were given.
        bands: Bands of the images in stored order.
        encoding: How stored integers become physical values.
        gsd_m: Grid of the stored images, metres per pixel.
        notes: Rules that were applied while cutting (what was left out and why), for the report.
        multi_label: Classification where an image has any number of classes: a target is `(K,)` of 0 and 1.
        float_factors: Scale and offset by which files of floats were read that are not tagged with others.
        numbers: How those of the first image file were read; None where samples are not cut from files of the user's.
        quantity: What labels are values of; None: they are classes.
        per_pixel: Whether a label is a map of the ground, else it is of a whole image; None: as the task's usually are.
        set_sensors: Those of the images of a sample, where samples are image sets; else empty.
    """

    task: Task
    source: str
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    bands: tuple[Band, ...]
    encoding: Encoding
    gsd_m: float
    notes: tuple[str, ...] = ()
    multi_label: bool = False
    float_factors: tuple[float, float] = (1.0, 0.0)
    numbers: FileNumbers | None = None
    quantity: Quantity | None = None
    per_pixel: bool | None = None
    set_sensors: tuple[SetSensor, ...] = ()

    def __post_init__(self) -> None:
        """Reject what cannot be meant."""
        if not 1e-3 <= self.gsd_m <= 1e6:
            raise TaskDataError(f"{self.task}: gsd_m must be 0.001 to 1,000,000 metres per pixel, found {self.gsd_m}")
        if self.per_pixel is None:
            object.__setattr__(self, "per_pixel", self.task.kind.per_pixel)
        if self.task.kind.values != (self.quantity is not None):
            raise TaskDataError(f"{self.task}: labels are {'values' if self.task.kind.values else 'classes'}")
        if self.quantity is not None:
            return
        if not 2 <= len(self.class_names) < IGNORE:
            raise TaskDataError(f"{self.task}: 2 to {IGNORE - 1} classes are needed, found {len(self.class_names)}")
        for name in self.class_names:
            if not name.strip() or len(name) > _LONGEST_NAME or plain_text(name) != name or "\n" in name:
                raise TaskDataError(
                    f"{self.task}: {name[:40]!r} is no name of a class: it stands in maps, tables and legends, so it is"
                    f" one line of 1 to {_LONGEST_NAME} letters"
                )
        if len(set(self.class_names)) != len(self.class_names):
            raise TaskDataError(f"{self.task}: class names must be unique, found {', '.join(self.class_names)}")
        if alike := same_names(self.class_names, _as_seen):
            raise TaskDataError(
                f"{self.task}: the class names {' and '.join(map(ascii, alike))} look the same: they differ by spaces,"
                " signs that are not seen, or how a letter is coded; make one class of them, or name them otherwise"
            )
        if self.task.kind.transitions and len(self.class_names) > MOST_CLASSES:
            raise TaskDataError(
                f"{self.task}: at most {MOST_CLASSES} classes, so that a map has a number for each pair, found"
                f" {len(self.class_names)}: join classes that are alike"
            )
        if self.colors and len(self.colors) != len(self.class_names):
            raise TaskDataError(f"{self.task}: {len(self.colors)} colours for {len(self.class_names)} classes")

    @property
    def label_names(self) -> tuple[str, ...]:
        """What labels and maps count: the classes, or of semantic change every pair of them."""
        return transition_names(self.class_names) if self.task.kind.transitions else self.class_names

    @property
    def label_colors(self) -> tuple[tuple[int, int, int], ...]:
        """RGB of each of `label_names`: the data's own colours where it has any."""
        own = tuple(class_colours(self.colors, len(self.class_names)))
        return transition_colors(own) if self.task.kind.transitions else own

    @property
    def unlabelled(self) -> np.uint8 | np.float32:
        """What stands for a label that is not known: `IGNORE`, or NaN among values."""
        return np.uint8(IGNORE) if self.quantity is None else np.float32(np.nan)

    def lacks(self, sensor: str) -> tuple[str, ...]:
        """Name the bands that images of a sensor do not have, among those of image sets."""
        return next((one.lacks for one in self.set_sensors if one.id == sensor), ())

    @property
    def band_names(self) -> tuple[str, ...]:
        """The bands' names in stored order."""
        return tuple(band.name for band in self.bands)

    def band_index(self, name: str, group: str = "") -> int:
        """Find a band by name or common name.

        Args:
            name: Of the band.
            group: Parameters whose `bands` ask for it, for the message; empty: the task's.

        Raises:
            TaskDataError: If the data has no such band; the message lists those it has.
        """
        for index, band in enumerate(self.bands):
            if name in (band.name, band.common_name):
                return index
        known = ", ".join(f"{band.name} ({band.common_name})" if band.common_name else band.name for band in self.bands)
        raise TaskDataError(
            f"{self.task} data of {self.source!r} has no band {name!r}; it has {known}: set {group or self.task}.bands"
        )

    def to_dict(self) -> dict[str, object]:
        """Return it JSON-ready; `config.read_back` reads it."""
        found = dataclasses.asdict(self)
        if not self.set_sensors:  # samples of one image or a pair are described as before there were sets
            del found["set_sensors"]
        return found


@dataclass(frozen=True)
class Sample:
    """One sample on its way to disk.

    Attributes:
        pixels: `(T, C, H, W)` integers in the data set's encoding; of a pair of image sets, first the set before.
        valid: `(T, H, W)` bool, False where nothing usable was seen.
        target: `(H, W)` uint8 classes with `IGNORE`, or float32 values with NaN, where not scored; a 0-d array for a
            class or value per image; `(K,)` of 0 and 1 for any number of classes.
        row: Values of `SAMPLE_COLUMNS`.
        members: Of image sets: the sensor of each image as a position in `TaskSpec.set_sensors`, -1 where it is
            missing, and its day since 1970-01-01 UTC. The first image of each date is the one that `row` describes.
    """

    pixels: npt.NDArray[np.integer[Any]]
    valid: npt.NDArray[np.bool_]
    target: Targets
    row: dict[str, object]
    members: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TaskArrays:
    """Samples as read.

    Attributes:
        images: `(N, T, C, H, W)` float32 in the data's units, 0 where not valid.
        valid: `(N, T, H, W)` bool.
        targets: `(N,)`, `(N, K)` or `(N, H, W)` classes (uint8), or values (float32).
    """

    images: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    targets: Targets


@dataclass(frozen=True)
class StoredArrays:
    """Samples as they are stored, in a quarter to a half of the memory of `TaskArrays`.

    Attributes:
        images: `(N, T, C, H, W)` integers in the data's encoding.
        valid: `(N, T, H, W)` bool.
        targets: `(N,)`, `(N, K)` or `(N, H, W)` classes (uint8), or values (float32).
        sensor: `(N, T)` positions in `TaskSpec.set_sensors`, -1 for a missing image; None where samples are no sets.
    """

    images: npt.NDArray[np.integer[Any]]
    valid: npt.NDArray[np.bool_]
    targets: Targets
    sensor: npt.NDArray[np.int8] | None = None

    def take(self, rows: npt.NDArray[np.int64]) -> StoredArrays:
        """Return some of the samples."""
        sensor = None if self.sensor is None else self.sensor[rows]
        return StoredArrays(self.images[rows], self.valid[rows], self.targets[rows], sensor)


class TaskData:
    """A task data set opened for reading."""

    def __init__(self, path: Path) -> None:
        """Open a data set; only its table is read now.

        Raises:
            TaskDataError: If it is absent, half-written or of another format.
        """
        document_path = path / "task.json"
        if not document_path.is_file():
            raise TaskDataError(f"no task data at {path}: run its pipeline's prepare_data node first")
        document = json.loads(document_path.read_text())
        if document["format_version"] != FORMAT_VERSION:
            raise TaskDataError(
                f"task data at {path} is of format {document['format_version']}, this code reads {FORMAT_VERSION};"
                " delete the folder and prepare it again"
            )
        described = {key: value for key, value in document.items() if key not in ("format_version", "samples")}
        self.spec = read_back(TaskSpec, described, str(document_path))
        self.samples: pd.DataFrame = pd.read_parquet(path / "samples.parquet")
        group = zarr.open_group(path / "arrays.zarr", mode="r")
        self._images, self._valid, self._targets = (
            cast("zarr.Array[Any]", group[name]) for name in ("images", "valid", "targets")
        )
        if any(array.shape[0] != len(self.samples) for array in (self._images, self._valid, self._targets)):
            raise TaskDataError(f"task data at {path} is torn: its arrays and table differ in length; prepare it again")
        if self.spec.set_sensors:
            self._set_sensor, self._set_day = (
                np.asarray(cast("zarr.Array[Any]", group[name])[:]) for name in ("sensor", "day")
            )

    @cached_property
    def image_sensors(self) -> npt.NDArray[np.object_]:
        """Sensor of each image, `(N, T)` ids; empty where an image of a set is missing."""
        if self.spec.set_sensors:
            ids = np.array([*(one.id for one in self.spec.set_sensors), ""], object)
            return cast("npt.NDArray[np.object_]", ids[self._set_sensor])
        pair = self.spec.task.kind.dates == 2
        return self.samples[["sensor_before", "sensor"] if pair else ["sensor"]].to_numpy(object)

    @cached_property
    def image_days(self) -> npt.NDArray[np.float64]:
        """Day of each image, `(N, T)`; NaN where not known, of a missing image that of its date's first one."""
        if self.spec.set_sensors:
            return self._set_day
        pair = self.spec.task.kind.dates == 2
        return self.samples[["day_before", "day"] if pair else ["day"]].to_numpy(np.float64)

    @property
    def sensors(self) -> tuple[str, ...]:
        """Ids of the sensors of its images, sorted."""
        return tuple(sorted(set(self.image_sensors.ravel()) - {""}))

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """`(T, C, H, W)` of one sample."""
        times, bands, height, width = self._images.shape[1:]
        return times, bands, height, width

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Return the rows of a split in stored order."""
        return np.flatnonzero((self.samples["split"] == split).to_numpy()).astype(np.int64)

    def read(self, rows: npt.NDArray[np.int64], bands: Sequence[int] | None = None) -> TaskArrays:
        """Read samples.

        Args:
            rows: Row numbers in any order.
            bands: Band positions; all by default.
        """
        return self.decode(self.read_stored(rows, bands))

    def read_stored(self, rows: npt.NDArray[np.int64], bands: Sequence[int] | None = None) -> StoredArrays:
        """Read samples as they are stored; arguments as for `read`."""
        stored = _rows(self._images, rows)
        if bands is not None:
            stored = stored[:, :, list(bands)]
        sensor = self._set_sensor[rows] if self.spec.set_sensors else None
        return StoredArrays(stored, _rows(self._valid, rows), _rows(self._targets, rows), sensor)

    def decode(self, stored: StoredArrays) -> TaskArrays:
        """Turn stored integers into physical values, 0 where not valid."""
        scale, offset = np.float32(self.spec.encoding.scale), np.float32(self.spec.encoding.offset)
        if stored.sensor is not None:
            of_sensor = [(one.encoding.scale, one.encoding.offset) for one in self.spec.set_sensors]
            found = np.array([*of_sensor, (1.0, 0.0)], np.float32)[stored.sensor]  # (N, T, 2)
            scale, offset = np.moveaxis(found[..., None, None, None], 2, 0)
        images = stored.images.astype(np.float32) * scale + offset
        images *= stored.valid[:, :, None]
        return TaskArrays(images, stored.valid, stored.targets)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of description, table and labels, so of which pixels in which order."""
        digest = hashlib.sha256(json.dumps(self.spec.to_dict(), sort_keys=True, default=str).encode())
        digest.update(pd.util.hash_pandas_object(self.samples, index=False).to_numpy().tobytes())
        digest.update(str(self._images.shape).encode())
        if self.spec.set_sensors:
            digest.update(self._set_sensor.tobytes() + self._set_day.tobytes())
        digest.update(self.read_targets(np.arange(len(self.samples), dtype=np.int64)).tobytes())
        return digest.hexdigest()

    def read_targets(self, rows: npt.NDArray[np.int64]) -> Targets:
        """Read labels alone, `(N,)`, `(N, K)` or `(N, H, W)`."""
        return _rows(self._targets, rows)


_ROWS_AT_ONCE = 64
"""Of rows in any order: zarr makes an index of eight bytes for every value that it reads."""


def _rows(array: zarr.Array[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Read rows of an array in any order; neighbours in their order are one plain read."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return np.asarray(array[int(rows[0]) : int(rows[0]) + len(rows)])
    found = np.empty((len(rows), *array.shape[1:]), array.dtype)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        found[some] = array.get_orthogonal_selection((rows[some],))
    return found
