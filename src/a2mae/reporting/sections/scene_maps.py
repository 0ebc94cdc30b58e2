"""A task's map of a whole scene, beside the scenes that it was drawn from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from a2mae.reporting import text
from a2mae.reporting.blocks import Block, Gallery, Picture, Section, Strip, Swatch, Table
from a2mae.reporting.inputs import ReportInputs
from a2mae.reporting.pictures import INVALID_RGB, display_bands, hex_colour, stretch, to_data_uri
from a2mae.stssd.access.remote import RemoteAccess
from a2mae.stssd.scenes import Scene, scenes_from_table
from a2mae.tasks.maps.rasters import RasterWindows, raster_from_scene
from a2mae.tasks.samples.task_data import IGNORE

_PICTURE_PX = 512
_STRETCH_PCT = (2.0, 92.0)
"""Clouds are in the scenes: they must not make the ground dark."""


@dataclass(frozen=True)
class _Map:
    """What a map file says of itself.

    Attributes:
        classes: `(H, W)` uint8, reduced.
        names: Of the classes.
        colours: Red, green, blue of every class.
        dates: Scenes or files that it was drawn from, the earlier first.
        moved_m: (east, north): how far the later one was moved.
        grid: Of the reduced picture.
        pixel_km2: Ground of one pixel of it.
    """

    classes: NDArray[np.uint8]
    names: dict[int, str]
    colours: dict[int, tuple[int, int, int]]
    dates: tuple[str, ...]
    moved_m: tuple[float, float]
    grid: GeoBox
    pixel_km2: float


def scene_map(inputs: ReportInputs, name: str) -> Section | None:
    """The map of a segmenter or change detector; None where it drew none."""
    task = next((task for task in inputs.tasks if task.name == name), None)
    if task is None or task.map is None or not task.map.is_file():
        return None
    found = _read(task.map)
    seen = found.classes != IGNORE
    counts = {value: int((found.classes == value).sum()) for value in found.names}
    total = max(int(seen.sum()), 1)
    order = sorted((value for value in counts if counts[value]), key=lambda value: -counts[value])
    said = ", ".join(f"{found.names[value]} {text.percent(counts[value] / total, 0)}" for value in order[:4])
    table = np.array([found.colours.get(value, INVALID_RGB) for value in range(256)], np.uint8)
    table[IGNORE] = INVALID_RGB
    answer = Picture(
        to_data_uri(table[found.classes], max_px=_PICTURE_PX, exact=True),
        f"Map of {' and '.join(found.dates) or 'a raster'}: {said or 'nothing was seen'}",
        ("map",),
    )
    legend = [Swatch(hex_colour(found.colours[value]), found.names[value]) for value in order]
    if not seen.all():
        legend.append(Swatch(hex_colour(INVALID_RGB), "not seen"))
    rows = tuple(
        (found.names[value], f"{counts[value] * found.pixel_km2:.2f}", text.percent(counts[value] / total))
        for value in order
    )
    blocks: tuple[Block, ...] = (
        Gallery(_caption(found, seen), (Strip("", (*_scenes(inputs, found), answer)),), tuple(legend), large=True),
        Table("Ground by class", ("class", "km²", "of what was seen"), rows, numeric=(1, 2)),
    )
    return Section(
        f"map-{name.replace('_', '-')}",
        "A map of a whole scene",
        f"Every pixel of {' and '.join(found.dates) or 'a raster'}. {task.map.name} opens in any GIS in these colours.",
        blocks,
    )


def _read(path: Path) -> _Map:
    with rasterio.open(path) as source:
        share = min(1.0, _PICTURE_PX / max(source.shape))
        shape = (max(1, round(source.height * share)), max(1, round(source.width * share)))
        tags = source.tags()
        grid = GeoBox(source.shape, source.transform, source.crs.to_wkt()).zoom_to(shape)
        return _Map(
            source.read(1, out_shape=shape),
            {int(value): name for value, name in json.loads(tags["CLASS_NAMES"]).items()},
            {value: colour[:3] for value, colour in source.colormap(1).items()},
            tuple(json.loads(tags.get("DATES", "[]"))),
            tuple(json.loads(tags.get("LATER_DATE_MOVED_M", "[0, 0]"))),
            grid,
            abs(grid.resolution.x * grid.resolution.y) / 1e6,
        )


def _caption(found: _Map, seen: NDArray[np.bool_]) -> str:
    parts = []
    if len(found.dates) > 1:
        east, north = found.moved_m
        moved = f"was moved by {east:+.1f} m east and {north:+.1f} m north to lie on the earlier one"
        parts.append(f"The later date {moved if (east, north) != (0, 0) else 'stays where its provider put it'}.")
    if not seen.all():
        parts.append(f"{text.percent(float(1 - seen.mean()))} was not seen, or is cloud or shadow: no class is given.")
    return " ".join(parts)


def _scenes(inputs: ReportInputs, found: _Map) -> list[Picture]:
    """The dates as pictures, where they are scenes of the table that lie on this machine."""
    if inputs.scenes is None or inputs.store is None:
        return []
    known = {scene.scene_id: scene for scene in scenes_from_table(inputs.scenes)}
    scenes = [known.get(name) for name in found.dates]
    pictures = []
    for number, scene in enumerate(scenes):
        if scene is None or scene.sensor not in inputs.store.sensors or not _is_here(scene):
            continue
        sensor = inputs.store.sensor(scene.sensor)
        bands: Sequence[str] = [sensor.bands[index].name for index in display_bands(sensor)]
        raster = raster_from_scene(scene, sensor, bands, access=RemoteAccess())  # it lies here
        raster = replace(raster, grid=found.grid, shift_m=found.moved_m if number else (0.0, 0.0))
        with RasterWindows(raster) as windows:
            pixels, valid = windows.on(found.grid)
        words = f"{scene.datetime:%Y-%m-%d}"
        pictures.append(
            Picture(
                to_data_uri(stretch(pixels, valid, _STRETCH_PCT), max_px=_PICTURE_PX),
                f"Scene {scene.scene_id} of {words}",
                (words,),
            )
        )
    return pictures


def _is_here(scene: Scene) -> bool:
    return all(Path(asset.href).is_file() for asset in scene.bands)
