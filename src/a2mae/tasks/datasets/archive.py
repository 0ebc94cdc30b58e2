"""Samples where labels of one's own lie on the archive: cut from the image sets, place by place and date by date.

A label that no sample has is counted and named with the reason: it lies outside every location, holds at no image's
time, covers no whole pixel, or lies where nothing was seen. What no label covers is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from a2mae.raster.read import RasterReader
from a2mae.tasks.datasets.archive_labels import (
    FeatureLabels,
    RasterLabels,
    read_feature_labels,
    read_raster_labels,
)
from a2mae.tasks.datasets.formats import IMAGE_SUFFIXES
from a2mae.tasks.datasets.image_sets import join_images, told_of_sets
from a2mae.tasks.datasets.labelled import Reading
from a2mae.tasks.datasets.polygons import FolderLabels, background
from a2mae.tasks.datasets.store_samples import Cut, StoreImages, StoreSamples, Tables, Window, budgeted
from a2mae.tasks.datasets.task_data import Targets, TaskDataError, TaskSpec, is_labelled
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.transitions import encode

logger = logging.getLogger(__name__)

_DAYS = 8
"""Of images, named in a message at most."""
_DOMINANT = 0.5
"""Share of an image that a class of a raster must cover to be that of the image."""
_NOBODY = -1


def cut_labelled(options: TaskParameters, tables: Tables, stated: FolderLabels) -> StoreSamples:
    """Decide which windows of which images become samples of the labels that `data.labels` names.

    For labels of pixels, windows lie side by side and hold at least one label that was seen. For labels of images a
    window lies around each feature (within its footprint); of a raster, windows side by side get their class or mean.

    Args:
        options: The task's parameters.
        tables: What the builder wrote.
        stated: What labels stand for.

    Raises:
        TaskDataError: If labels cannot be read, none of them lies on an image, or there is no image in the time asked
            for; the message says what was found and what to change.
    """
    task, data = options.task, options.data
    path = Path(str(data.labels))
    _check_dates(options, path)
    images = StoreImages(task, tables, data.archive)
    table = _in_time(options, images.once() if task.kind.dates == 1 else images.registered())
    grids = {place: images.grid(place) for place in sorted(table["location_id"].unique())}
    found = Reading()
    labels: FeatureLabels | RasterLabels
    if path.suffix.lower() in IMAGE_SUFFIXES:
        labels = read_raster_labels(path, stated, list(grids.values()))
        cuts = join_images(_of_raster(options, images, table, labels, found), images, table, found)
        labels.masks.check_all()
    else:
        labels = read_feature_labels(path, stated, list(grids.values()), found.note)
        if task.kind.dates == 2 and np.isnat(labels.start).all() and np.isnat(labels.end).all():
            raise TaskDataError(
                f"{path}: no feature says when its class holds, so none differs between two dates: give it columns"
                " start and end (days)"
            )
        cuts = join_images(_Features(options, images, table, labels, found).cuts(), images, table, found)
    cuts = budgeted(cuts, data.archive, np.random.default_rng(options.seed))
    main, names = images.main, labels.stated.class_names
    notes = [
        f"labels of {path.name} on images of {', '.join(images.sensors)}: {len(cuts)} samples at"
        f" {len({str(cut.images[0]['location_id']) for cut in cuts})} of {len(grids)} locations; splits by place",
        f"ground without a label: {stated.outside if stated.quantity is None else 'unknown'}",
    ]
    if images.inputs is not None:
        notes.append(told_of_sets(cuts, images.inputs))
    if data.archive.allow_future:
        notes.append("labels may be later than the image (allow_future)")
    for line in found.notes():
        logger.warning("%s: %s", path, line)
    if not cuts:
        why = "".join(f"; {line}" for line in found.notes())
        raise TaskDataError(
            f"{path}: no label lies on an image that was seen{why}; give labels of the images' ground and days"
        )
    spec = TaskSpec(
        task=task,
        source=path.name,
        class_names=names,
        colors=(),
        bands=images.bands,
        encoding=main.encoding,
        gsd_m=main.gsd_m,
        notes=(*notes, *found.notes()),
        quantity=stated.quantity,
        per_pixel=options.per_pixel,
        set_sensors=images.set_sensors,
    )
    return StoreSamples(spec, tuple(cuts), tables, images.grid_px)


def _check_dates(options: TaskParameters, path: Path) -> None:
    """Reject labels that cannot say what a pair of dates shows."""
    task = options.task
    if task.kind.dates == 1:
        return
    found = "tells classes and not change: detect_transitions learns from them"
    if task.kind.transitions and path.suffix.lower() in IMAGE_SUFFIXES:
        found = "is of one date as a raster, and of two as features with start and end"
    elif task.kind.transitions and options.data.archive.allow_future:
        found = "is of the image's own day: leave archive.allow_future out"
    elif task.kind.transitions:
        return
    raise TaskDataError(
        f"{task}.data.labels: {task} compares two dates, and a label on the archive {found}; or give pairs in a folder"
        f" ({task}.data.folder)"
    )


def _in_time(options: TaskParameters, table: pd.DataFrame) -> pd.DataFrame:
    """Keep the images of the days asked for."""
    asked, key = options.data.archive, f"{options.task}.data.archive"
    if not len(table):
        raise TaskDataError(f"{key}.sensors: the image sets have no image of {', '.join(asked.sensors)} in any split")
    days = table["datetime"].dt.date
    kept = table[(days >= (asked.start or days.min())) & (days <= (asked.end or days.max()))]
    if not len(kept):
        raise TaskDataError(
            f"{key}.start and end: no image of {', '.join(asked.sensors)} from {asked.start or 'the first'} to"
            f" {asked.end or 'the last'}; the image sets have {len(table)}, from {days.min()} to {days.max()}"
        )
    return pd.DataFrame(kept)


def _on_task_grid(valid: npt.NDArray[np.bool_], grid_px: int) -> npt.NDArray[np.bool_]:
    """Bring a valid mask of any side to the task's grid, nearest pixel."""
    at = (np.arange(grid_px) + 0.5) * valid.shape[-1] / grid_px
    index = at.astype(np.int64)
    return valid[np.ix_(index, index)]


