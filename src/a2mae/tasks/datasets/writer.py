"""Write task data: whole or not at all, and not if its splits would make a score mean nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import zarr

from a2mae.files import whole_folder, write_json
from a2mae.tasks.datasets.groups import grouped
from a2mae.tasks.datasets.task_data import (
    FORMAT_VERSION,
    IGNORE,
    SAMPLE_COLUMNS,
    SPLITS,
    Sample,
    Targets,
    TaskDataError,
    TaskSpec,
    is_labelled,
    same_names,
)
from a2mae.tasks.registry import Task
from a2mae.tasks.transitions import decode, is_changed

logger = logging.getLogger(__name__)

SAMPLES_PER_SHARD = 256
CHUNK_BYTES = 128 * 2**10
FEW_TO_LEARN_FROM = 5
"""Training samples of a class below which the user is warned: a handful tells little of how a class looks."""
MAX_SHARED_SHARE = 0.01
"""Equal images in different splits, as a share of the test split: more are rejected, fewer are noted."""


class TaskDataSource(Protocol):
    """Task data that can be written.

    Attributes:
        spec: What the samples are.
    """

    spec: TaskSpec

    @property
    def sensors(self) -> tuple[str, ...]:
        """Ids of the sensors of its samples, sorted."""

    def samples(self) -> Iterator[Sample]:
        """Yield every sample, read as it is asked for."""

    def late_notes(self) -> tuple[str, ...]:
        """Return rules that were applied while reading, for the report; asked for when every sample was read."""


def write_source(path: Path, source: TaskDataSource, groups: pd.DataFrame | None = None) -> int:
    """Write the samples of a source with `write_task_data`, and what it only knows once they were read."""
    return write_task_data(path, source.spec, source.samples(), late_notes=source.late_notes, groups=groups)


def write_task_data(
    path: Path,
    spec: TaskSpec,
    samples: Iterable[Sample],
    *,
    late_notes: Callable[[], tuple[str, ...]] = tuple,
    groups: pd.DataFrame | None = None,
) -> int:
    """Write a task data set beside its place and move it in when it is whole.

    Args:
        path: The data set's folder; what was there is replaced.
        spec: What the samples are.
        samples: Drawn lazily; one shard of them is in memory at a time.
        late_notes: Gives further notes once all samples were drawn.
        groups: What the samples are of (`read_groups`), for scores by group.

    Returns:
        How many samples were written.

    Raises:
        TaskDataError: If there are none, shapes differ, a label is outside the classes, or splits leak.
    """
    census = _Census(spec)
    rows: list[dict[str, object]] = []
    with whole_folder(path) as building:
        building.mkdir()
        writer = _ShardWriter(building / "arrays.zarr", spec)
        for sample in samples:
            rows.append(sample.row)
            writer.add(sample)
            census.add(sample)
        late = late_notes()
        notes = (*spec.notes, *late)
        if not rows:
            raise TaskDataError(f"{spec.task}: {spec.source!r} gave no samples" + "".join(f"; {n}" for n in notes))
        writer.close()
        table = pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS)).astype(SAMPLE_COLUMNS)
        _check_splits(table, spec, late)
        if groups is not None:
            table, of_groups = grouped(table, groups, f"{spec.task}.data.groups")
            notes += of_groups
        spec = dataclasses.replace(spec, notes=(*notes, *census.check()))
        table.to_parquet(building / "samples.parquet", index=False)
        write_json(building / "task.json", {"format_version": FORMAT_VERSION, "samples": len(rows), **spec.to_dict()})
    return len(rows)


def classes_shown(spec: TaskSpec, target: Targets) -> list[int]:
    """Number the classes that a label shows; of semantic change those of both dates.

    Args:
        spec: Of the data; its labels are classes.
        target: As `Sample` has it.
    """
    labels = target.astype(np.uint8)
    if spec.task.kind.transitions:
        labels = np.stack(decode(labels, len(spec.class_names)))
    present = np.flatnonzero(labels) if spec.multi_label else np.unique(labels)
    return [int(number) for number in present if number != IGNORE]


class _Census:
    """Counts images in two splits, and classes that a split has none or few of."""

    def __init__(self, spec: TaskSpec) -> None:
        self._spec = spec
        self._first: dict[bytes, tuple[str, str, bytes]] = {}
        self._shared: list[str] = []
        self._contrary: list[str] = []
        self._size = dict.fromkeys(SPLITS, 0)
        self._classes: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
        self._changed = dict.fromkeys(SPLITS, False)
        self._values: dict[str, list[float]] = {split: [] for split in SPLITS}  # least and largest of each sample

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        split, name = str(sample.row["split"]), str(sample.row["sample_id"])
        if split not in self._size:
            return  # `_check_splits` names it
        self._size[split] += 1
        if self._spec.quantity is not None:
            found = sample.target[is_labelled(sample.target)]
            self._values[split] += [float(found.min()), float(found.max())] if found.size else []
        else:
            if self._spec.task.kind.transitions:
                codes = sample.target.astype(np.uint8)
                self._changed[split] |= bool(is_changed(codes, len(self._spec.class_names)).any())
            self._classes[split].update(classes_shown(self._spec, sample.target))
        if not sample.valid.any() or np.ptp(sample.pixels) == 0:
            return  # blank ones say nothing of their place
        digest = hashlib.blake2b(sample.pixels.tobytes(), digest_size=12).digest()
        label = hashlib.blake2b(sample.target.tobytes(), digest_size=12).digest()
        other, where, there = self._first.setdefault(digest, (name, split, label))
        if where != split:
            self._shared.append(f"{other} ({where}) = {name} ({split})")
        elif there != label:
            self._contrary.append(f"{other} = {name}")

    def check(self) -> tuple[str, ...]:
        """Return notes on what was found and can be lived with.

        Raises:
            TaskDataError: For training labels of one class or value alone, classes in test that training never saw, no
                values in test, or equal images in different splits that are more than 1 % of the test split; they are
                named.
        """
        notes = self._values_found() if self._spec.quantity is not None else self._classes_found()
        return (*notes, *self._shared_found(), *self._contrary_found())

    def _values_found(self) -> list[str]:
        """Note test values beyond those of training."""
        spec, learned, tested = self._spec, self._values["train"], self._values["test"]
        assert spec.quantity is not None
        if not learned or min(learned) == max(learned):
            found = f"are all {learned[0]:g}" if learned else "are all unknown (NaN or nodata)"
            raise TaskDataError(
                f"{spec.task}: the training labels of {spec.source!r} {found}, so there is nothing to learn: give"
                f" places whose {spec.quantity.name} differs"
            )
        if not tested:
            raise TaskDataError(
                f"{spec.task}: every label of {spec.source!r} in the test split is unknown (NaN or nodata), so nothing"
                " can be scored: give labels in more places, or say the splits yourself (train/, val/ and test/)"
            )
        if min(learned) <= min(tested) and max(tested) <= max(learned):
            return []
        between = f"{min(learned):g} to {max(learned):g} in training, {min(tested):g} to {max(tested):g} in test"
        return [f"{spec.quantity}: {between}, and what lies beyond was never seen"]

    def _classes_found(self) -> list[str]:
        spec, names = self._spec, self._spec.class_names
        learned = sorted(self._classes["train"])
        if len(learned) < 2 and not spec.multi_label:
            found = f"are all {names[learned[0]]!r}" if learned else "are all unknown"
            raise TaskDataError(
                f"{spec.task}: the training labels of {spec.source!r} {found}, so there is nothing to tell apart; the"
                f" classes are {', '.join(names)}. {_ONE_CLASS.get(spec.task, 'Give samples of each')}"
            )
        unmoved = [split for split in ("train", "test") if not self._changed[split]]
        if spec.task.kind.transitions and unmoved:
            raise TaskDataError(
                f"{spec.task}: nothing has changed its class in the {unmoved[0]} split of {spec.source!r}, so there is"
                f" no change to {'learn' if unmoved[0] == 'train' else 'score'}: give pairs of places that have changed"
            )
        unseen = sorted(self._classes["test"].keys() - self._classes["train"].keys())
        if unseen:
            raise TaskDataError(
                f"{spec.task}: classes in test that training never saw: {', '.join(names[index] for index in unseen)}."
                " Give more samples of them, from more places, or say the splits yourself (train/, val/ and test/)"
            )
        return self._rare_classes()

    def _shared_found(self) -> list[str]:
        spec, notes = self._spec, list[str]()
        if self._shared:
            some = f"{'; '.join(self._shared[:3])}{' …' if len(self._shared) > 3 else ''}"
            if len(self._shared) > MAX_SHARED_SHARE * self._size["test"]:
                raise TaskDataError(
                    f"{spec.task}: {len(self._shared)} images of {spec.source!r} are in two splits, so test would be"
                    f" seen in training: {some}. Remove the copies, or give scenes of one place one name or folder"
                )
            notes.append(f"equal images in two splits: {len(self._shared)}: {some}")
        return notes

    def _contrary_found(self) -> list[str]:
        """Note equal images of one split that have different labels, which is also warned of."""
        if not self._contrary:
            return []
        some = f"{'; '.join(self._contrary[:3])}{' …' if len(self._contrary) > 3 else ''}"
        notes = [f"equal images with different labels: {len(self._contrary)}: {some}"]
        logger.warning("%s: %s", self._spec.task, notes[0])
        return notes

    def _rare_classes(self) -> list[str]:
        """Note classes with no or few training samples, which are also warned of, and with none in test.

        Names that differ by capitals alone are likewise noted: most often they are one class.
        """
        spec, notes = self._spec, []
        if alike := same_names(spec.class_names, str.casefold):
            notes.append(f"classes that differ by capitals alone: {', '.join(alike)}")
            logger.warning("%s: %s: give them one name if they are one", spec.task, notes[-1])
        taught = [(name, self._classes["train"][index]) for index, name in enumerate(spec.class_names)]
        if absent := [name for name, count in taught if not count]:
            notes.append(f"no training label of: {', '.join(absent)}")
            logger.warning("%s: %s, so the model cannot learn it", spec.task, notes[-1])
        if few := [f"{name} ({count})" for name, count in taught if 0 < count < FEW_TO_LEARN_FROM]:
            notes.append(f"fewer than {FEW_TO_LEARN_FROM} training samples of: {', '.join(few)}")
            logger.warning("%s: %s, so the model can hardly learn it", spec.task, notes[-1])
        tested = self._classes["test"]
        if untested := [name for index, name in enumerate(spec.class_names) if index not in tested]:
            notes.append(f"no test sample of: {', '.join(untested)}: without a score, and in no mean over classes")
        return notes


_ONE_CLASS = {
    Task.SEGMENT: "Masks number the classes 0, 1, … (255 is unknown: black and white is 0 and 1); for polygons,"
    " segment.data.outside names the class of the ground in none of them",
    Task.DETECT_CHANGE: "Give pairs in which something has changed, and something has not",
}


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
        limit = 2 if self._spec.multi_label else len(self._spec.label_names)
        out_of_range = np.setdiff1d(sample.target, [*range(limit), IGNORE])
        if out_of_range.size and self._spec.quantity is None:
            raise TaskDataError(
                f"sample {sample.row['sample_id']!r}: labels {out_of_range.tolist()} are outside the"
                f" {limit} classes 0 to {limit - 1} ({IGNORE} is ignored)"
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
        if self._spec.set_sensors:
            members = [sample.members for sample in self._pending]
            blocks["sensor"] = np.array([[sensor for sensor, _ in one] for one in members], np.int8)
            blocks["day"] = np.array([[day for _, day in one] for one in members], np.float64)
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
    """Return a power of two that makes chunks of about 128 KiB: small samples are not worth a chunk each."""
    wanted = max(CHUNK_BYTES // max(sample_bytes, 1), 1)
    return int(min(2 ** (wanted.bit_length() - 1), SAMPLES_PER_SHARD))


def _check_splits(samples: pd.DataFrame, spec: TaskSpec, notes: tuple[str, ...]) -> None:
    """Reject splits that would make a score mean nothing.

    Args:
        samples: Columns of `SAMPLE_COLUMNS`.
        spec: What the samples are.
        notes: What was left out, for the message.

    Raises:
        TaskDataError: For an unknown split name, an empty train or test split, or a place in two splits; the message
            names them.
    """
    unknown = sorted(set(samples["split"]) - set(SPLITS))
    if unknown:
        raise TaskDataError(
            f"{spec.task}: unknown splits {', '.join(map(repr, unknown))}; expected {', '.join(SPLITS)}"
        )
    for split in ("train", "test"):
        if not (samples["split"] == split).any():
            counts = samples["split"].value_counts().to_dict()
            raise TaskDataError(
                f"{spec.task}: no samples in split {split!r} (found {counts}). Scenes are split by place: name more"
                " places, or lay a folder of your own out as train/, val/ and test/" + "".join(f"; {n}" for n in notes)
            )
    leaks = samples.groupby("place")["split"].nunique()
    leaking = leaks.index[leaks > 1].tolist()
    if leaking:
        raise TaskDataError(
            f"{spec.task}: {len(leaking)} places are in more than one split, so test would be seen in training:"
            f" {', '.join(map(str, leaking[:5]))}{' …' if len(leaking) > 5 else ''}"
        )
