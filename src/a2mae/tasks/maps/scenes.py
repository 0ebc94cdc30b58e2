"""Scenes of the scene table as rasters: one, a pair of dates, or many as a mosaic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from a2mae.sensors import Sensor
from a2mae.stssd.access.remote import RemoteAccess
from a2mae.stssd.scenes import Scene, scenes_from_table
from a2mae.tasks.maps.keys import RasterKeys
from a2mae.tasks.maps.rasters import Raster, mosaic, raster_from_scene
from a2mae.tasks.samples.task_data import TaskDataError

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
