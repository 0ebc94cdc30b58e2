"""Lay out the locations: the squares that images are cut from, in the UTM zone of their centre."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from a2mae.errors import InputError, plural
from a2mae.raster.footprints import area_lonlat, project, split_at_date_line, transformer, utm_crs
from a2mae.raster.mosaics import prefer_single
from a2mae.remote.policy import check_vector
from a2mae.scenes import Scene
from a2mae.sensors import Sensor
from a2mae.stssd.ingest.parameters import LocationParameters
from a2mae.stssd.ingest.sampling import draw
from a2mae.tables import LOCATION_COLUMNS

logger = logging.getLogger(__name__)

# Outlines become slightly bent chords on their way through degrees: a square counts as covered if all but this share of
# its side is.
_EDGE_TOLERANCE = 1 / 400
_MAX_CELLS = 20_000_000  # of one scene in one zone


class NoLocationError(InputError):
    """No square is covered by enough scenes."""


@dataclass(frozen=True)
class Locations:
    """The location table and the scenes that reach none of its squares.

    Attributes:
        table: `LOCATION_COLUMNS` and `geometry`.
        unused: Ids of scenes that cover no location.
    """

    table: gpd.GeoDataFrame
    unused: tuple[str, ...]


def check_footprint(footprint_m: float, sensors: Sequence[Sensor]) -> None:
    """Check that a square's side is a whole number of pixels of every sensor.

    Args:
        footprint_m: Side of the square, metres.
        sensors: Sensors in use.

    Raises:
        InputError: Naming the sensors and the nearest sides that fit.
    """
    bad = [s for s in sensors if abs(footprint_m / s.gsd_m - round(footprint_m / s.gsd_m)) > 1e-6]
    if bad:
        step = _common_step(sensors)
        low = math.floor(footprint_m / step) * step
        fits = [f"{side:g}" for side in (low, low + step) if side > 0]
        names = ", ".join(f"{s.id} ({s.gsd_m:g} m)" for s in bad)
        raise InputError(
            f"ingest.locations.footprint_m = {footprint_m:g} is not a whole number of pixels of {names};"
            f" with the sensors in use {' or '.join(fits)} would be"
        )


def _common_step(sensors: Sequence[Sensor]) -> float:
    """Least common multiple of the GSDs, metres (to the millimetre)."""
    return math.lcm(*(round(sensor.gsd_m * 1000) for sensor in sensors)) / 1000


def find_locations(scenes: Sequence[Scene], sensors: Sequence[Sensor], parameters: LocationParameters) -> Locations:
    """Find the squares that enough scenes cover.

    Args:
        scenes: Usable scenes.
        sensors: Their sensors.
        parameters: Mode, size, coverage and caps.

    Raises:
        InputError: If the side does not fit the sensors; the message says what to change.
        NoLocationError: If no square is covered.
    """
    check_footprint(parameters.footprint_m, sensors)
    area = _area(parameters)
    sensor_index = {s: i for i, s in enumerate(sorted({scene.sensor for scene in scenes}))}
    codes = np.array([sensor_index[scene.sensor] for scene in scenes], dtype=np.int64)
    outlines = np.array([scene.geometry for scene in scenes], dtype=object)
    frames, covering = [], np.zeros(len(scenes), dtype=bool)
    nearest = 0
    for crs in _zones(outlines, parameters):
        corners, reach = _candidates(crs, outlines, sensors, parameters)
        if not len(corners):
            continue
        pairs = _coverage(_squares(corners, parameters.footprint_m, _EDGE_TOLERANCE), reach)
        pairs = pairs[prefer_single(pairs[:, 0], pairs[:, 1], np.ones(len(pairs)), scenes)]
        frame, most = _count(crs, corners, pairs, codes, parameters)
        nearest = max(nearest, most)
        if area is not None and len(frame):
            squares = _squares(corners[frame["candidate"].to_numpy()], parameters.footprint_m)
            inside = shapely.covers(_prepared(project(area, crs)), squares)
            frame = frame[inside]
        if len(frame):
            frames.append(frame)
            kept = np.isin(pairs[:, 0], frame["candidate"].to_numpy())
            covering[np.unique(pairs[kept, 1])] = True
    if not frames:
        raise NoLocationError(
            f"no location: no square of {parameters.footprint_m:g} m is covered by"
            f" {plural(parameters.min_scenes, 'scene')} of {plural(parameters.min_sensors, 'sensor')}"
            f" (the best has {plural(nearest, 'scene')}); lower"
            " ingest.locations.min_scenes, min_sensors or footprint_m, or widen the polygons"
        )
    found = pd.concat(frames, ignore_index=True).sort_values("location_id", ignore_index=True)
    found = found.iloc[draw(found, parameters)].reset_index(drop=True)
    unused = tuple(scene.scene_id for scene, used in zip(scenes, covering, strict=True) if not used)
    return Locations(_table(found, parameters), unused)


def _prepared(geometry: BaseGeometry) -> BaseGeometry:
    shapely.prepare(geometry)
    return geometry


def _area(parameters: LocationParameters) -> BaseGeometry | None:
    if parameters.mode != "polygons" or parameters.polygons is None:
        return None
    path = Path(parameters.polygons)
    if not os.path.isfile(path):  # a text of any length
        raise InputError(f"ingest.locations.polygons: {parameters.polygons!r} is not a file")
    check_vector(path)
    try:
        frame = gpd.read_file(path)
    except (DataSourceError, DataLayerError) as error:
        raise InputError(f"ingest.locations.polygons: {parameters.polygons!r} cannot be read: {error}") from error
    if frame.crs is None:
        raise InputError(f"ingest.locations.polygons: {parameters.polygons!r} has no CRS: write it with its own")
    areas = [g for g in frame.geometry if g is not None and g.geom_type in ("Polygon", "MultiPolygon")]
    if not areas:
        raise InputError(f"ingest.locations.polygons: {parameters.polygons!r} holds no polygon")
    return area_lonlat(shapely.union_all(areas), frame.crs.to_wkt())


def _zones(outlines: NDArray[np.object_], parameters: LocationParameters) -> list[str]:
    """UTM zones that the scenes (or the points) touch."""
    if parameters.mode == "points":
        return sorted({utm_crs(lon, lat) for lon, lat in parameters.points})
    zones: set[str] = set()
    for part in shapely.get_parts(outlines):
        west, south, east, north = part.bounds
        for lon in [*np.arange(west, east, 3.0), east]:
            zones |= {utm_crs(min(max(lon, -180.0), 179.999999), lat) for lat in (south, north)}
    return sorted(zones)


def _zone_box(crs: str) -> BaseGeometry:
    """The zone and a margin, on both sides of the date line where it lies there."""
    number = int(crs[-2:])
    south = crs.startswith("EPSG:327")
    west = -180.0 + 6 * (number - 1)
    band = box(west - 0.5, -90 if south else -0.5, west + 6.5, 0.5 if south else 90)
    turns = [shapely.transform(band, lambda c, t=turn: c + np.array([t, 0.0])) for turn in (-360.0, 0.0, 360.0)]
    return shapely.intersection(shapely.union_all(turns), box(-180, -90, 180, 90))


def _candidates(
    crs: str, outlines: NDArray[np.object_], sensors: Sequence[Sensor], parameters: LocationParameters
) -> tuple[NDArray[np.float64], list[BaseGeometry | None]]:
    """Upper left corners (N, 2) to try in a zone, metres, and each scene's reach in that zone."""
    zone = _zone_box(crs)
    clipped = shapely.intersection(outlines, zone)
    reach = [None if part.is_empty else project(part, crs) for part in clipped]
    side = parameters.footprint_m
    corners: NDArray[np.float64]
    if parameters.mode == "points":
        places = np.array([p for p in parameters.points if utm_crs(*p) == crs], dtype=np.float64)
        x, y = transformer("EPSG:4326", crs).transform(places[:, 0], places[:, 1])
        step = _common_step(sensors)
        corners = np.column_stack([np.round((x - side / 2) / step) * step, np.round((y + side / 2) / step) * step])
        return np.unique(corners, axis=0), reach
    step = parameters.spacing_m or side
    cells = []
    for part in {shape.wkb: shape for shape in reach if shape is not None and not shape.is_empty}.values():
        west, south, east, north = part.bounds
        slack = side * _EDGE_TOLERANCE
        columns = np.arange(math.ceil((west - slack) / step), math.floor((east - side + slack) / step) + 1)
        rows = np.arange(math.ceil((south + side - slack) / step), math.floor((north + slack) / step) + 1)
        if len(columns) * len(rows) > _MAX_CELLS:
            raise InputError(
                f"{len(columns) * len(rows)} squares of {side:g} m in {crs} alone; give a larger"
                " ingest.locations.spacing_m, or mode points"
            )
        if len(columns) and len(rows):
            cells.append(np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2))
    if not cells:
        return np.empty((0, 2)), reach
    corners = np.unique(np.concatenate(cells), axis=0) * step
    lon, lat = transformer(crs, "EPSG:4326").transform(corners[:, 0] + side / 2, corners[:, 1] - side / 2)
    number = (np.floor((np.asarray(lon) + 180) / 6) % 60).astype(int) + 1
    here = (number == int(crs[-2:])) & ((np.asarray(lat) >= 0) == crs.startswith("EPSG:326"))
    return corners[here], reach


