"""Bands of several sensors: which are the same, and how image sets store images that lack some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from a2mae.sensors import Band, Encoding, Sensor, UnknownBandError
from a2mae.stssd.store.store import ImageSetStore
from a2mae.tasks.datasets.task_data import SetSensor, TaskDataError
from a2mae.tasks.registry import Task


def stored_sensor(store: ImageSetStore, name: str) -> Sensor:
    """Return a sensor of a store.

    Args:
        store: The image-set store.
        name: Id of the sensor.

    Raises:
        TaskDataError: If the store has none of its images; the message lists those it has.
    """
    if name not in store.sensors:
        raise TaskDataError(f"the image-set store has no sensor {name!r}; it has {', '.join(store.sensors)}")
    return store.sensor(name)


def same_band(sensor: Sensor, name: str) -> int:
    """Find the position of a band by name or common name; `nir` also finds Landsat's `nir08`.

    Args:
        sensor: Whose bands are looked through.
        name: Of the band, as another sensor may have it.

    Raises:
        UnknownBandError: If the sensor has no such band; the message lists those it has.
    """
    for wanted in (name, f"{name}08", name.removesuffix("08")):
        for index, band in enumerate(sensor.bands):
            if wanted in (band.name, band.common_name):
                return index
    return sensor.band_index(name)  # raises, naming the bands that there are


def check_alike(sensors: Sequence[Sensor], bands: Sequence[str]) -> None:
    """Check that single images of several sensors may be samples of one data set.

    Args:
        sensors: Whose images they are.
        bands: Names or common names.

    Raises:
        TaskDataError: If their units differ.
        UnknownBandError: If one lacks a band.
    """
    units = {sensor.id: sensor.encoding.units for sensor in sensors}
    if len(set(units.values())) > 1:
        raise TaskDataError(
            "sensors of one task must share their units, found "
            + ", ".join(f"{name}: {unit}" for name, unit in units.items())
        )
    for sensor in sensors:
        for band in bands:
            same_band(sensor, band)


def bands_of_sets(
    task: Task, sensors: Sequence[Sensor], names: Sequence[str]
) -> tuple[tuple[Band, ...], tuple[SetSensor, ...]]:
    """Find the bands of image sets, each at the first sensor that has it, and how every sensor is stored.

    Args:
        task: What is predicted, for messages.
        sensors: Of the images, the main one first.
        names: Names or common names of the bands.

    Raises:
        TaskDataError: If no sensor has a band, a sensor has none of them, or its integers are too wide.
    """
    bands: list[Band] = []
    for name in names:
        owners = [sensor for sensor in sensors if _has(sensor, name)]
        if not owners:
            raise TaskDataError(
                f"{task}: none of {', '.join(sensor.id for sensor in sensors)} has a band {name!r}: leave it out of"
                " `bands` of the data, or name a sensor that has it in inputs.sensors"
            )
        bands.append(owners[0].bands[same_band(owners[0], name)])
    main, stored = sensors[0].encoding, list[SetSensor]()
    for sensor in sensors:
        lacks = tuple(band.name for band, name in zip(bands, names, strict=True) if not _has(sensor, name))
        if len(lacks) == len(bands):
            raise TaskDataError(
                f"{task}: inputs.sensors: {sensor.id} has none of the bands {', '.join(names)}, so its images would be"
                f" empty: add bands of it ({', '.join(sensor.band_names)}) to `bands` of the data, or leave it out"
            )
        encoding = main if sensor.encoding.units == main.units else _counted_as(sensor.encoding, main.dtype)
        stored.append(SetSensor(sensor.id, encoding, lacks))
    return tuple(bands), tuple(stored)


def _has(sensor: Sensor, name: str) -> bool:
    try:
        same_band(sensor, name)
    except UnknownBandError:
        return False
    return True


def _counted_as(encoding: Encoding, dtype: str) -> Encoding:
    """Store the counts of other units in another integer type of the same width: all of them are moved alike."""
    own, other = np.iinfo(encoding.dtype), np.iinfo(dtype)
    if own.bits > other.bits:
        raise TaskDataError(
            f"images in {encoding.units} are stored as {encoding.dtype}, which {dtype} of the first sensor cannot hold:"
            " name a sensor of wider integers first in inputs.sensors"
        )
    moved = int(own.min) - int(other.min)
    return replace(encoding, dtype=dtype, offset=encoding.offset + moved * encoding.scale)
