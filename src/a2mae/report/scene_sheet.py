"""A contact sheet of scenes before anything is built of them: true and false colour, a row per product and date."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from a2mae.errors import ReadError
from a2mae.raster.footprints import transformer, utm_crs
from a2mae.raster.read import RasterReader
from a2mae.raster.warp import Footprint, read_image
from a2mae.remote.policy import RemoteAccess
from a2mae.report.pictures import BytesImage, display_bands, stretch
from a2mae.scenes import Scene
from a2mae.sensors import Sensor

if TYPE_CHECKING:
    import geopandas as gpd

_PER_SENSOR, _MOST_ROWS = 6, 24
_SIDE_PX, _FEWEST_PX = 192, 48
_STRETCH_PCT = (2.0, 98.0)
_NIR = ("nir", "nir08")
_EDGE_DEGREES = 1e-5  # outlines are bent chords in degrees


@dataclass(frozen=True, eq=False)
class Sheet:
    """A contact sheet.

    Attributes:
        png: The picture.
        rows: Scenes that it shows.
        of: Scenes that there are.
        unread: Why a scene could not be drawn, by id.
    """

    png: bytes
    rows: int
    of: int
    unread: Mapping[str, str]


def scene_sheet(
    scenes: Sequence[Scene], sensors: Mapping[str, Sensor], locations: gpd.GeoDataFrame, access: RemoteAccess
) -> Sheet:
    """Draw some scenes of every sensor at one of its squares, from their first to their last date.

    Args:
        scenes: Usable ones, at least one.
        sensors: By id.
        locations: Location table: a scene is shown at one of its squares.
        access: How their files are reached.
    """
    chosen = _chosen(scenes)
    rows, unread = [], {}
    with RasterReader(access=access) as reader:
        for scene in chosen:
            try:
                rows.append((scene, *_pictures(reader, scene, sensors[scene.sensor], locations)))
            except ReadError as error:
                unread[scene.scene_id] = str(error)
    figure = Figure(figsize=(5.2, 2.45 * max(1, len(rows))), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (scene, true, false) in zip(figure.subplots(max(1, len(rows)), 2, squeeze=False), rows, strict=False):
        for axis, picture, what in zip(axes, (true, false), ("true colour", "false colour"), strict=True):
            axis.set_axis_off()
            if picture is not None:
                axis.imshow(picture, interpolation="nearest")
                axis.set_title(f"{scene.sensor} {scene.datetime:%Y-%m-%d}\n{what}", fontsize=7)
            else:
                axis.text(0.5, 0.5, "no near infrared", ha="center", va="center", fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return Sheet(buffer.getvalue(), len(rows), len(scenes), unread)


def _chosen(scenes: Sequence[Scene]) -> list[Scene]:
    by_sensor: dict[str, list[Scene]] = defaultdict(list)
    for scene in sorted(scenes, key=lambda s: (s.sensor, s.datetime, s.scene_id)):
        by_sensor[scene.sensor].append(scene)
    most = max(1, min(_PER_SENSOR, _MOST_ROWS // len(by_sensor)))
    chosen = []
    for group in by_sensor.values():
        places = np.unique(np.linspace(0, len(group) - 1, min(most, len(group))).round().astype(int))
        chosen += [group[place] for place in places]
    return chosen[:_MOST_ROWS]


def _pictures(
    reader: RasterReader, scene: Scene, sensor: Sensor, locations: gpd.GeoDataFrame
) -> tuple[BytesImage, BytesImage | None]:
    square = _square(scene, sensor, locations)
    pixels = max(1, round(square.size_m / max(sensor.gsd_m, square.size_m / _SIDE_PX)))
    grid = square.grid(square.size_m / pixels)
    true = display_bands(sensor)
    by_name = {band.common_name: index for index, band in enumerate(sensor.bands)}
    nir = next((by_name[name] for name in _NIR if name in by_name), None)
    false = (nir, true[0], true[1]) if nir is not None and {"red", "green"} <= by_name.keys() else None
    places = sorted({*true, *(false or ())})
    image = read_image(reader, scene, sensor, grid, None, bands=tuple(sensor.bands[k].name for k in places))
    physical = np.nan_to_num(image.physical)

    def drawn(bands: Sequence[int]) -> BytesImage:
        return stretch(physical[[places.index(band) for band in bands]], image.valid, _STRETCH_PCT)

    return drawn(true), None if false is None else drawn(false)


def _square(scene: Scene, sensor: Sensor, locations: gpd.GeoDataFrame) -> Footprint:
    """A square of the table that the scene covers, widened where it is few pixels; or one in the scene's middle."""
    inside = locations[locations.geometry.within(scene.geometry.buffer(_EDGE_DEGREES))]
    if len(inside):
        row = inside.sort_values("location_id").iloc[len(inside) // 2]
        x, y, side = (float(row[name]) for name in ("x_m", "y_m", "footprint_m"))
        around = max(0.0, (_FEWEST_PX * sensor.gsd_m - side) / 2)  # a few pixels show nothing
        return Footprint(str(row["location_id"]), str(row["crs"]), x - around, y + around, side + 2 * around)
    middle = scene.geometry.centroid
    crs = utm_crs(middle.x, middle.y)
    east, north = transformer("EPSG:4326", crs).transform(middle.x, middle.y)
    side = sensor.gsd_m * _SIDE_PX
    return Footprint(scene.scene_id, crs, east - side / 2, north + side / 2, side)
