"""Which rasters and scenes are mapped, and what their parameters are called in messages.

What the parameters of a raster are called, for messages: `embed` and the maps of each task have their own.

Scenes of the scene table as rasters: one, a pair of dates, or many as a mosaic.

Rasters that the user names for a map: whose they are and how they are read, before any training and after it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import Scene, scenes_from_table
from a2mae.sensors import BUILTIN_SENSORS, Sensor, get_sensor, sensor_from_dict
from a2mae.tasks.datasets.task_data import Task, TaskDataError, TaskSpec
from a2mae.tasks.datasets.writer import TaskDataSource
from a2mae.tasks.inference.rasters import Raster, RasterKeys, keys_of_map, mosaic, raster_from_file, raster_from_scene
from a2mae.tasks.parameters import MapParameters, TaskParameters

logger = logging.getLogger(__name__)


HALF_A_YEAR = 180
"""Days: dates nearer than this differ by season more than by change."""


@dataclass(frozen=True)
class SceneChoice:
    """The scenes that maps are made of by default.

    Attributes:
        before: The earlier one, None where there is no pair.
        after: The later one: it is embedded and segmented.
    """

    before: Scene | None
    after: Scene


def scenes_of(table: pd.DataFrame | None, keys: RasterKeys) -> pd.DataFrame:
    """The scene table, where no raster is named.

    Args:
        table: As the chain has made it; None: no stage has.
        keys: What the parameters are called.

    Raises:
        TaskDataError: If there is none.
    """
    if table is None:
        raise TaskDataError(
            f"{keys.raster}: name one. No stage of this environment's chain makes scenes to choose from (parameter"
            " 'chain')"
        )
    return table


def choose_scenes(scenes: pd.DataFrame, sensor: str) -> SceneChoice:
    """The last scene of a sensor, and the one of the same ground that is nearest to it in season but years before.

    Args:
        scenes: Scene table.
        sensor: Sensor id.

    Raises:
        TaskDataError: If no accepted scene of the sensor is there.
    """
    found = [scene for scene in scenes_from_table(scenes) if scene.sensor == sensor]
    if not found:
        raise TaskDataError(
            f"no raster is named and no accepted scene of {sensor!r} is in the scene table: name a raster, or another"
            f" sensor of {', '.join(sorted(set(scenes['sensor'].dropna())))}"
        )
    earlier = {scene.scene_id: _earlier(scene, found) for scene in found}
    # One with an earlier date before one without, then the least cloudy: maps of clouds show nothing.
    after = min(
        found,
        key=lambda s: (
            not earlier[s.scene_id],
            round((s.cloud_cover_pct or 0) / 10),
            -s.datetime.timestamp(),
            s.scene_id,
        ),
    )
    day = after.datetime.timetuple().tm_yday
    before = min(
        earlier[after.scene_id],
        key=lambda s: (_gap(s.datetime.timetuple().tm_yday, day), s.scene_id),
        default=None,
    )
    return SceneChoice(before, after)


def _earlier(after: Scene, scenes: Sequence[Scene]) -> list[Scene]:
    """Scenes of the same ground, at least half a year older."""
    return [
        scene
        for scene in scenes
        if (after.datetime - scene.datetime).days > HALF_A_YEAR
        and scene.geometry.intersection(after.geometry).area > 0.8 * after.geometry.area
    ]


def _gap(first: int, second: int) -> int:
    return min(abs(first - second), 365 - abs(first - second))


@dataclass(frozen=True)
class SceneRasters:
    """Makes rasters of scenes, all by the same rules.

    Attributes:
        table: Scene table.
        access: How their files are reached.
        cloud_buffer_m: What a scene's mask calls cloud or shadow, widened by so much, counts as not seen; None: it is
            seen.
    """

    table: pd.DataFrame
    access: RemoteAccess
    cloud_buffer_m: float | None = None

    def one(self, scene: Scene, sensor: Sensor, bands: Sequence[str]) -> Raster:
        """Bands of one scene, in the order wanted."""
        return raster_from_scene(scene, sensor, bands, access=self.access, cloud_buffer_m=self.cloud_buffer_m)

    def of(self, scene_ids: Sequence[str], sensor: Sensor, bands: Sequence[str]) -> Raster:
        """Scenes (what the STAC search found) as one raster, the first on top.

        Raises:
            TaskDataError: If one is not in the table, or of another sensor.
        """
        known = {scene.scene_id: scene for scene in scenes_from_table(self.table)}
        unknown = [name for name in scene_ids if name not in known]
        if unknown:
            raise TaskDataError(f"not accepted scenes of the scene table: {', '.join(unknown)}")
        strangers = sorted({known[name].sensor for name in scene_ids} - {sensor.id})
        if strangers:
            raise TaskDataError(f"scene_ids must be of {sensor.id}, found {', '.join(strangers)}")
        return mosaic([self.one(known[name], sensor, bands) for name in scene_ids])


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
