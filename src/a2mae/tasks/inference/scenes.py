"""Scenes of the scene table that are mapped or embedded: chosen, or named by the user, and masked as the store is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from a2mae.config import CloudParameters
from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import Scene, scenes_from_table
from a2mae.sensors import Sensor
from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.inference.files import RasterKeys
from a2mae.tasks.inference.rasters import Raster, mosaic, raster_from_scene

HALF_A_YEAR = 180
"""Days: dates nearer than this differ by season more than by change."""


@dataclass(frozen=True)
class SceneChoice:
    """The scenes that maps are made of by default.

    Attributes:
        before: The earlier one, None if there is no pair.
        after: The later one: it is embedded and segmented.
    """

    before: Scene | None
    after: Scene


def choose_scenes(scenes: pd.DataFrame, sensor: str) -> SceneChoice:
    """Choose the last scene of a sensor, and one of the same ground in the same season, but years before.

    Args:
        scenes: Scene table.
        sensor: Sensor id.

    Raises:
        TaskDataError: If the table has no accepted scene of the sensor.
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
    """Makes rasters of scenes of the scene table.

    Attributes:
        table: Scene table; None if no stage has made one.
        sensors: Sensors in use, by id, as `ingest` describes them.
        access: How the scenes' files are reached.
        clouds: How clouds are told, as in the store (`coregister.clouds`); None: they are not masked.
    """

    table: pd.DataFrame | None
    sensors: Mapping[str, object]
    access: RemoteAccess
    clouds: CloudParameters | None

    def choose(self, sensor: str, keys: RasterKeys) -> SceneChoice:
        """Choose the scenes that are mapped by default, as `choose_scenes`.

        Args:
            sensor: Sensor id.
            keys: Names of the parameters, for messages.

        Raises:
            TaskDataError: If there is no scene table, or no accepted scene of the sensor in it.
        """
        return choose_scenes(self._scenes(keys), sensor)

    def one(self, scene: Scene, sensor: Sensor, bands: Sequence[str]) -> Raster:
        """Describe bands of one scene, in the order wanted."""
        return raster_from_scene(scene, sensor, bands, access=self.access, clouds=self.clouds)

    def named(self, scene_ids: Sequence[str], sensor: Sensor, bands: Sequence[str], keys: RasterKeys) -> Raster:
        """Lay scenes (what a STAC search found) on one another as one raster, the first on top.

        Args:
            scene_ids: Ids in the scene table.
            sensor: Their sensor.
            bands: Names or common names, in the order wanted.
            keys: Names of the parameters, for messages.

        Raises:
            TaskDataError: If one is not in the table, or of another sensor.
        """
        known = {scene.scene_id: scene for scene in scenes_from_table(self._scenes(keys))}
        unknown = [name for name in scene_ids if name not in known]
        if unknown:
            raise TaskDataError(f"not accepted scenes of the scene table: {', '.join(unknown)}")
        strangers = sorted({known[name].sensor for name in scene_ids} - {sensor.id})
        if strangers:
            raise TaskDataError(f"scene_ids must be of {sensor.id}, found {', '.join(strangers)}")
        return mosaic([self.one(known[name], sensor, bands) for name in scene_ids])

    def _scenes(self, keys: RasterKeys) -> pd.DataFrame:
        if self.table is None:
            raise TaskDataError(
                f"{keys.raster}: name one. No stage of this environment's chain makes scenes to choose from (parameter"
                " 'chain')"
            )
        return self.table