def _of_raster(
    options: TaskParameters, images: StoreImages, table: pd.DataFrame, labels: RasterLabels, found: Reading
) -> Iterator[Cut]:
    with RasterReader() as reader:
        for place, here in table.groupby("location_id", sort=True):
            target = labels.on(images.grid(place), reader)
            if not is_labelled(target).any():
                found.note("locations without a label", str(place))
                continue
            for _, image in here.iterrows():
                valid = images.valid(image)
                seen = _on_task_grid(valid, images.grid_px)
                for window in images.usable(valid):
                    y0, y1, x0, x1 = window
                    one: Targets | None = target[y0:y1, x0:x1]
                    if not options.per_pixel:
                        one = _of_image(target[y0:y1, x0:x1], seen[y0:y1, x0:x1], options)
                    elif not (is_labelled(target[y0:y1, x0:x1]) & seen[y0:y1, x0:x1]).any():
                        one = None
                    if one is not None:
                        yield Cut((image,), window, one, str(image["split"]))


def _of_image(target: Targets, seen: npt.NDArray[np.bool_], options: TaskParameters) -> Targets | None:
    """Give an image the class that covers most of it, or the mean of its values; None where it has none."""
    known = is_labelled(target) & seen
    if options.task.kind.values:
        enough = known.mean() >= options.data.archive.min_valid
        return np.array(target[known].mean(), np.float32) if enough else None
    counts = np.bincount(target[known].astype(np.int64), minlength=1)
    return np.array(counts.argmax(), np.uint8) if counts.max() > _DOMINANT * target.size else None


