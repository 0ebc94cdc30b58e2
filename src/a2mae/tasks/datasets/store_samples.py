"""Samples cut from the image-set store: windows of its images, brought to the grid of the task's first sensor."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject

from a2mae.sensors import Encoding, Sensor
from a2mae.stssd.store.store import ImageSetStore
from a2mae.tasks.data_parameters import CutParameters, InputParameters
from a2mae.tasks.datasets.store_bands import bands_of_sets, check_alike, same_band, stored_sensor
from a2mae.tasks.datasets.task_data import SPLITS, Sample, SetSensor, Targets, TaskDataError, TaskSpec
from a2mae.tasks.registry import Task

Window = tuple[int, int, int, int]
"""First and last row, first and last column, the last ones not included."""


@dataclass(frozen=True)
class Tables:
    """What the builder wrote.

    Attributes:
        store: The image-set store.
        images: Image table.
        sets: Set table; gives the splits.
        locations: Location table; gives the grids.
    """

    store: ImageSetStore
    images: pd.DataFrame
    sets: pd.DataFrame
    locations: pd.DataFrame


@dataclass(frozen=True)
class Cut:
    """One sample before its pixels are read.

    Attributes:
        images: Rows of the image table that are labelled, one per date, the first date first.
        window: `(y0, y1, x0, x1)` on the task's grid.
        target: Classes or values of the window, or one for the image.
        split: Of its place.
        others: Of image sets: per date, the images beside the labelled one; empty where samples are single images.
    """

    images: tuple[pd.Series, ...]
    window: Window
    target: Targets
    split: str
    others: tuple[tuple[pd.Series, ...], ...] = ()

    @property
    def sets(self) -> tuple[tuple[pd.Series, ...], ...]:
        """All images of each date, the labelled one first."""
        others = self.others or ((),) * len(self.images)
        return tuple((image, *beside) for image, beside in zip(self.images, others, strict=True))


class StoreImages:
    """The images of a task's sensors with their splits, and their windows with enough usable pixels.

    Attributes:
        main: The first sensor, to whose grid all are brought.
        grid_px: Side of a footprint on that grid.
        table: Rows of the image table, with the split of their place; of image sets also their `period`.
        sensors: Ids, the main one first.
        set_sensors: How each is stored in image sets; empty where samples are single images.
        reference: Scene id of the reference of each set, by the set's id.
    """

    def __init__(self, task: Task, tables: Tables, parameters: CutParameters) -> None:
        """Prepare.

        Args:
            task: What is predicted, for messages.
            tables: What the builder wrote.
            parameters: Sensors, bands and size of the windows, and which images make up a set.

        Raises:
            TaskDataError: If a sensor or band is absent, units differ between sensors of single images, windows are too
                large, or no image lies in the time that is asked for.
        """
        self.inputs = parameters.inputs if parameters.inputs.is_set else None
        self.sensors = (self.inputs.sensors if self.inputs is not None else ()) or parameters.sensors
        sensors = [stored_sensor(tables.store, name) for name in self.sensors]
        self.main = sensors[0]
        self.set_sensors: tuple[SetSensor, ...] = ()
        if self.inputs is None:
            check_alike(sensors, parameters.bands)
            self.bands = tuple(self.main.bands[same_band(self.main, name)] for name in parameters.bands)
        else:
            self.bands, self.set_sensors = bands_of_sets(task, sensors, parameters.bands)
        self.grid_px = tables.store.shape(self.main.id)[-1]
        if parameters.chip_px > self.grid_px:
            raise TaskDataError(
                f"{task}: chip_px {parameters.chip_px} is larger than the footprint's {self.grid_px} pixels at"
                f" {self.main.gsd_m:g} m"
            )
        self._store, self._parameters = tables.store, parameters
        split = tables.sets.set_index("set_id")["split"]
        images = tables.images[tables.images["sensor"].isin(self.sensors)]
        images = images.assign(split=images["set_id"].map(split)).dropna(subset=["split"])
        self.table = images.sort_values(["location_id", "set_id", "datetime", "sensor"])
        if self.inputs is not None:
            self.table = self._in_window(task, self.table, self.inputs)
        self._locations = tables.locations.set_index("location_id")
        reference = tables.images[tables.images["is_reference"]]
        self.reference = reference.drop_duplicates("set_id").set_index("set_id")["scene_id"]

    def _in_window(self, task: Task, images: pd.DataFrame, inputs: InputParameters) -> pd.DataFrame:
        """Keep the images of the window, with the period that each is of."""
        days = images["datetime"].dt.date
        periods = [inputs.period(day, lat) for day, lat in zip(days, images["lat"], strict=True)]
        kept = images.assign(period=pd.array(periods, dtype=object)).dropna(subset=["period"])
        if not len(kept):
            found = f"theirs are from {days.min()} to {days.max()}" if len(images) else "they have none"
            raise TaskDataError(
                f"{task}: inputs.window: no image of {', '.join(self.sensors)} is {inputs}, {found}: widen the"
                " window or build image sets of that time"
            )
        return kept

    def at(self, places: Sequence[str]) -> Self:
        """Return the same of some places alone.

        Args:
            places: Ids of locations.
        """
        some = copy.copy(self)
        some.table = self.table[self.table["location_id"].isin(places)]
        some.reference = self.reference[self.reference.index.isin(some.table["set_id"])]
        some._locations = self._locations.loc[list(places)]
        return some

    def once(self) -> pd.DataFrame:
        """Return the images; one scene of one place may serve several sets, and counts once as a sample."""
        return self.table.drop_duplicates(["location_id", "sensor", "scene_id"])

    def registered(self) -> pd.DataFrame:
        """Return the images that lie on the reference of their set, which pairs of dates are made of."""
        return pd.DataFrame(self.table[self.table["registration"] != "nominal"])

    def pairs(self, candidates: Iterable[tuple[pd.Series, pd.Series]]) -> list[tuple[pd.Series, pd.Series]]:
        """Choose the pairs of images that lie on one reference, each pair of scenes once.

        Args:
            candidates: Earlier and later images of one place.

        Returns:
            Those of the same season first: then what differs is change; as many as `pairs_per_place` says. Of image
            sets those of the first sensor go before.
        """
        together = {
            (str(first["scene_id"]), str(second["scene_id"])): (first, second)
            for first, second in candidates
            if self.reference[first["set_id"]] == self.reference[second["set_id"]]
        }

        def order(scenes: tuple[str, str]) -> tuple[int, int, tuple[str, str]]:
            first, second = together[scenes]
            sensor = 0 if self.inputs is None else self.sensors.index(first["sensor"])
            return sensor, _season_gap(first, second), scenes

        ordered = sorted(together, key=order)
        return [together[scenes] for scenes in ordered[: self._parameters.pairs_per_place]]

    def grid(self, location_id: object) -> GeoBox:
        """Return the task's grid of a footprint."""
        place = cast(pd.Series, self._locations.loc[str(location_id)])
        affine = Affine.translation(place["x_m"], place["y_m"]) @ Affine.scale(self.main.gsd_m, -self.main.gsd_m)
        return GeoBox((self.grid_px, self.grid_px), affine, str(place["crs"]))

    def valid(self, image: pd.Series) -> npt.NDArray[np.bool_]:
        """Return where an image is valid, on its own grid `(h, w)`."""
        valid: npt.NDArray[np.bool_] = self._store.read(str(image["sensor"]), [int(image["row"])], [0])[1][0]
        return valid

    def is_usable(self, valid: npt.NDArray[np.bool_], window: Window) -> bool:
        """Tell whether enough of a window is valid.

        Args:
            valid: Of an image.
            window: On the task's grid.
        """
        return self.seen_share(valid, window) >= self._parameters.min_valid

    def seen_share(self, valid: npt.NDArray[np.bool_], window: Window) -> float:
        """Compute which share of a window is valid; arguments as of `is_usable`."""
        side = valid.shape[-1]
        y0, y1, x0, x1 = (round(v * side / self.grid_px) for v in window)
        return float(valid[y0:y1, x0:x1].mean())

    def usable(self, valid: npt.NDArray[np.bool_]) -> list[Window]:
        """Find the windows side by side in which enough is valid."""
        size = self._parameters.chip_px
        starts = range(0, self.grid_px - size + 1, size)
        windows = [(y, y + size, x, x + size) for y, x in product(starts, starts)]
        return [window for window in windows if self.is_usable(valid, window)]


