"""Labelled scenes of any size become samples of one size: checked against what was stated, cut, split by place.

Every reader of a folder or a benchmark yields `LabelledScene`s; `LabelledScenes` is what they share.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.warp import transform, transform_bounds

from a2mae.errors import plain_text
from a2mae.raster.resample import SourceMap, resample
from a2mae.tasks.datasets.formats import FolderFormat
from a2mae.tasks.datasets.pictures import ImageFile, ValueRange, check_bands, to_counts
from a2mae.tasks.datasets.splits import BLOCK_DEG, Grounds, split_of, square_of
from a2mae.tasks.datasets.task_data import IGNORE, Quantity, Sample, Targets, TaskDataError, TaskSpec, is_labelled
from a2mae.tasks.registry import Task
from a2mae.tasks.tiling import starts

logger = logging.getLogger(__name__)

MAX_SKIPPED_SHARE = 0.01
"""More unreadable files than this share are an error, fewer are left out and named."""
STATED_BY_FOLDERS = "split as the folders train/, val/ and test/ say"
_NAMED = 5
"""How many of a kind a note names."""


@dataclass(frozen=True)
class LabelledScene:
    """One image, or one pair of dates, with its truth.

    Attributes:
        name: Unique in its data set.
        place: Scenes of one place are of one split.
        images: `(T, C, H, W)` numbers as stored, in the format's encoding (floats with whole values are taken).
        target: `(H, W)` classes with `IGNORE` or values with NaN, a 0-d class or value, or `(K,)` 0 and 1 for several
            labels.
        valid: `(T, H, W)` bool; None: all of it.
        split: As the data set has it; None: by a hash of the place.
        lon: Degrees of the centre; NaN where not known.
        lat: Likewise.
        gsd_m: Metres per pixel; NaN where it is that of the data set.
    """

    name: str
    place: str
    images: npt.NDArray[Any]
    target: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_] | None = None
    split: str | None = None
    lon: float = math.nan
    lat: float = math.nan
    gsd_m: float = math.nan


@dataclass
class Reading:
    """What is found out while scenes are read.

    Attributes:
        of: Files that were tried.
        skipped: `path: reason` of those that could not be read.
        grounds: Where scenes lie, for those that say it.
        noted: Other things to report: what was done, and to which features or chips.
        seen_px: Valid pixels of label masks.
        unknown_px: Those of them without a label.
    """

    of: int = 0
    skipped: list[str] = field(default_factory=list)
    grounds: Grounds = field(default_factory=Grounds)
    noted: dict[str, list[str]] = field(default_factory=dict)
    seen_px: int = 0
    unknown_px: int = 0

    def note(self, what: str, where: str) -> None:
        """Count something for the report.

        Args:
            what: Was done.
            where: The feature or chip.
        """
        self.noted.setdefault(what, []).append(where)

    def add(self, other: Reading) -> None:
        """Take over the notes of another reading."""
        for what, where in other.noted.items():
            self.noted.setdefault(what, []).extend(where)

    def check(self, source: str) -> None:
        """Log what was found out, and reject a data set of which too much cannot be read.

        Raises:
            TaskDataError: With the count and the first of them.
        """
        for line in (*(f"skipped {line}" for line in self.skipped[:_NAMED]), *self._found()):
            logger.warning("%s: %s", source, line)
        if len(self.skipped) > MAX_SKIPPED_SHARE * self.of:
            raise TaskDataError(
                f"{len(self.skipped)} of {self.of} files in {source} cannot be read (at most"
                f" {MAX_SKIPPED_SHARE:.0%} are skipped): {_first(self.skipped, '; ')}. Remove them or fetch them again"
            )

    def notes(self) -> tuple[str, ...]:
        """Return what to report."""
        if not self.skipped:
            return self._found()
        skipped = f"skipped, unreadable: {len(self.skipped)} of {self.of} files: {_first(self.skipped, '; ')}"
        return (skipped, *self._found())

    def _found(self) -> tuple[str, ...]:
        notes = [f"{what}: {len(where)}: {_first(where, ', ')}" for what, where in self.noted.items()]
        if self.unknown_px:
            share = self.unknown_px / self.seen_px
            notes.append(f"{share:.1%} of the pixels that were seen are unknown: neither trained on nor scored")
        if across := self.grounds.across:
            told = f"{len(across)} of {self.of} scenes lie on the ground of a scene of another split"
            notes.append(f"{told}, so that scores may flatter: {_first(across, ', ')}")
        return tuple(notes)


def _first(lines: list[str], between: str) -> str:
    """Show some of the names of files, of which tables and JSON cannot hold every one as it is."""
    return plain_text(between.join(lines[:_NAMED])) + (" …" if len(lines) > _NAMED else "")


class LabelledScenes:
    """A source of task data that reads labelled scenes.

    Attributes:
        spec: What the samples are.
    """

    def __init__(
        self,
        spec: TaskSpec,
        layout: FolderFormat,
        scenes: Callable[[Reading], Iterator[LabelledScene]],
        *,
        chip_px: int | None = None,
        resize: bool = False,
    ) -> None:
        """Prepare to read.

        Args:
            spec: What the samples are.
            layout: What the files hold, as stated.
            scenes: Reads the scenes one by one, and notes what it finds out in what it is given.
            chip_px: Side of a sample; None: images with one label are as large as the first, all others are cut to
                squares of its shorter side.
            resize: Images with one label are brought to that side instead: their middle square, and their GSD with it.
        """
        side = f"{chip_px} px" if chip_px is not None else "the shorter side of the first"
        cut = f"scenes are cut to {side}, smaller ones padded with nodata"
        if resize:
            cut = f"of each image the middle square is resized to {side}, and its GSD with it"
        self.spec = replace(spec, notes=(*spec.notes, *([cut] if resize or chip_px is not None else [])))
        self._resize = resize
        self._layout = layout
        self._scenes = scenes
        self._chip_px = chip_px
        self._reading = Reading()

    @property
    def sensors(self) -> tuple[str, ...]:
        """The one that the format states."""
        return (self._layout.sensor.id,)

    def squared(self, side: int, *, resize: bool) -> LabelledScenes:
        """Return the same scenes cut to another side.

        Args:
            side: Of a sample, pixels.
            resize: As when it was made.
        """
        return LabelledScenes(self.spec, self._layout, self._scenes, chip_px=side, resize=resize)

    def samples(self) -> Iterator[Sample]:
        """Read, check and cut every scene.

        Raises:
            TaskDataError: If a scene does not fit what was stated; the message names it and what was seen.
        """
        self._reading = Reading()
        seen = ValueRange(self._layout)
        size = None if self._chip_px is None else (self._chip_px, self._chip_px)
        for scene in self._scenes(self._reading):
            checked = self._checked(scene)
            assert checked.valid is not None
            seen.add(checked.images, checked.valid)
            if size is None:
                height, width = checked.images.shape[-2:]
                whole = not self.spec.per_pixel and not self._resize
                size = (height, width) if whole else (min(height, width), min(height, width))
            yield from self._chips(self._resized(checked, size[0]) if self._resize else checked, size)
        seen.check(self.spec.source)
        self._reading.check(self.spec.source)

    def late_notes(self) -> tuple[str, ...]:
        """Return what was left out or is unknown; complete once all was read."""
        return self._reading.notes()

    def _checked(self, scene: LabelledScene) -> LabelledScene:
        times, bands, height, width = scene.images.shape
        expected = self.spec.task.kind.dates
        if times != expected:
            raise TaskDataError(f"{scene.name}: {times} date(s), {self.spec.task} needs {expected}")
        check_bands(scene.name, bands, self._layout)
        if scene.target.ndim == 2 and scene.target.shape != (height, width):
            raise TaskDataError(
                f"{scene.name}: the mask has {scene.target.shape[0]} x {scene.target.shape[1]} pixels, its image"
                f" {height} x {width}"
            )
        valid = np.ones((times, height, width), bool) if scene.valid is None else scene.valid
        images = to_counts(scene.images, valid, self._layout.sensor.encoding, scene.name)
        return replace(scene, images=images, valid=valid, target=self._labels(scene))

    def _labels(self, scene: LabelledScene) -> Targets:
        """Bring labels to their type; classes must be known ones or `IGNORE`."""
        found = np.asarray(scene.target)
        if self.spec.quantity is not None:
            return found.astype(np.float32)
        several = self.spec.multi_label
        limit = 2 if several else len(self.spec.label_names)
        known = np.arange(limit) if several else np.append(np.arange(limit), IGNORE)
        strange = np.unique(found[~np.isin(found, known)])
        if strange.size:
            raise TaskDataError(
                f"{scene.name}: labels {', '.join(f'{value:g}' for value in strange[:8])} are outside the"
                f" {limit} values 0 to {limit - 1}{'' if several else f' ({IGNORE} is ignored)'}"
            )
        return found.astype(np.uint8)

    def _resized(self, scene: LabelledScene, side: int) -> LabelledScene:
        """The middle square of an image, brought to a side by the kernel that scenes are warped with."""
        height, width = scene.images.shape[-2:]
        part = min(height, width)
        x = np.array([(width - part) / 2, part, 0, 0, 0, 0], np.float64)
        y = np.array([(height - part) / 2, 0, part, 0, 0, 0], np.float64)
        way = SourceMap(x, y, (side, side), separate=True)
        assert scene.valid is not None
        seen = np.where(scene.valid[:, None], scene.images, np.float32(np.nan)).astype(np.float32)
        found = np.stack([resample(date, way, (0, 0), categorical=False) for date in seen])
        valid = np.asarray(np.isfinite(found).all(axis=1))
        limits = np.iinfo(scene.images.dtype)
        images = np.rint(np.where(valid[:, None], found, 0)).clip(limits.min, limits.max).astype(scene.images.dtype)
        gsd_m = (self._layout.gsd_m if math.isnan(scene.gsd_m) else scene.gsd_m) * part / side
        return replace(scene, images=images, valid=valid, gsd_m=gsd_m)

    def _chips(self, scene: LabelledScene, size: tuple[int, int]) -> Iterator[Sample]:
        """Cut samples of one size; an image with one label gives one, from its middle."""
        height, width = scene.images.shape[-2:]
        assert scene.valid is not None
        if scene.target.ndim == 0 and not is_labelled(scene.target):
            self._reading.note("images without a label, left out", scene.name)
            return
        if not self.spec.per_pixel:
            if self._chip_px is None and (height, width) != size:
                done = f"images of another size, cut from the middle or padded with nodata to {size[0]} x {size[1]} px"
                self._reading.note(done, scene.name)
            corners = [(max(height - size[0], 0) // 2, max(width - size[1], 0) // 2)]
        else:
            corners = [(y, x) for y in starts(height, size[0], 0) for x in starts(width, size[1], 0)]
        for y, x in corners:
            name = f"{scene.name}-{y}-{x}" if len(corners) > 1 else scene.name
            window = (slice(y, y + size[0]), slice(x, x + size[1]))
            valid = _padded(scene.valid[:, *window], size, False)
            target = scene.target
            if target.ndim == 2:
                seen = valid.all(axis=0)
                unknown = self.spec.unlabelled
                target = np.where(seen, _padded(target[window], size, float(unknown)), unknown)
                known = is_labelled(target)
                self._reading.seen_px += int(seen.sum())
                self._reading.unknown_px += int((seen & ~known).sum())
                if not known.any():
                    self._reading.note("chips without a label, left out", name)
                    continue
            pixels = _padded(scene.images[:, :, *window], size, 0) * valid[:, None]
            yield Sample(pixels, valid, target, self._row(scene, name))

    def _row(self, scene: LabelledScene, name: str) -> dict[str, object]:
        sensor = self._layout.sensor.id
        return {
            "sample_id": name,
            "split": scene.split or split_of(scene.place),
            "place": scene.place,
            "sensor": sensor,
            "sensor_before": sensor if self.spec.task.kind.dates == 2 else "",
            "gsd_m": self._layout.gsd_m if math.isnan(scene.gsd_m) else scene.gsd_m,
            "lon": scene.lon,
            "lat": scene.lat,
            "day": math.nan,
            "day_before": math.nan,
            "label": int(scene.target) if scene.target.ndim == 0 and self.spec.quantity is None else -1,
        }


def _padded(values: npt.NDArray[Any], size: tuple[int, int], fill: float) -> npt.NDArray[Any]:
    """Fill the last two axes up to a size."""
    missing = [wanted - length for wanted, length in zip(size, values.shape[-2:], strict=True)]
    if not any(missing):
        return values
    return np.pad(values, [(0, 0)] * (values.ndim - 2) + [(0, pad) for pad in missing], constant_values=fill)


def folder_spec(
    task: Task,
    folder: Path,
    layout: FolderFormat,
    class_names: tuple[str, ...],
    *,
    split_rule: str | None = None,
    colors: tuple[tuple[int, int, int], ...] = (),
    notes: tuple[str, ...] = (),
    quantity: Quantity | None = None,
    per_pixel: bool | None = None,
) -> TaskSpec:
    """Describe the samples of a folder of the user's own.

    Args:
        task: What is predicted.
        folder: Gives its name.
        layout: What the files hold.
        class_names: One per class.
        split_rule: Who says the splits; None: nobody, they follow from places and names.
        colors: RGB per class, or empty.
        notes: Further rules, for the report.
        quantity: What labels are values of; None: they are classes.
        per_pixel: Whether labels are of pixels, else of whole images; None: as the task's usually are.
    """
    if split_rule is None:
        split_rule = f"split by place ({BLOCK_DEG:g} degrees) where georeferenced, else by a hash of the file name"
        if layout.benchmark:
            split_rule = "split by a hash of the file name: 70 % train, 10 % val, 20 % test"
    return TaskSpec(
        task=task,
        source=folder.name,
        class_names=class_names,
        colors=colors,
        bands=layout.sensor.bands,
        encoding=layout.sensor.encoding,
        gsd_m=layout.gsd_m,
        notes=(split_rule, *layout.notes, *notes),
        float_factors=layout.float_factors,
        numbers=layout.numbers,
        quantity=quantity,
        per_pixel=per_pixel,
    )


def scene_of(
    name: str,
    split: str | None,
    pictures: Sequence[ImageFile],
    target: npt.NDArray[Any],
    grounds: Grounds,
    *,
    by_name: bool = False,
) -> LabelledScene:
    """Join the pictures of one or two dates with their truth.

    Without a split of its own the place of a scene is its square of `BLOCK_DEG`, or its name. With one, its place is
    the first scene on its ground: two dates of a field are one place, two fields of a village are two.

    Args:
        name: Unique in its split.
        split: As the folder or the table says; None: to be decided by the place.
        pictures: One per date, on one grid.
        target: As `LabelledScene` has it.
        grounds: Of the scenes before.
        by_name: Without a split, the place is the name wherever the scene lies.
    """
    grid = pictures[0].grid
    lon = lat = math.nan
    own = place = name if split is None else f"{split}/{name}"
    if grid is not None:
        x, y = grid.affine @ (grid.shape[1] / 2, grid.shape[0] / 2)
        (lon,), (lat,) = transform(str(grid.crs), "EPSG:4326", [x], [y])
        if split is not None:
            place = grounds.place(name, split, transform_bounds(str(grid.crs), "EPSG:4326", *grid.extent.boundingbox))
        elif not by_name:
            place = square_of(lon, lat)
    return LabelledScene(
        name=own,
        place=place,
        images=np.stack([picture.pixels for picture in pictures]),
        target=target,
        valid=np.stack([picture.valid for picture in pictures]),
        split=split,
        lon=float(lon),
        lat=float(lat),
        gsd_m=pictures[0].gsd_m,
    )