@dataclass
class _Features:
    """Cuts samples where features lie, and finds out what became of each of these."""

    options: TaskParameters
    images: StoreImages
    table: pd.DataFrame
    labels: FeatureLabels
    found: Reading
    _reached: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)

    def cuts(self) -> Iterator[Cut]:
        count = len(self.labels.labels)
        stages = ("placed", "dated", "drawn", "used")
        self._reached = {stage: np.zeros(count, bool) for stage in stages}
        for place, here in self.table.groupby("location_id", sort=True):
            grid = self.images.grid(place)
            touching = self.labels.on(grid)
            numbers = touching.index.to_numpy(np.int64)
            if not numbers.size:
                continue
            self._reached["placed"][numbers] = True
            drawn: dict[bytes, npt.NDArray[np.int64]] = {}
            dated: list[tuple[pd.Series, bytes]] = []
            for _, image in here.iterrows():
                day = np.datetime64(pd.Timestamp(image["datetime"]).tz_localize(None), "D")
                hold = self.labels.hold(numbers, day, allow_future=self.options.data.archive.allow_future)
                self._reached["dated"][numbers[hold]] = True
                if not hold.any():
                    continue
                if not self.options.per_pixel:
                    yield from self._around(image, touching[hold], grid)
                    continue
                key = hold.tobytes()
                if key not in drawn:
                    drawn[key] = self._draw(touching[hold], grid)
                dated.append((image, key))
                if self.options.task.kind.dates == 1:
                    yield from self._side_by_side((image,), (drawn[key],))
            if self.options.task.kind.dates == 2:
                yield from self._of_two_dates(dated, drawn)
        self._tell()

    def _of_two_dates(
        self, dated: list[tuple[pd.Series, bytes]], drawn: dict[bytes, npt.NDArray[np.int64]]
    ) -> Iterator[Cut]:
        """Cut pairs of one sensor between whose dates other labels hold."""
        keys = {str(image["image_id"]): key for image, key in dated}
        pairs = (
            (first, second)
            for (first, before), (second, after) in product(dated, dated)
            if before != after and first["sensor"] == second["sensor"] and first["datetime"] < second["datetime"]
        )
        for both in self.images.pairs(pairs):
            yield from self._side_by_side(both, tuple(drawn[keys[str(image["image_id"])]] for image in both))

    def _draw(self, geometry: gpd.GeoSeries, grid: GeoBox) -> npt.NDArray[np.int64]:
        """Draw the number of the feature that counts at each pixel, `(H, W)`; -1 where there is none."""
        shapes = list(zip(geometry, geometry.index, strict=True))
        shape = (grid.shape.y, grid.shape.x)
        last, first = (
            rasterize(order, out_shape=shape, transform=grid.affine, fill=_NOBODY, dtype="int32").astype(np.int64)
            for order in (shapes, shapes[::-1])
        )
        self._reached["drawn"][np.unique(np.concatenate([last[last >= 0], first[first >= 0]]))] = True
        both = (last != first) & (self.labels.labels[last] != self.labels.labels[first])
        for later, earlier in np.unique(np.stack([last[both], first[both]], axis=1), axis=0).tolist():
            self._overlap(earlier, later)
        return np.asarray(last)

    def _overlap(self, earlier: int, later: int) -> None:
        self._reached["used"][earlier] = True  # it is told why there is none of it
        names = self.labels.name([earlier, later])
        what = "labels that differ on the same ground, of which the later one counts"
        where = f"{names[0]} and {later}"
        if where not in self.found.noted.get(what, []):
            self.found.note(what, where)

    def _side_by_side(self, images: tuple[pd.Series, ...], drawn: tuple[npt.NDArray[np.int64], ...]) -> Iterator[Cut]:
        """Cut the windows that hold labels of one image, or of both dates; what is drawn are numbers of features."""
        classes = [self._labelled(of_date) for of_date in drawn]
        target = classes[0]
        if len(classes) == 2:
            before, after = (of_date.astype(np.uint8) for of_date in classes)
            target = encode(before, after, len(self.labels.stated.class_names))
        valid = [self.images.valid(image) for image in images]
        seen = np.logical_and.reduce([_on_task_grid(one, self.images.grid_px) for one in valid])
        usable = [set(self.images.usable(one)) for one in valid]
        for window in sorted(set.intersection(*usable)):
            y0, y1, x0, x1 = window
            known = is_labelled(target[y0:y1, x0:x1]) & seen[y0:y1, x0:x1]
            if known.any():
                used = np.unique(np.concatenate([of_date[y0:y1, x0:x1][known] for of_date in drawn]))
                self._reached["used"][used[used >= 0]] = True
                yield Cut(images, window, target[y0:y1, x0:x1], str(images[-1]["split"]))

    def _labelled(self, drawn: npt.NDArray[np.int64]) -> Targets:
        target = background((len(drawn), len(drawn)), self.labels.stated)
        covered = drawn >= 0
        target[covered] = self.labels.labels[drawn[covered]]
        return target

    def _around(self, image: pd.Series, geometry: gpd.GeoSeries, grid: GeoBox) -> Iterator[Cut]:
        """Cut a window around every feature; of two with the same window the later one counts."""
        valid, size = self.images.valid(image), self.options.data.archive.chip_px
        windows: dict[Window, int] = {}
        for number, shape in geometry.items():
            point = shape.intersection(grid.extent.geom).representative_point()
            if point.is_empty:
                continue
            x, y = ~grid.affine @ (point.x, point.y)
            row, column = (int(np.clip(round(v - size / 2), 0, self.images.grid_px - size)) for v in (y, x))
            window = (row, row + size, column, column + size)
            label = self.labels.labels[number]
            self._reached["drawn"][number] = True
            if not self.images.is_usable(valid, window):
                continue
            if window in windows and self.labels.labels[windows[window]] != label:
                self._overlap(windows[window], number)
            windows[window] = number
        for window, number in windows.items():
            self._reached["used"][number] = True
            label = self.labels.labels[number]
            is_value = self.labels.stated.quantity is not None
            target: Targets = np.array(label, np.float32) if is_value else np.array(label, np.uint8)
            yield Cut((image,), window, target, str(image["split"]))

    def _tell(self) -> None:
        """Count and name the features that no sample has."""
        cleaned = np.zeros(len(self.labels.labels), bool)
        cleaned[self.labels.geometry.index] = True
        reached = {**self._reached, "placed": self._reached["placed"] & cleaned}
        days = sorted(set(self.table["datetime"].dt.date))
        shown = ", ".join(map(str, days if len(days) <= _DAYS else [*days[: _DAYS - 1], "…", days[-1]]))
        reasons = (
            ("placed", "labels outside every location, left out"),
            ("dated", f"labels that hold on no day of an image ({shown}; coregister.recipes lets more in), left out"),
            ("drawn", "labels that cover the middle of no pixel, left out"),
            ("used", "labels where no image was seen (nodata, cloud, or less than min_valid of the sample), left out"),
        )
        before = cleaned
        for stage, reason in reasons:
            self._note(reason, before & ~reached[stage])
            before = before & reached[stage]

    def _note(self, reason: str, which: npt.NDArray[np.bool_]) -> None:
        for name in self.labels.name(np.flatnonzero(which).tolist()):
            self.found.note(reason, name)
