"""Samples where features lie on the archive: windows around them, or side by side with what they cover.

What becomes of every feature is followed, so that one which no sample has is named with the reason.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Self

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from a2mae.tasks.datasets.archive_labels import FeatureLabels
from a2mae.tasks.datasets.image_sets import join_images
from a2mae.tasks.datasets.labelled import Reading
from a2mae.tasks.datasets.places import by_places, labelled_images, on_task_grid
from a2mae.tasks.datasets.polygons import background
from a2mae.tasks.datasets.store_samples import Cut, StoreImages, Window
from a2mae.tasks.datasets.task_data import Targets, is_labelled
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.transitions import encode

_DAYS = 8
"""Of images, named in a message at most."""
_NOBODY = -1
_STAGES = ("placed", "dated", "drawn", "shown", "used")


def cut_features(
    options: TaskParameters, images: StoreImages, labels: FeatureLabels, found: Reading, joined: Reading
) -> list[Cut]:
    """Cut samples where features lie, by any number of workers.

    Args:
        options: The task's parameters.
        images: Of the places that have some in the time asked for.
        labels: The features.
        found: Is told which features no sample has, and why, and which differ on the same ground.
        joined: Is told what there is to say of image sets.
    """

    def work_of(some: StoreImages) -> Callable[[], tuple[list[Cut], _Reached, Reading]]:
        near = labels.near([some.grid(place) for place in some.table["location_id"].unique()])
        return partial(_of_features, options, some, near)

    cuts, reached = list[Cut](), _Reached.none(len(labels.labels))
    for of_places, reached_there, of_sets in by_places(images, work_of, options, f"{options.task}.data"):
        cuts += of_places
        reached.add(reached_there)
        joined.add(of_sets)
    days = sorted(set(labelled_images(options, images)["datetime"].dt.date))
    reached.tell(labels, days, found)
    return cuts


def _of_features(
    options: TaskParameters, images: StoreImages, labels: FeatureLabels
) -> tuple[list[Cut], _Reached, Reading]:
    table, joined = labelled_images(options, images), Reading()
    features = _Features(options, images, table, labels, _Reached.none(len(labels.labels)))
    return join_images(features.cuts(), images, table, joined), features.reached, joined


@dataclass
class _Reached:
    """What became of each feature.

    Attributes:
        placed: It lies on a footprint.
        dated: It holds on the day of an image.
        drawn: It covers the middle of a pixel.
        shown: Of the ground that it covers, later ones leave some.
        used: A sample has it.
        overlaps: Names of those that differ on the same ground, each pair once.
    """

    placed: npt.NDArray[np.bool_]
    dated: npt.NDArray[np.bool_]
    drawn: npt.NDArray[np.bool_]
    shown: npt.NDArray[np.bool_]
    used: npt.NDArray[np.bool_]
    overlaps: dict[str, None]

    @classmethod
    def none(cls, count: int) -> Self:
        """Of so many features, nothing."""
        placed, dated, drawn, shown, used = (np.zeros(count, bool) for _ in _STAGES)
        return cls(placed, dated, drawn, shown, used, {})

    def add(self, other: _Reached) -> None:
        """Take over what became of them at other places."""
        for stage in _STAGES:
            mine: npt.NDArray[np.bool_] = getattr(self, stage)
            mine |= getattr(other, stage)
        self.overlaps |= other.overlaps

    def tell(self, labels: FeatureLabels, days: Sequence[dt.date], found: Reading) -> None:
        """Count and name the features that no sample has, and those that differ on the same ground."""
        for where in self.overlaps:
            found.note("labels that differ on the same ground, of which the later one counts", where)
        cleaned = np.zeros(len(labels.labels), bool)
        cleaned[labels.geometry.index] = True
        shown = ", ".join(map(str, days if len(days) <= _DAYS else [*days[: _DAYS - 1], "…", days[-1]]))
        before = cleaned
        for reached, reason in (
            (self.placed & cleaned, "labels outside every location, left out"),
            (
                self.dated,
                f"labels that hold on no day of an image ({shown}; coregister.recipes lets more in), left out",
            ),
            (self.drawn, "labels that cover the middle of no pixel, left out"),
            (self.shown, "labels whose ground later ones cover, left out"),
            (
                self.used,
                "labels where no image was seen (nodata, cloud, or less than min_valid of the sample), left out",
            ),
        ):
            for name in labels.name(np.flatnonzero(before & ~reached).tolist()):
                found.note(reason, name)
            before = before & reached


@dataclass
class _Features:
    """Cuts samples where features lie, and finds out what became of each of these."""

    options: TaskParameters
    images: StoreImages
    table: pd.DataFrame
    labels: FeatureLabels
    reached: _Reached

    def cuts(self) -> Iterator[Cut]:
        for place, here in self.table.groupby("location_id", sort=True):
            grid = self.images.grid(place)
            touching = self.labels.on(grid)
            numbers = touching.index.to_numpy(np.int64)
            if not numbers.size:
                continue
            self.reached.placed[numbers] = True
            drawn: dict[bytes, npt.NDArray[np.int64]] = {}
            dated: list[tuple[pd.Series, bytes]] = []
            for _, image in here.iterrows():
                day = np.datetime64(pd.Timestamp(image["datetime"]).tz_localize(None), "D")
                hold = self.labels.hold(numbers, day, allow_future=self.options.data.archive.allow_future)
                self.reached.dated[numbers[hold]] = True
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
        self.reached.drawn[np.unique(np.concatenate([last[last >= 0], first[first >= 0]]))] = True
        self.reached.shown[np.unique(last[last >= 0])] = True
        self._draw_hidden(geometry, grid)
        both = (last != first) & (self.labels.labels[last] != self.labels.labels[first])
        for later, earlier in np.unique(np.stack([last[both], first[both]], axis=1), axis=0).tolist():
            self._overlap(earlier, later)
        return np.asarray(last)

    def _draw_hidden(self, geometry: gpd.GeoSeries, grid: GeoBox) -> None:
        """Find which of the features that nothing is seen of cover a pixel, layer by layer."""
        hidden = geometry[~self.reached.drawn[geometry.index]]
        while len(hidden):
            shapes = zip(hidden, hidden.index, strict=True)
            layer = rasterize(shapes, (grid.shape.y, grid.shape.x), fill=_NOBODY, transform=grid.affine, dtype="int32")
            numbers = np.unique(layer[layer >= 0])
            if not numbers.size:
                return
            self.reached.drawn[numbers] = True
            hidden = hidden.drop(numbers)

    def _overlap(self, earlier: int, later: int) -> None:
        self.reached.overlaps[f"{self.labels.name([earlier])[0]} and {later}"] = None

    def _side_by_side(self, images: tuple[pd.Series, ...], drawn: tuple[npt.NDArray[np.int64], ...]) -> Iterator[Cut]:
        """Cut the windows that hold labels of one image, or of both dates; what is drawn are numbers of features."""
        classes = [self._labelled(of_date) for of_date in drawn]
        target = classes[0]
        if len(classes) == 2:
            before, after = (of_date.astype(np.uint8) for of_date in classes)
            target = encode(before, after, len(self.labels.stated.class_names))
        valid = [self.images.valid(image) for image in images]
        seen = np.logical_and.reduce([on_task_grid(one, self.images.grid_px) for one in valid])
        usable = [set(self.images.usable(one)) for one in valid]
        for window in sorted(set.intersection(*usable)):
            y0, y1, x0, x1 = window
            known = is_labelled(target[y0:y1, x0:x1]) & seen[y0:y1, x0:x1]
            if known.any():
                used = np.unique(np.concatenate([of_date[y0:y1, x0:x1][known] for of_date in drawn]))
                self.reached.used[used[used >= 0]] = True
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
            self.reached.drawn[number] = True
            if window in windows and self.labels.labels[windows[window]] != label:
                self._overlap(windows[window], number)
            windows[window] = number
        for window, number in windows.items():
            self.reached.shown[number] = True
            if not self.images.is_usable(valid, window):
                continue
            self.reached.used[number] = True
            label = self.labels.labels[number]
            is_value = self.labels.stated.quantity is not None
            target: Targets = np.array(label, np.float32) if is_value else np.array(label, np.uint8)
            yield Cut((image,), window, target, str(image["split"]))
