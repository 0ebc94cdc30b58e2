"""Task data cut from the image-set store and the simulated truth."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from affine import Affine
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject

from a2mae.sensors import Sensor
from a2mae.stssd.image_sets.store import ImageSetStore
from a2mae.tasks.parameters import SimulatedDataParameters
from a2mae.tasks.samples.task_data import IGNORE, SPLITS, Sample, Task, TaskDataError, TaskSpec
from a2mae.tasks.samples.truth import Truth

logger = logging.getLogger(__name__)

MIN_PER_CLASS = 4
"""A class with fewer training samples, or without test samples, is left out and named."""
Window = tuple[int, int, int, int]
Pixels = tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.bool_]]


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
        images: Rows of the image table, first date first.
        window: `(y0, y1, x0, x1)` on the task's grid.
        target: Classes of the window, or a class per image.
        split: Of its place.
    """

    images: tuple[pd.Series, ...]
    window: Window
    target: npt.NDArray[np.uint8]
    split: str


@dataclass(frozen=True)
class SimulatedData:
    """A task data set about to be written: `samples()` reads the pixels.

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

    def samples(self) -> Iterator[Sample]:
        """Read every cut; images of neighbouring cuts are decoded once."""
        places = self.tables.locations.set_index("location_id")
        whole: dict[str, Pixels] = {}
        for cut in self.cuts:
            names = [str(image["image_id"]) for image in cut.images]
            whole = {
                name: whole[name] if name in whole else self._read(image)
                for name, image in zip(names, cut.images, strict=True)
            }
            y0, y1, x0, x1 = cut.window
            read = [(whole[name][0][:, y0:y1, x0:x1], whole[name][1][y0:y1, x0:x1]) for name in names]
            pixels, valid = np.stack([p for p, _ in read]), np.stack([v for _, v in read])
            target = cut.target
            if target.ndim:
                target = np.where(valid.all(axis=0), target, np.uint8(IGNORE))
            place = cast(pd.Series, places.loc[str(cut.images[-1]["location_id"])])
            yield Sample(pixels, valid, target, self._row(cut, place))

    def late_notes(self) -> tuple[str, ...]:
        """Nothing: what is left out is known before anything is read."""
        return ()

    def _read(self, image: pd.Series) -> Pixels:
        """One image on the task's grid, in the task's integers, and where it is valid."""
        sensor = self.tables.store.sensor(image["sensor"])
        names = [sensor.bands[_band(sensor, band.common_name or band.name)].name for band in self.spec.bands]
        side = self.tables.store.shape(sensor.id)[-1]
        ratio = self.grid_px / side
        if ratio == 1 and sensor.encoding == self.spec.encoding:
            stored, valid = self.tables.store.read(sensor.id, [int(image["row"])], names)
            return stored[0].astype(self.spec.encoding.dtype), valid[0]
        physical, valid = self.tables.store.read_physical(sensor.id, [int(image["row"])], names)
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
        encoding = self.spec.encoding
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
        name = "-".join([str(last["location_id"]), *(str(image["image_id"]) for image in cut.images), f"{y0}-{x0}"])
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
            "label": int(cut.target) if cut.target.ndim == 0 else -1,
        }


def cut_simulated(
    task: Task, tables: Tables, truth: Truth, parameters: SimulatedDataParameters, *, seed: int
) -> SimulatedData:
    """Decide which windows of which images become samples.

    Args:
        task: What is predicted.
        tables: What the builder wrote.
        truth: Of the simulation that the scenes came from.
        parameters: How to cut.
        seed: Of the draws that keep label budgets.

    Raises:
        TaskDataError: If a sensor or band is absent, units differ between sensors, or nothing is left.
    """
    sensors = [_sensor(tables.store, name) for name in parameters.sensors]
    main = sensors[0]
    _check_sensors(sensors, parameters.bands)
    grid_px = tables.store.shape(main.id)[-1]
    if parameters.chip_px > grid_px:
        raise TaskDataError(
            f"{task}: chip_px {parameters.chip_px} is larger than the footprint's {grid_px} pixels at {main.gsd_m:g} m"
        )
    cutter = _Cutter(tables, truth, parameters, grid_px, main.gsd_m)
    rng = np.random.default_rng(seed)
    notes = [f"splits by place; {main.title} grid of {main.gsd_m:g} m; samples need {parameters.min_valid:.0%} usable"]
    names: tuple[str, ...] = ("unchanged", "changed")
    colors: tuple[tuple[int, int, int], ...] = ((235, 235, 235), (214, 39, 40))
    if task is Task.DETECT_CHANGE:
        cuts = _budgeted(list(cutter.pairs()), parameters, rng)
    else:
        cuts = list(cutter.single(by_image=task is Task.CLASSIFY))
        if task is Task.SEGMENT:  # what a budget leaves out cannot be learnt, so classes are counted after it
            cuts = _budgeted(cuts, parameters, rng)
        cuts, kept = _known_classes(cuts, truth.class_names)
        dropped = [name for index, name in enumerate(truth.class_names) if index not in kept]
        if dropped:
            notes.append(f"left out, too few samples: {', '.join(dropped)}")
        names, colors = tuple(truth.class_names[i] for i in kept), tuple(truth.colors[i] for i in kept)
        if task is Task.CLASSIFY:
            cuts = _balanced(cuts, parameters, rng)
    spec = TaskSpec(
        task=task,
        source="simulated",
        class_names=names,
        colors=colors,
        bands=tuple(main.bands[_band(main, name)] for name in parameters.bands),
        encoding=main.encoding,
        gsd_m=main.gsd_m,
        notes=tuple(notes),
    )
    return SimulatedData(spec, tuple(cuts), tables, grid_px)


class _Cutter:
    """Walks over places and dates."""

    def __init__(
        self, tables: Tables, truth: Truth, parameters: SimulatedDataParameters, grid_px: int, gsd_m: float
    ) -> None:
        self._tables = tables
        self._truth = truth
        self._parameters = parameters
        self._grid_px = grid_px
        self._gsd_m = gsd_m
        split = tables.sets.set_index("set_id")["split"]
        images = tables.images[tables.images["sensor"].isin(parameters.sensors)]
        images = images.assign(split=images["set_id"].map(split)).dropna(subset=["split"])
        self._images = images.sort_values(["location_id", "set_id", "datetime", "sensor"])
        reference = tables.images[tables.images["is_reference"]]
        self._reference = reference.drop_duplicates("set_id").set_index("set_id")["scene_id"]
        self._locations = tables.locations.set_index("location_id")

    def single(self, *, by_image: bool) -> Iterator[Cut]:
        """Windows of single images; by image: those with one dominant class, which is the target."""
        # One scene of one place may serve several sets; as a sample it counts once.
        for _, image in self._images.drop_duplicates(["location_id", "sensor", "scene_id"]).iterrows():
            cover = self._truth_of(image, self._truth.period(str(image["scene_id"])))
            for window in self._usable(image):
                y0, y1, x0, x1 = window
                target = cover[y0:y1, x0:x1]
                if by_image:
                    counts = np.bincount(target[target != IGNORE], minlength=1)
                    if counts.max() < self._parameters.min_purity * target.size:
                        continue
                    target = np.array(counts.argmax(), np.uint8)
                yield Cut((image,), window, target, str(image["split"]))

    def pairs(self) -> Iterator[Cut]:
        """Windows of date pairs of one place, before and after the changes; both dates on one reference."""
        allowed = self._parameters.cross_sensor
        registered = self._images[self._images["registration"] != "nominal"]
        for _, images in registered.groupby("location_id", sort=True):
            period = images["scene_id"].map(lambda scene: self._truth.period(str(scene)))
            before = [image for _, image in images[period == "before"].iterrows()]
            after = [image for _, image in images[period == "after"].iterrows()]
            together = {
                (str(first["scene_id"]), str(second["scene_id"])): (first, second)
                for first, second in product(before, after)
                if (allowed or first["sensor"] == second["sensor"])
                and self._reference[first["set_id"]] == self._reference[second["set_id"]]
            }
            # The same season first: then what differs is change; other seasons follow as the budget allows.
            ordered = sorted(together, key=lambda scenes: (_season_gap(*together[scenes]), scenes))
            for first, second in (together[scenes] for scenes in ordered[: self._parameters.pairs_per_place]):
                change = self._truth_of(second, "change")
                windows = [window for window in self._usable(first) if window in set(self._usable(second))]
                for y0, y1, x0, x1 in windows:
                    yield Cut((first, second), (y0, y1, x0, x1), change[y0:y1, x0:x1], str(second["split"]))

    def _truth_of(self, image: pd.Series, layer: str) -> npt.NDArray[np.uint8]:
        place = self._locations.loc[image["location_id"]]
        transform = Affine.translation(place["x_m"], place["y_m"]) @ Affine.scale(self._gsd_m, -self._gsd_m)
        return self._truth.on_grid(
            self._truth.region(str(image["scene_id"])),
            layer,  # type: ignore[arg-type]  # "before", "after" or "change", by the callers
            crs=str(place["crs"]),
            transform=transform,
            shape=(self._grid_px, self._grid_px),
            shift_m=displacement_m(image, self._reference, self._truth),
        )

    def _usable(self, image: pd.Series) -> list[Window]:
        """Windows with enough usable pixels."""
        sensor = str(image["sensor"])
        _, valid = self._tables.store.read(sensor, [int(image["row"])], [0])
        side = valid.shape[-1]
        size, stride = self._parameters.chip_px, self._parameters.stride_px or self._parameters.chip_px
        starts = range(0, self._grid_px - size + 1, stride)
        windows = []
        for y, x in product(starts, starts):
            low_y, high_y, low_x, high_x = (round(v * side / self._grid_px) for v in (y, y + size, x, x + size))
            if valid[0, low_y:high_y, low_x:high_x].mean() >= self._parameters.min_valid:
                windows.append((y, y + size, x, x + size))
        return windows


def displacement_m(image: pd.Series, reference: pd.Series, truth: Truth) -> tuple[float, float]:
    """How far an image's content in the store lies east and north of the world's frame, metres.

    Args:
        image: A row of the image table.
        reference: `set_id` → scene id of the set's reference.
        truth: Knows every scene's own shift.
    """
    if image["registration"] == "registered":  # moved onto the reference: shares its displacement
        return truth.shift_m(str(reference[image["set_id"]]))
    return truth.shift_m(str(image["scene_id"]))  # the reference itself, or left where its provider put it


def _season_gap(first: pd.Series, second: pd.Series) -> int:
    gap = abs(int(first["datetime"].day_of_year) - int(second["datetime"].day_of_year))
    return min(gap, 365 - gap)


def _known_classes(cuts: Sequence[Cut], names: Sequence[str]) -> tuple[list[Cut], list[int]]:
    """Leave out classes that cannot be learnt or scored, and renumber the rest."""
    counts = {split: np.zeros(len(names), np.int64) for split in SPLITS}
    for cut in cuts:
        present = np.unique(cut.target)
        counts[cut.split][present[present != IGNORE]] += 1
    kept = [i for i in range(len(names)) if counts["train"][i] >= MIN_PER_CLASS and counts["test"][i] > 0]
    if len(kept) < 2:
        raise TaskDataError(
            f"fewer than two land-cover classes have {MIN_PER_CLASS} training samples and one test sample"
            f" (training: {dict(zip(names, counts['train'].tolist(), strict=True))}); simulate more places"
        )
    renumber = np.full(256, IGNORE, np.uint8)
    renumber[kept] = np.arange(len(kept), dtype=np.uint8)
    renamed = [replace(cut, target=np.asarray(renumber[cut.target])) for cut in cuts]
    return [cut for cut in renamed if cut.target.ndim or cut.target != IGNORE], kept


def _budgeted(cuts: list[Cut], parameters: SimulatedDataParameters, rng: np.random.Generator) -> list[Cut]:
    """At most `max_train` training samples and `max_test` of each other split, drawn evenly."""
    chosen: list[int] = []
    for split in SPLITS:
        rows = np.array([i for i, cut in enumerate(cuts) if cut.split == split], np.int64)
        limit = parameters.max_train if split == "train" else parameters.max_test
        chosen += rng.permutation(rows)[:limit].tolist()
    return [cuts[i] for i in sorted(chosen)]


def _balanced(cuts: list[Cut], parameters: SimulatedDataParameters, rng: np.random.Generator) -> list[Cut]:
    """As `_budgeted`, with an equal share of the budget for each class."""
    classes = sorted({int(cut.target) for cut in cuts})
    share = {
        name: None if limit is None else max(limit // len(classes), 1)
        for name, limit in (
            ("train", parameters.max_train),
            ("val", parameters.max_test),
            ("test", parameters.max_test),
        )
    }
    chosen: list[int] = []
    for split, label in product(SPLITS, classes):
        rows = np.array([i for i, c in enumerate(cuts) if c.split == split and int(c.target) == label], np.int64)
        chosen += rng.permutation(rows)[: share[split]].tolist()
    return [cuts[i] for i in sorted(chosen)]


def _sensor(store: ImageSetStore, name: str) -> Sensor:
    if name not in store.sensors:
        raise TaskDataError(f"the image-set store has no sensor {name!r}; it has {', '.join(store.sensors)}")
    return store.sensor(name)


def _band(sensor: Sensor, name: str) -> int:
    """Position of a band by name or common name; `nir` also finds Landsat's `nir08`."""
    for wanted in (name, f"{name}08", name.removesuffix("08")):
        for index, band in enumerate(sensor.bands):
            if wanted in (band.name, band.common_name):
                return index
    return sensor.band_index(name)  # raises, naming the bands that there are


def _check_sensors(sensors: Sequence[Sensor], bands: Sequence[str]) -> None:
    units = {sensor.id: sensor.encoding.units for sensor in sensors}
    if len(set(units.values())) > 1:
        raise TaskDataError(
            "sensors of one task must share their units, found "
            + ", ".join(f"{name}: {unit}" for name, unit in units.items())
        )
    for sensor in sensors:
        for band in bands:
            _band(sensor, band)


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