def _squares(corners: NDArray[np.float64], side: float, margin: float = 0.0) -> NDArray[np.object_]:
    """Draw squares from their upper left corners, smaller on each edge by a share of their side."""
    (x, y), less = corners.T, side * margin
    return np.asarray(shapely.box(x + less, y - side + less, x + side - less, y - less))


def _coverage(squares: NDArray[np.object_], reach: Sequence[BaseGeometry | None]) -> NDArray[np.int64]:
    """Pairs (square, scene) where the scene covers the square, (P, 2)."""
    if not len(squares):
        return np.empty((0, 2), dtype=np.int64)
    tree = shapely.STRtree(squares)
    present = [(i, shape) for i, shape in enumerate(reach) if shape is not None and not shape.is_empty]
    if not present:
        return np.empty((0, 2), dtype=np.int64)
    hits = tree.query(np.array([shape for _, shape in present], dtype=object), predicate="covers")
    scene = np.array([i for i, _ in present], dtype=np.int64)[hits[0]]
    return np.column_stack([hits[1].astype(np.int64), scene])


def _count(
    crs: str,
    corners: NDArray[np.float64],
    pairs: NDArray[np.int64],
    sensor_codes: NDArray[np.int64],
    parameters: LocationParameters,
) -> tuple[pd.DataFrame, int]:
    """Squares with enough scenes and sensors, and the largest number of scenes on any."""
    n = len(corners)
    scenes = np.bincount(pairs[:, 0], minlength=n)
    seen = np.unique(np.column_stack([pairs[:, 0], sensor_codes[pairs[:, 1]]]), axis=0)
    kinds = np.bincount(seen[:, 0], minlength=n)
    # Squares with the very same scenes share the sum of their scenes' random words.
    words = np.random.default_rng(0).integers(0, 2**63, size=len(sensor_codes), dtype=np.uint64)
    group = np.zeros(n, dtype=np.uint64)
    np.add.at(group, pairs[:, 0], words[pairs[:, 1]])
    enough = np.flatnonzero((scenes >= parameters.min_scenes) & (kinds >= parameters.min_sensors))
    x, y = corners[enough, 0], corners[enough, 1]
    half = parameters.footprint_m / 2
    lon, lat = transformer(crs, "EPSG:4326").transform(x + half, y - half)
    frame = pd.DataFrame(
        {
            "location_id": [_name(crs, a, b) for a, b in zip(x, y, strict=True)],
            "lon": lon,
            "lat": lat,
            "crs": crs,
            "x_m": x,
            "y_m": y,
            "group": group[enough],
            "candidate": enough,
        }
    )
    return frame, int(scenes.max(initial=0))