def _season_gap(first: pd.Series, second: pd.Series) -> int:
    gap = abs(int(first["datetime"].day_of_year) - int(second["datetime"].day_of_year))
    return min(gap, 365 - gap)


def budgeted(cuts: list[Cut], parameters: CutParameters, rng: np.random.Generator) -> list[Cut]:
    """Draw at most `max_train` training samples and `max_test` of each other split."""
    chosen: list[int] = []
    for split in SPLITS:
        rows = np.array([i for i, cut in enumerate(cuts) if cut.split == split], np.int64)
        limit = parameters.max_train if split == "train" else parameters.max_test
        chosen += rng.permutation(rows)[:limit].tolist()
    return [cuts[i] for i in sorted(chosen)]


_Pixels = tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.bool_]]


@dataclass
class StoreSamples:
    """A source of task data that reads windows of the image-set store.

    Attributes:
        spec: What it holds.
        cuts: Which windows of which images.
        tables: Where pixels come from.
        grid_px: Side of a footprint on the task's grid.
    """

    spec: TaskSpec
    cuts: tuple[Cut, ...]
    tables: Tables
    grid_px: int

    @property
    def sensors(self) -> tuple[str, ...]:
        """Those whose images were cut, sorted."""
        return tuple(sorted({str(image["sensor"]) for cut in self.cuts for one in cut.sets for image in one}))

    def samples(self) -> Iterator[Sample]:
        """Read every cut; images of neighbouring cuts are decoded once."""
        places = self.tables.locations.set_index("location_id")
        whole: dict[str, _Pixels] = {}
        for cut in self.cuts:
            of_cut = {str(image["image_id"]): image for one in cut.sets for image in one}
            whole = {name: whole[name] if name in whole else self._read(image) for name, image in of_cut.items()}
            dates = [self._filled([whole[str(image["image_id"])] for image in one], cut.window) for one in cut.sets]
            target = cut.target
            if target.ndim:
                seen = np.logical_and.reduce([valid.any(axis=0) for _, valid in dates])
                target = np.where(seen, target, self.spec.unlabelled)
            place = cast(pd.Series, places.loc[str(cut.images[-1]["location_id"])])
            pixels, valid = (np.concatenate(parts) for parts in zip(*dates, strict=True))
            yield Sample(pixels, valid, target, self._row(cut, place), self._members(cut))

    def _filled(self, images: Sequence[_Pixels], window: Window) -> _Pixels:
        """Cut a window of the images of one date, and add missing ones up to those of the largest set."""
        y0, y1, x0, x1 = window
        pixels = np.stack([pixels[:, y0:y1, x0:x1] for pixels, _ in images])
        valid = np.stack([valid[y0:y1, x0:x1] for _, valid in images])
        missing = (0, self._most - len(images))
        if not missing[1]:
            return pixels, valid
        return np.pad(pixels, [missing, (0, 0), (0, 0), (0, 0)]), np.pad(valid, [missing, (0, 0), (0, 0)])

    def _members(self, cut: Cut) -> tuple[tuple[int, float], ...]:
        if not self.spec.set_sensors:
            return ()
        members: list[tuple[int, float]] = []
        for one in cut.sets:
            members += [(self._code[str(image["sensor"])], _day(image)) for image in one]
            members += [(-1, _day(one[0]))] * (self._most - len(one))
        return tuple(members)

    @cached_property
    def _code(self) -> dict[str, int]:
        return {one.id: number for number, one in enumerate(self.spec.set_sensors)}

    @cached_property
    def _most(self) -> int:
        """Images of the largest set; smaller ones are filled up."""
        return max(len(one) for cut in self.cuts for one in cut.sets)

    def late_notes(self) -> tuple[str, ...]:
        """Return nothing: what is left out is known before anything is read."""
        return ()

    def _read(self, image: pd.Series) -> _Pixels:
        """Read one image on the task's grid, in the task's integers, and where it is valid."""
        sensor = self.tables.store.sensor(image["sensor"])
        encoding, lacks = self.spec.encoding, tuple[str, ...]()
        if self.spec.set_sensors:
            member = self.spec.set_sensors[self._code[sensor.id]]
            encoding, lacks = member.encoding, member.lacks
        has = [number for number, band in enumerate(self.spec.bands) if band.name not in lacks]
        names = [
            sensor.bands[same_band(sensor, band.common_name or band.name)].name
            for band in (self.spec.bands[number] for number in has)
        ]
        found, seen = self._on_grid(sensor, int(image["row"]), names, encoding)
        if len(has) == len(self.spec.bands):
            return found, seen
        pixels = np.zeros((len(self.spec.bands), *found.shape[1:]), found.dtype)
        pixels[has] = found
        return pixels, seen

    def _on_grid(self, sensor: Sensor, row: int, names: Sequence[str], encoding: Encoding) -> _Pixels:
        side = self.tables.store.shape(sensor.id)[-1]
        ratio = self.grid_px / side
        if ratio == 1 and sensor.encoding == encoding:
            stored, valid = self.tables.store.read(sensor.id, [row], names)
            return stored[0].astype(encoding.dtype), valid[0]
        physical, valid = self.tables.store.read_physical(sensor.id, [row], names)
        shape = (self.grid_px, self.grid_px)
        # Grids of one footprint share its corner: source pixel = task pixel / ratio.
        target, source = Affine.identity(), Affine.scale(ratio)
        pixels = np.zeros((len(names), *shape), np.float32)
        weight = np.zeros(shape, np.float32)
        how = Resampling.average if ratio < 1 else Resampling.bilinear
        for channel, out in zip(physical[0], pixels, strict=True):
            _resample(channel, out, source, target, how)
        _resample(valid[0].astype(np.float32), weight, source, target, how)
        usable = weight > 0.99  # an invalid pixel (stored as 0) must not bleed into its neighbours
        counts = np.round((pixels - encoding.offset) / encoding.scale)
        limits = np.iinfo(encoding.dtype)
        return np.clip(counts, limits.min, limits.max).astype(encoding.dtype), usable

    def _row(self, cut: Cut, place: pd.Series) -> dict[str, object]:
        first, last = cut.images[0], cut.images[-1]
        y0, y1, x0, x1 = cut.window
        x_m = place["x_m"] + (x0 + x1) / 2 * self.spec.gsd_m
        y_m = place["y_m"] - (y0 + y1) / 2 * self.spec.gsd_m
        lon, lat = _to_degrees(str(place["crs"])).transform(x_m, y_m)
        pair = len(cut.images) == 2
        others = [f"and {sum(map(len, cut.others))}"] if self.spec.set_sensors else []
        named = [str(image["image_id"]) for image in cut.images]
        name = "-".join([str(last["location_id"]), *named, *others, f"{y0}-{x0}"])
        return {
            "sample_id": name,
            "split": cut.split,
            "place": str(last["location_id"]),
            "sensor": str(last["sensor"]),
            "sensor_before": str(first["sensor"]) if pair else "",
            "gsd_m": self.spec.gsd_m,
            "lon": lon,
            "lat": lat,
            "day": _day(last),
            "day_before": _day(first) if pair else float("nan"),
            "label": int(cut.target) if cut.target.ndim == 0 and self.spec.quantity is None else -1,
        }


def _resample(
    source: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    source_transform: Affine,
    transform: Affine,
    how: Resampling,
) -> None:
    """Resample between two grids of one footprint (no CRS is involved: any projected one will do)."""
    reproject(
        source,
        out,
        src_transform=source_transform,
        dst_transform=transform,
        src_crs="EPSG:3857",
        dst_crs="EPSG:3857",
        resampling=how,
    )


@lru_cache(maxsize=128)
def _to_degrees(crs: str) -> Transformer:
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def _day(image: pd.Series) -> float:
    return float(pd.Timestamp(image["datetime"]).timestamp() / 86400)
