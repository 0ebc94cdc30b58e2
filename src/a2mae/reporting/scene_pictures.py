"""A scene of the table as a picture on a grid that is given, so that it lies beside what was made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from odc.geo.geobox import GeoBox

from a2mae.reporting.blocks import Picture
from a2mae.reporting.inputs import ReportInputs
from a2mae.reporting.pictures import display_bands, stretch, to_data_uri
from a2mae.stssd.access.remote import RemoteAccess
from a2mae.stssd.scenes import Scene, scenes_from_table
from a2mae.tasks.maps.rasters import RasterWindows, raster_from_scene

LARGEST_PX = 512
_STRETCH_PCT = (2.0, 92.0)
"""Clouds are in the scenes: they must not make the ground dark."""


def scene_picture(
    inputs: ReportInputs, scene_id: str, grid: GeoBox, shift_m: tuple[float, float] = (0.0, 0.0)
) -> Picture | None:
    """The picture; None where there is no such scene, or its files lie elsewhere.

    Args:
        inputs: Scene table and sensors.
        scene_id: As the table has it.
        grid: Of the picture.
        shift_m: (east, north): how far the scene is moved.
    """
    if inputs.scenes is None or inputs.store is None:
        return None
    (scene,) = scenes_from_table(inputs.scenes[inputs.scenes["scene_id"] == scene_id]) or (None,)
    if scene is None or scene.sensor not in inputs.store.sensors or not _is_here(scene):
        return None
    sensor = inputs.store.sensor(scene.sensor)
    bands: Sequence[str] = [sensor.bands[index].name for index in display_bands(sensor)]
    raster = raster_from_scene(scene, sensor, bands, access=RemoteAccess())  # it lies here
    with RasterWindows(replace(raster, grid=grid, shift_m=shift_m)) as windows:
        pixels, valid = windows.on(grid)
    words = f"{scene.datetime:%Y-%m-%d}"
    uri = to_data_uri(stretch(pixels, valid, _STRETCH_PCT), max_px=LARGEST_PX)
    return Picture(uri, f"Scene {scene.scene_id} of {words}", (words,))


def _is_here(scene: Scene) -> bool:
    return all(Path(asset.href).is_file() for asset in scene.bands)
