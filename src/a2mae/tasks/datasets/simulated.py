"""Task data cut from the image-set store, with labels from the simulated truth.

The labels lie where the image shows the ground: see `a2mae.tasks.datasets.cuts`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from affine import Affine
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject

from a2mae.sensors import Sensor
from a2mae.stssd.store.store import ImageSetStore
from a2mae.tasks.datasets.cuts import Cut, Cutter, Tables, Truth, balanced, budgeted, known_classes
from a2mae.tasks.datasets.task_data import CHANGE_CLASSES, CHANGE_COLORS, IGNORE, Sample, TaskDataError, TaskSpec
from a2mae.tasks.parameters import SimulatedDataParameters
from a2mae.tasks.registry import Task

logger = logging.getLogger(__name__)


_Pixels = tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.bool_]]


@dataclass
class SimulatedData:
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
        return tuple(sorted({str(image["sensor"]) for cut in self.cuts for image in cut.images}))

    def samples(self) -> Iterator[Sample]:
        """Read every cut; images of neighbouring cuts are decoded once."""
        places = self.tables.locations.set_index("location_id")
        whole: dict[str, _Pixels] = {}
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
        """Return nothing: what is left out is known before anything is read."""
        return ()

    def _read(self, image: pd.Series) -> _Pixels:
        """Read one image on the task's grid, in the task's integers, and where it is valid."""
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
    cutter = Cutter(tables, truth, parameters, grid_px, main.gsd_m)
    rng = np.random.default_rng(seed)
    notes = [f"splits by place; {main.title} grid of {main.gsd_m:g} m; samples need {parameters.min_valid:.0%} usable"]
    names: tuple[str, ...] = CHANGE_CLASSES
    colors: tuple[tuple[int, int, int], ...] = CHANGE_COLORS
    if task is Task.DETECT_CHANGE:
        cuts = budgeted(list(cutter.pairs()), parameters, rng)
    else:
        cuts = list(cutter.single(by_image=task is Task.CLASSIFY))
        if task is Task.SEGMENT:  # what a budget leaves out cannot be learnt, so classes are counted after it
            cuts = budgeted(cuts, parameters, rng)
        cuts, kept = known_classes(cuts, truth.class_names)
        dropped = [name for index, name in enumerate(truth.class_names) if index not in kept]
        if dropped:
            notes.append(f"left out, too few samples: {', '.join(dropped)}")
        names, colors = tuple(truth.class_names[i] for i in kept), tuple(truth.colors[i] for i in kept)
        if task is Task.CLASSIFY:
            cuts = balanced(cuts, parameters, rng)
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
    splits = [cut.split for cut in cuts]
    logger.info("%s: %d samples to train, %d to test", task, splits.count("train"), splits.count("test"))
    return SimulatedData(spec, tuple(cuts), tables, grid_px)


def _sensor(store: ImageSetStore, name: str) -> Sensor:
    if name not in store.sensors:
        raise TaskDataError(f"the image-set store has no sensor {name!r}; it has {', '.join(store.sensors)}")
    return store.sensor(name)


def _band(sensor: Sensor, name: str) -> int:
    """Find a band by name or common name; `nir` also finds Landsat's `nir08`."""
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
