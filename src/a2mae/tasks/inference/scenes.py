"""Scenes of the scene table that are mapped or embedded: chosen, or named by the user, and masked as the store is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import pandas as pd

from a2mae.config import CloudParameters
from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import Scene, scenes_from_table
from a2mae.sensors import Sensor
from a2mae.tasks.data_parameters import InputParameters, nearer_than_halfway
from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.inference.files import RasterKeys
from a2mae.tasks.inference.rasters import Raster, mosaic, raster_from_scene

HALF_A_YEAR = 180
"""Days: dates nearer than this differ by season more than by change."""
_MOST_OF_IT = 0.8
"""Share of a scene's ground that another one of the same ground shows."""


@dataclass(frozen=True)
class SceneChoice:
    """The scenes that maps are made of by default.

    Attributes:
        before: The earlier one, None if there is no pair.
        after: The later one: it is embedded and segmented.
    """

    before: Scene | None
    after: Scene

    def dates(self, count: int, keys: RasterKeys) -> list[Scene]:
        """Return the one that is mapped, or both, the earlier one first.

        Args:
            count: How many are wanted.
            keys: Names of the parameters, for the message.

        Raises:
            TaskDataError: If two are wanted and there is no earlier one.
        """
        if count == 1:
            return [self.after]
        if self.before is None:
            raise TaskDataError(
                f"a change map needs two dates of one place: scene {self.after.scene_id} has no earlier one of"
                f" {self.after.sensor}; set {keys.raster} and raster_before"
            )
        return [self.before, self.after]


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
        and scene.geometry.intersection(after.geometry).area > _MOST_OF_IT * after.geometry.area
    ]


def _in_turn(scenes: Sequence[Scene], sensors: Sequence[str]) -> list[Scene]:
    """Order scenes by turns of sensors, of each the least cloudy first."""
    ordered = sorted(scenes, key=lambda scene: (scene.cloud_cover_pct or 0, scene.datetime, scene.scene_id))
    turns = [[scene for scene in ordered if scene.sensor == sensor] for sensor in sensors]
    return [scene for turn in zip_longest(*turns) for scene in turn if scene is not None]


def _period(scene: Scene, inputs: InputParameters) -> str | None:
    return inputs.period(scene.datetime.date(), scene.geometry.centroid.y)


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

    def sets_of(
        self,
        main: str,
        sensors: Sequence[str],
        named: Sequence[Sequence[str]],
        inputs: InputParameters,
        *,
        most: int,
        keys: RasterKeys,
    ) -> list[list[Scene]]:
        """Choose the scenes of an image set, or of two: those that are named, or others of one's ground and period.

        Args:
            main: Sensor on whose grid the map is drawn.
            sensors: Sensors of the sets.
            named: Ids in the scene table for each date, the first one's grid is the map's; empty: chosen here.
            inputs: Which images make up a set.
            most: Images of a set, at most.
            keys: Names of the parameters, for messages.

        Returns:
            For each date its scenes, the one that decides its period first.

        Raises:
            TaskDataError: If one is not in the table or of another sensor, too many are named, or there is none.
        """
        table = self._scenes(keys)
        known = {scene.scene_id: scene for scene in scenes_from_table(table) if scene.sensor in sensors}
        for scene_ids in named:
            unknown = [name for name in scene_ids if name not in known]
            if unknown or len(scene_ids) > most:
                found = f"{', '.join(unknown)} is not" if unknown else f"{len(scene_ids)} are more than {most} scenes"
                raise TaskDataError(
                    f"{keys.group}.scene_ids: {found} of {', '.join(sensors)} in the scene table; name at most {most}"
                    " accepted scenes of these"
                )
        if named[-1]:
            return [[known[name] for name in scene_ids] for scene_ids in named]
        dated = {name: _period(scene, inputs) for name, scene in known.items()}
        inside = table[table["scene_id"].isin([name for name, period in dated.items() if period is not None])]
        if not len(inside):
            raise TaskDataError(
                f"{keys.group}: no accepted scene of {', '.join(sensors)} is {inputs}: widen the window"
            )
        dates = choose_scenes(inside, main).dates(len(named), keys)
        gap = dates[-1].datetime - dates[0].datetime
        return [
            [first, *_in_turn([
                scene
                for name, scene in known.items()
                if name != first.scene_id
                and dated[name] == dated[first.scene_id]
                and (len(dates) == 1 or nearer_than_halfway(scene.datetime, first.datetime, gap))
                and scene.geometry.intersection(first.geometry).area > _MOST_OF_IT * first.geometry.area
            ], sensors)[: most - 1]]
            for first in dates
        ]  # fmt: skip

    def _scenes(self, keys: RasterKeys) -> pd.DataFrame:
        if self.table is None:
            raise TaskDataError(
                f"{keys.raster}: name one. No stage of this environment's chain makes scenes to choose from (parameter"
                " 'chain')"
            )
        return self.table
