"""Task data on disk: images, labels and who they are; written once, read lazily.

A task data set is a folder: `task.json` (what it is), `arrays.zarr` (the pixels, sharded) and `samples.parquet` (one
row per sample). Pixels stay integers with one typed encoding, so a unit is never guessed when they are read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from a2mae.sensors import Band, Encoding, Units

FORMAT_VERSION = 1
IGNORE = 255
"""Label of what is not scored: nodata, cloud, a class that training never saw."""
SAMPLES_PER_SHARD = 256
CHUNK_BYTES = 128 * 2**10

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
"""Columns of `samples.parquet`; row i describes row i of the arrays."""

SPLITS = ("train", "val", "test")


class TaskDataError(ValueError):
    """Task data that cannot be what was asked for; the message says what was found, expected, and what to change."""


class Task(StrEnum):
    """What is predicted."""

    CLASSIFY = "classify"
    """One class per image."""
    SEGMENT = "segment"
    """One class per pixel."""
    DETECT_CHANGE = "detect_change"
    """Changed or not, per pixel, from two dates."""


@dataclass(frozen=True)
class TaskSpec:
    """What a task data set holds.

    Attributes:
        task: What is predicted.
        source: Where it was cut from, for people: "simulated" or a folder's name.
        class_names: One per class index.
        colors: RGB 0–255 per class for maps; empty where none were given.
        bands: Bands of the images in stored order.
        encoding: How stored integers become physical values.
        gsd_m: Grid of the stored images, metres per pixel.
        notes: Rules that were applied while cutting (what was left out and why), for the report.
    """

    task: Task
    source: str
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    bands: tuple[Band, ...]
    encoding: Encoding
    gsd_m: float
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 2 <= len(self.class_names) < IGNORE:
            raise TaskDataError(f"{self.task}: 2 to {IGNORE - 1} classes are needed, found {len(self.class_names)}")
        if len(set(self.class_names)) != len(self.class_names):
            raise TaskDataError(f"{self.task}: class names must be unique, found {', '.join(self.class_names)}")
        if self.colors and len(self.colors) != len(self.class_names):
            raise TaskDataError(f"{self.task}: {len(self.colors)} colours for {len(self.class_names)} classes")

    @property
    def band_names(self) -> tuple[str, ...]:
        """The bands' names in stored order."""
        return tuple(band.name for band in self.bands)

    def band_index(self, name: str) -> int:
        """Position of a band, by name or common name.

        Raises:
            TaskDataError: If the data has no such band; the message lists those it has.
        """
        for index, band in enumerate(self.bands):
            if name in (band.name, band.common_name):
                return index
        known = ", ".join(f"{band.name} ({band.common_name})" if band.common_name else band.name for band in self.bands)
        raise TaskDataError(f"{self.task} data of {self.source!r} has no band {name!r}; it has {known}")

    def to_dict(self) -> dict[str, object]:
        """JSON-ready; `task_spec_from_dict` reads it back."""
        return dataclasses.asdict(self)


def task_spec_from_dict(data: dict[str, Any]) -> TaskSpec:
    """Read `TaskSpec.to_dict` back."""
    return TaskSpec(
        task=Task(data["task"]),
        source=str(data["source"]),
        class_names=tuple(data["class_names"]),
        colors=tuple((int(r), int(g), int(b)) for r, g, b in data["colors"]),
        bands=tuple(Band(**band) for band in data["bands"]),
        encoding=Encoding(**{**data["encoding"], "units": Units(data["encoding"]["units"])}),
        gsd_m=float(data["gsd_m"]),
        notes=tuple(data["notes"]),
    )


@dataclass(frozen=True)
class Sample:
    """One sample on its way to disk.

    Attributes:
        pixels: `(T, C, H, W)` integers in the data set's encoding.
        valid: `(T, H, W)` bool, False where nothing usable was seen.
        target: `(H, W)` uint8 classes with `IGNORE` where not scored, or a 0-d array for a class per image.
        row: Values of `SAMPLE_COLUMNS`.
    """

    pixels: npt.NDArray[np.integer[Any]]
    valid: npt.NDArray[np.bool_]
    target: npt.NDArray[np.uint8]
    row: dict[str, object]


class TaskDataSource(Protocol):
    """Task data that can be written."""

    @property
    def spec(self) -> TaskSpec:
        """What it holds."""

    def samples(self) -> Iterator[Sample]:
        """Every sample, read as it is asked for."""


