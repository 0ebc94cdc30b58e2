"""Rasters that the user names for a map: whose they are and how they are read, before any training and after it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from a2mae.sensors import BUILTIN_SENSORS, Sensor, get_sensor, sensor_from_dict
from a2mae.tasks.maps.keys import keys_of_map
from a2mae.tasks.maps.rasters import Raster, raster_from_file
from a2mae.tasks.parameters import MapParameters, TaskParameters
from a2mae.tasks.samples.task_data import Task, TaskDataError, TaskSpec
from a2mae.tasks.samples.writer import TaskDataSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mapped:
    """What a task's data decides about the rasters that its model maps.

    Attributes:
        spec: Of the data: its bands, order and encoding are those of files like the training's.
        sensors: Ids of the sensors of its samples, in the order of the input plan.
        bands: Names in the data, in the order wanted.
        known: Sensors in use, by id, as `ingest` describes them.
    """

    spec: TaskSpec
    sensors: Sequence[str]
    bands: Sequence[str]
    known: Mapping[str, object]

    def sensor(self, options: MapParameters) -> tuple[Sensor, Sensor | None]:
        """Whose rasters are mapped; and, where they are of the training's kind, the order and encoding of its files.

        Raises:
            TaskDataError: If the data has no samples of the sensor.
        """
        spec, sensor_id = self.spec, options.sensor or self.sensors[0]
        if sensor_id not in self.sensors:
            raise TaskDataError(
                f"{keys_of_map(spec.task).sensor}: the {spec.task} data of {spec.source!r} is of"
                f" {', '.join(self.sensors)}, not of {sensor_id!r}; set it to one of those, or teach the task"
                f" {sensor_id!r} ({spec.task}.data)"
            )
        as_trained = tuple(self.sensors) == (sensor_id,)
        trained = Sensor(sensor_id, spec.source, spec.gsd_m, spec.bands, spec.encoding)
        # Pictures of a folder are of no sensor that ingest or the program knows.
        known = sensor_id in self.known or sensor_id in BUILTIN_SENSORS
        found = trained if as_trained and not known else sensor_named(sensor_id, self.known)
        return found, trained if as_trained else None

    def rasters(self, options: MapParameters) -> list[Raster]:
        """The named raster, or the earlier and the later one of a pair; none where no raster is named.

        Raises:
            TaskDataError: If one cannot be opened, has no CRS in metres, lacks a band or is in other units.
        """
        if options.raster is None:
            return []
        sensor, stated = self.sensor(options)
        paths = [options.raster_before, options.raster] if self.spec.task is Task.DETECT_CHANGE else [options.raster]
        keys = keys_of_map(self.spec.task)
        return [raster_from_file(Path(str(path)), sensor, self.bands, stated=stated, keys=keys) for path in paths]


def check_named(options: TaskParameters, source: TaskDataSource, known: Mapping[str, object] | None) -> None:
    """Open the rasters that a map is asked of, so that one that cannot be mapped is refused before hours of training.

    Args:
        options: The task's parameters.
        source: Its samples, not read yet.
        known: Sensors in use, by id; None where no stage has looked at scenes.

    Raises:
        TaskDataError: As `Mapped.rasters`, or if the data lacks a band.
    """
    spec = source.spec
    if known is None and options.map.raster is None:
        logger.warning(
            "%s names no raster and no stage of the chain makes scenes: there will be scores and no map; name one, or"
            " leave the map out by --to-outputs=%s.metrics",
            keys_of_map(spec.task).raster,
            spec.task,
        )
    if options.map.raster is not None:
        bands = [spec.bands[spec.band_index(name)].name for name in options.bands]
        Mapped(spec, source.sensors, bands, known or {}).rasters(options.map)


def sensor_named(sensor_id: str, known: Mapping[str, object]) -> Sensor:
    """A sensor as `ingest` describes it, else a built-in one.

    Args:
        sensor_id: Its id.
        known: Sensors in use, by id.
    """
    described = known.get(sensor_id)
    return sensor_from_dict(described) if isinstance(described, Mapping) else get_sensor(sensor_id)