def _name(crs: str, x: float, y: float) -> str:
    number = f"{crs[-2:]}{'N' if crs.startswith('EPSG:326') else 'S'}"
    return f"{number}_{x:.10g}_{y:.10g}".replace(".", "p")


def _table(found: pd.DataFrame, parameters: LocationParameters) -> gpd.GeoDataFrame:
    side = parameters.footprint_m
    geometry = np.empty(len(found), dtype=object)
    for crs, rows in found.groupby("crs").indices.items():
        x, y = (found[name].to_numpy()[rows, None] for name in ("x_m", "y_m"))
        east, north = x + np.array([0, side, side, 0]), y + np.array([0, 0, -side, -side])
        lon, lat = transformer(str(crs), "EPSG:4326").transform(east, north)
        geometry[rows] = shapely.polygons(np.stack([np.unwrap(lon, period=360.0, axis=1), lat], axis=-1))
    bounds = shapely.bounds(geometry)
    for row in np.flatnonzero((bounds[:, 0] < -180) | (bounds[:, 2] > 180)):
        geometry[row] = split_at_date_line(geometry[row])
    frame = found.assign(footprint_m=side)[LOCATION_COLUMNS.names]
    for name in ("location_id", "crs"):
        frame[name] = frame[name].astype(pd.StringDtype(na_value=float("nan")))
    return gpd.GeoDataFrame(frame, geometry=geometry, crs=4326)