def write_task_data(path: Path, spec: TaskSpec, samples: Iterable[Sample]) -> int:
    """Write a task data set beside its place and move it in when it is whole.

    Args:
        path: The data set's folder; what was there is replaced.
        spec: What the samples are.
        samples: Drawn lazily; one shard of them is in memory at a time.

    Returns:
        How many samples were written.

    Raises:
        TaskDataError: If there are none, shapes differ, a label is outside the classes, or splits leak.
    """
    building = path.with_name(f".{path.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    writer = _ShardWriter(building / "arrays.zarr", spec)
    rows: list[dict[str, object]] = []
    for sample in samples:
        rows.append(sample.row)
        writer.add(sample)
    if not rows:
        raise TaskDataError(f"{spec.task}: {spec.source!r} gave no samples" + "".join(f"; {n}" for n in spec.notes))
    writer.close()
    table = pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS)).astype(SAMPLE_COLUMNS)
    check_splits(table, spec)
    table.to_parquet(building / "samples.parquet", index=False)
    document = {"format_version": FORMAT_VERSION, "samples": len(rows), **spec.to_dict()}
    (building / "task.json").write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(path, ignore_errors=True)
    building.replace(path)
    return len(rows)


class _ShardWriter:
    """Appends samples to the arrays, one whole shard at a time."""

    def __init__(self, url: Path, spec: TaskSpec) -> None:
        self._group = zarr.open_group(url, mode="w", zarr_format=3)
        self._spec = spec
        self._pending: list[Sample] = []
        self._written = 0

    def add(self, sample: Sample) -> None:
        first = self._pending[0] if self._pending else sample
        if sample.pixels.shape != first.pixels.shape or sample.target.shape != first.target.shape:
            raise TaskDataError(
                f"sample {sample.row['sample_id']!r}: images {sample.pixels.shape} with target {sample.target.shape},"
                f" but the ones before have {first.pixels.shape} and {first.target.shape}; one data set has one grid"
            )
        out_of_range = np.setdiff1d(sample.target, [*range(len(self._spec.class_names)), IGNORE])
        if out_of_range.size:
            raise TaskDataError(
                f"sample {sample.row['sample_id']!r}: labels {out_of_range.tolist()} are outside the"
                f" {len(self._spec.class_names)} classes (0 to {len(self._spec.class_names) - 1}; {IGNORE} is ignored)"
            )
        self._pending.append(sample)
        if len(self._pending) == SAMPLES_PER_SHARD:
            self._flush()

    def close(self) -> None:
        if self._pending:
            self._flush()

    def _flush(self) -> None:
        blocks = {
            "images": np.stack([sample.pixels for sample in self._pending]).astype(self._spec.encoding.dtype),
            "valid": np.stack([sample.valid for sample in self._pending]),
            "targets": np.stack([sample.target for sample in self._pending]),
        }
        for name, block in blocks.items():
            if name not in self._group:
                per_chunk = _samples_per_chunk(block[0].nbytes)
                self._group.create_array(
                    name,
                    shape=(0, *block.shape[1:]),
                    chunks=(per_chunk, *block.shape[1:]),
                    shards=(SAMPLES_PER_SHARD, *block.shape[1:]),
                    dtype=block.dtype,
                )
            array = self._group[name]
            assert isinstance(array, zarr.Array)
            if array.shape[1:] != block.shape[1:]:
                raise TaskDataError(
                    f"sample {self._pending[0].row['sample_id']!r}: {name} {block.shape[1:]},"
                    f" but the ones before have {array.shape[1:]}; one data set has one grid"
                )
            array.resize((self._written + len(block), *block.shape[1:]))
            array[self._written :] = block
        self._written += len(self._pending)
        self._pending = []


