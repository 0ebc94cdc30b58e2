"""Labelled scenes of any size → samples of one size: checked against what was stated, cut, split by place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from a2mae.tasks.datasets.formats import FolderFormat, ValueRange, to_counts
from a2mae.tasks.datasets.splits import Grounds, split_of
from a2mae.tasks.datasets.task_data import IGNORE, Sample, Task, TaskDataError, TaskSpec
from a2mae.tasks.tiling import starts

logger = logging.getLogger(__name__)

MAX_SKIPPED_SHARE = 0.01
"""More unreadable files than this share are an error, fewer are left out and named."""


@dataclass(frozen=True)
class LabelledScene:
    """One image, or one pair of dates, with its truth.

    Attributes:
        name: Unique in its data set.
        place: Scenes of one place are of one split.
        images: `(T, C, H, W)` numbers as stored, in the layout's encoding (floats with whole values are taken).
        target: `(H, W)` classes with `IGNORE`, a 0-d class, or `(K,)` 0 and 1 for several labels.
        valid: `(T, H, W)` bool; None: all of it.
        split: As the data set has it; None: by a hash of the place.
        lon: Degrees of the centre; NaN where not known.
        lat: Likewise.
    """

    name: str
    place: str
    images: npt.NDArray[Any]
    target: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_] | None = None
    split: str | None = None
    lon: float = float("nan")
    lat: float = float("nan")


@dataclass
class Reading:
    """What is found out while scenes are read.

    Attributes:
        of: Files that were tried.
        skipped: `path: reason` of those that could not be read.
        grounds: Where they lie, for those that say it.
        max_skipped_share: More unreadable files than this share are an error.
    """

    of: int = 0
    skipped: list[str] = field(default_factory=list)
    grounds: Grounds = field(default_factory=Grounds)
    max_skipped_share: float = MAX_SKIPPED_SHARE

    def check(self, source: str) -> None:
        """Warn of what flatters scores, and refuse a data set of which too much cannot be read.

        Raises:
            TaskDataError: With the count and the first of them.
        """
        for line in (*(f"skipped {line}" for line in self.skipped[:5]), *self._across()):
            logger.warning("%s: %s", source, line)
        if len(self.skipped) > self.max_skipped_share * self.of:
            raise TaskDataError(
                f"{len(self.skipped)} of {self.of} files in {source} cannot be read (at most"
                f" {self.max_skipped_share:.0%} are skipped): {'; '.join(self.skipped[:3])}"
                f"{' …' if len(self.skipped) > 3 else ''}. Remove them or fetch them again"
            )

    def notes(self) -> tuple[str, ...]:
        """For the report; empty where nothing was left out and no ground is in two splits."""
        notes = []
        if self.skipped:
            notes.append(f"skipped, unreadable: {len(self.skipped)} of {self.of} files: {_first(self.skipped, '; ')}")
        return (*notes, *self._across())

    def _across(self) -> tuple[str, ...]:
        if not (across := self.grounds.across):
            return ()
        told = f"{len(across)} of {self.of} scenes lie on the ground of a scene of another split, so that scores may"
        return (f"{told} flatter: {_first(across, ', ')}",)


def _first(lines: list[str], between: str) -> str:
    return between.join(lines[:5]) + (" …" if len(lines) > 5 else "")


class LabelledScenes:
    """A source of task data.

    Attributes:
        spec: What it holds.
    """

    def __init__(
        self,
        spec: TaskSpec,
        layout: FolderFormat,
        scenes: Callable[[Reading], Iterator[LabelledScene]],
        *,
        chip_px: int | None = None,
    ) -> None:
        """Prepare.

        Args:
            spec: What the samples are.
            layout: What the files hold, as stated.
            scenes: Reads the scenes one by one, and notes what it finds out in what it is given.
            chip_px: Side of a sample; null: that of the first scene, if it is square.
        """
        size = "as they are" if chip_px is None else f"in chips of {chip_px} px, smaller scenes padded with nodata"
        self.spec = replace(spec, notes=(*spec.notes, f"scenes are used {size}"))
        self._layout = layout
        self._scenes = scenes
        self._chip_px = chip_px
        self._reading = Reading()

    @property
    def sensors(self) -> tuple[str, ...]:
        """The one that the layout states."""
        return (self._layout.sensor.id,)

    def samples(self) -> Iterator[Sample]:
        """Read, check and cut every scene.

        Raises:
            TaskDataError: If a scene does not fit what was stated; the message names it and what was seen.
        """
        self._reading = Reading()
        seen = ValueRange(self._layout)
        chip_px = self._chip_px
        for scene in self._scenes(self._reading):
            checked = self._checked(scene)
            seen.add(checked.images)
            if chip_px is None:
                chip_px = min(checked.images.shape[-2:])
            yield from self._chips(checked, chip_px)
        seen.check(self.spec.source)
        self._reading.check(self.spec.source)

    def late_notes(self) -> tuple[str, ...]:
        """What was left out or lies on one ground, known once all was read."""
        return self._reading.notes()

    def _checked(self, scene: LabelledScene) -> LabelledScene:
        times, bands, height, width = scene.images.shape
        expected = 2 if self.spec.task is Task.DETECT_CHANGE else 1
        if times != expected:
            raise TaskDataError(f"{scene.name}: {times} date(s), {self.spec.task} needs {expected}")
        stated = self._layout.sensor
        if bands != len(stated.bands):
            raise TaskDataError(
                f"{scene.name}: {bands} bands, but the stated format has {len(stated.bands)}"
                f" ({', '.join(stated.band_names)}); set {self.spec.task}.data.format or file_bands"
            )
        if scene.target.ndim == 2 and scene.target.shape != (height, width):
            raise TaskDataError(
                f"{scene.name}: the mask has {scene.target.shape[0]} x {scene.target.shape[1]} pixels, its image"
                f" {height} x {width}"
            )
        valid = np.ones((times, height, width), bool) if scene.valid is None else scene.valid
        images = to_counts(scene.images, valid, stated.encoding, scene.name)
        return replace(scene, images=images, valid=valid, target=self._labels(scene))

    def _labels(self, scene: LabelledScene) -> npt.NDArray[np.uint8]:
        """Whole numbers within the classes, as uint8."""
        found = np.asarray(scene.target)
        limit = 2 if self.spec.multi_label else len(self.spec.class_names)
        strange = np.unique(found[~(np.isin(found, np.arange(limit)) | (found == IGNORE))])
        if strange.size:
            raise TaskDataError(
                f"{scene.name}: labels {', '.join(f'{value:g}' for value in strange[:8])} are outside the"
                f" {limit} values 0 to {limit - 1} ({IGNORE} is ignored)"
            )
        return found.astype(np.uint8)

    def _chips(self, scene: LabelledScene, size: int) -> Iterator[Sample]:
        """Samples of `size` x `size`; an image with one label gives one, from its middle."""
        height, width = scene.images.shape[-2:]
        assert scene.valid is not None
        if self.spec.task is Task.CLASSIFY:
            corners = [(max(height - size, 0) // 2, max(width - size, 0) // 2)]
        else:
            corners = [(y, x) for y in starts(height, size, 0) for x in starts(width, size, 0)]
        for y, x in corners:
            window = (slice(y, y + size), slice(x, x + size))
            valid = _padded(scene.valid[:, *window], size, False)
            target = scene.target
            if target.ndim == 2:
                target = _padded(target[window], size, IGNORE)
                target = np.where(valid.all(axis=0), target, np.uint8(IGNORE))
            yield Sample(
                _padded(scene.images[:, :, *window], size, 0) * valid[:, None],
                valid,
                target,
                self._row(scene, f"{scene.name}-{y}-{x}" if len(corners) > 1 else scene.name),
            )

    def _row(self, scene: LabelledScene, name: str) -> dict[str, object]:
        sensor = self._layout.sensor.id
        return {
            "sample_id": name,
            "split": scene.split or split_of(scene.place),
            "place": scene.place,
            "sensor": sensor,
            "sensor_before": sensor if self.spec.task is Task.DETECT_CHANGE else "",
            "gsd_m": self._layout.gsd_m,
            "lon": scene.lon,
            "lat": scene.lat,
            "day": float("nan"),
            "day_before": float("nan"),
            "label": int(scene.target) if scene.target.ndim == 0 else -1,
        }


def _padded(values: npt.NDArray[Any], size: int, fill: float) -> npt.NDArray[Any]:
    """The last two axes filled up to `size`."""
    missing = [size - length for length in values.shape[-2:]]
    if not any(missing):
        return values
    return np.pad(values, [(0, 0)] * (values.ndim - 2) + [(0, pad) for pad in missing], constant_values=fill)