def _samples_per_chunk(sample_bytes: int) -> int:
    """A power of two that makes chunks of about 128 KiB: small samples are not worth a chunk each."""
    wanted = max(CHUNK_BYTES // max(sample_bytes, 1), 1)
    return int(min(2 ** (wanted.bit_length() - 1), SAMPLES_PER_SHARD))


def check_splits(samples: pd.DataFrame, spec: TaskSpec) -> None:
    """Refuse splits that would make a score mean nothing.

    Args:
        samples: Columns of `SAMPLE_COLUMNS`.
        spec: What the samples are.

    Raises:
        TaskDataError: For an unknown split name, an empty train or test split, a place in two splits, or a class in
            test that training never saw; the message names them.
    """
    unknown = sorted(set(samples["split"]) - set(SPLITS))
    if unknown:
        raise TaskDataError(
            f"{spec.task}: unknown splits {', '.join(map(repr, unknown))}; expected {', '.join(SPLITS)}"
        )
    for split in ("train", "test"):
        if not (samples["split"] == split).any():
            counts = samples["split"].value_counts().to_dict()
            raise TaskDataError(f"{spec.task}: no samples in split {split!r} (found {counts}); more places are needed")
    leaks = samples.groupby("place")["split"].nunique()
    leaking = leaks.index[leaks > 1].tolist()
    if leaking:
        raise TaskDataError(
            f"{spec.task}: {len(leaking)} places are in more than one split, so test would be seen in training:"
            f" {', '.join(map(str, leaking[:5]))}{' …' if len(leaking) > 5 else ''}"
        )
    if spec.task is Task.CLASSIFY:
        seen = set(samples.loc[samples["split"] == "train", "label"])
        unseen = sorted(set(samples.loc[samples["split"] == "test", "label"]) - seen)
        if unseen:
            raise TaskDataError(
                f"{spec.task}: classes in test that training never saw:"
                f" {', '.join(spec.class_names[int(label)] for label in unseen)}"
            )


@dataclass(frozen=True)
class TaskArrays:
    """Samples as read.

    Attributes:
        images: `(N, T, C, H, W)` float32 in the data's units, 0 where not valid.
        valid: `(N, T, H, W)` bool.
        targets: `(N,)` or `(N, H, W)` uint8.
    """

    images: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    targets: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class StoredArrays:
    """Samples as they are stored: a quarter to a half of the memory of `TaskArrays`.

    Attributes:
        images: `(N, T, C, H, W)` integers in the data's encoding.
        valid: `(N, T, H, W)` bool.
        targets: `(N,)` or `(N, H, W)` uint8.
    """

    images: npt.NDArray[np.integer[Any]]
    valid: npt.NDArray[np.bool_]
    targets: npt.NDArray[np.uint8]


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
        self.spec = task_spec_from_dict(document)
        self.samples: pd.DataFrame = pd.read_parquet(path / "samples.parquet")
        group = zarr.open_group(path / "arrays.zarr", mode="r")
        self._images, self._valid, self._targets = (
            cast("zarr.Array[Any]", group[name]) for name in ("images", "valid", "targets")
        )
        if any(array.shape[0] != len(self.samples) for array in (self._images, self._valid, self._targets)):
            raise TaskDataError(f"task data at {path} is torn: its arrays and table differ in length; prepare it again")

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """`(T, C, H, W)` of one sample."""
        times, bands, height, width = self._images.shape[1:]
        return times, bands, height, width

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Rows of a split in stored order."""
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
        stored = np.asarray(self._images.get_orthogonal_selection((rows,)))
        if bands is not None:
            stored = stored[:, :, list(bands)]
        valid = np.asarray(self._valid.get_orthogonal_selection((rows,)))
        return StoredArrays(stored, valid, np.asarray(self._targets.get_orthogonal_selection((rows,))))

    def decode(self, stored: StoredArrays) -> TaskArrays:
        """Stored integers as physical values, 0 where not valid."""
        encoding = self.spec.encoding
        images = stored.images.astype(np.float32) * np.float32(encoding.scale) + np.float32(encoding.offset)
        images *= stored.valid[:, :, None]
        return TaskArrays(images, stored.valid, stored.targets)

    @property
    def digest(self) -> str:
        """SHA-256 of what it holds: description, table and labels, so of which pixels in which order."""
        digest = hashlib.sha256(json.dumps(self.spec.to_dict(), sort_keys=True, default=str).encode())
        digest.update(pd.util.hash_pandas_object(self.samples, index=False).to_numpy().tobytes())
        digest.update(str(self._images.shape).encode())
        digest.update(self.read_targets(np.arange(len(self.samples), dtype=np.int64)).tobytes())
        return digest.hexdigest()

    def read_targets(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Labels alone, `(N,)` or `(N, H, W)`."""
        return np.asarray(self._targets.get_orthogonal_selection((rows,)))
