"""Compute outlines of rasters on the globe, pixel sizes in metres, and UTM zones."""

from __future__ import annotations

import math
import re
from functools import lru_cache

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from a2mae.errors import InputError, RejectedError

_GEOD = Geod(ellps="WGS84")
# A code of an authority, WKT 1 or 2, PROJJSON. Other texts are addresses, paths and names that a library may go after.
_CRS_TEXT = re.compile(
    r"\s*(?:(?:urn:ogc:def:crs:)?[A-Za-z][A-Za-z0-9_]{1,9}:[A-Za-z0-9_.:]{1,20}\s*$|[A-Z][A-Za-z0-9_]+\s*\[|\{)"
)
_FILES = re.compile(r"PARAMETERFILE|(?:nad|geoid)grids=(?!@null)|\bfile\"", re.IGNORECASE)
_MOST_STRETCHED = 0.02
"""Metres of a map projection are taken for those of the ground up to this difference: UTM's are within 0.1 %."""
_EQUAL_AREA = "EPSG:6933"
EARTH_RADIUS_M = 6_371_000.0
"""Of a sphere, for distances between places."""
_SEGMENTS_PER_OUTLINE = 200
_SEGMENTS_PER_SIDE = 16  # a projected edge is a curve in degrees


@lru_cache(maxsize=512)
def known_crs(text: str) -> CRS:
    """Parse a coordinate reference system from "EPSG:…" or WKT; cached. Nothing is looked up under another name.

    Raises:
        InputError: If PROJ does not know it.
    """
    try:
        if _CRS_TEXT.match(text) is None or _FILES.search(text):
            raise InputError("it is neither a code nor WKT")
        return CRS.from_user_input(text)
    except (ProjError, ValueError) as error:
        raise InputError(f"{text[:80]!r} is no coordinate reference system") from error


@lru_cache(maxsize=512)
def transformer(source: str, target: str) -> Transformer:
    """Return a coordinate transformer, x/east first; cached.

    Args:
        source: "EPSG:…" or WKT.
        target: "EPSG:…" or WKT.

    Raises:
        InputError: If PROJ does not know one of them, or no way between them.
    """
    try:
        return Transformer.from_crs(known_crs(source), known_crs(target), always_xy=True)
    except ProjError as error:
        raise InputError(f"no way from {source[:80]!r} to {target[:80]!r}") from error


def utm_crs(lon: float, lat: float) -> str:
    """Return the EPSG code of the UTM zone of a place.

    Args:
        lon: Longitude, degrees.
        lat: Latitude, degrees.
    """
    zone = int(((lon + 180) // 6) % 60) + 1
    return f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"


def pixel_size_m(transform: Affine, shape: tuple[int, int], crs: str) -> tuple[float, float]:
    """Measure the pixel's width and height in metres at the centre of a raster.

    Args:
        transform: Pixel to coordinates.
        shape: Rows and columns.
        crs: "EPSG:…" or WKT; degrees are measured on the ellipsoid, and so are metres that differ from those of the
            ground, as those of EPSG:3857 (60 % of a metre at 53 degrees north).

    Returns:
        Width and height, metres.

    Raises:
        ValueError: If the CRS has neither degrees nor a linear unit.
    """
    reference = known_crs(crs)
    if reference.is_geographic:
        return _on_ellipsoid(transform, shape, crs)
    units = {
        axis.unit_conversion_factor for axis in reference.axis_info if axis.direction in ("east", "north", "south")
    }
    factor = next(iter(units), 1.0)
    stated = math.hypot(transform.a, transform.d) * factor, math.hypot(transform.b, transform.e) * factor
    ground = _on_ellipsoid(transform, shape, crs)
    stretched = any(abs(g - s) > _MOST_STRETCHED * s for g, s in zip(ground, stated, strict=True))
    return ground if stretched else stated


def _on_ellipsoid(transform: Affine, shape: tuple[int, int], crs: str) -> tuple[float, float]:
    """Width and height of the pixel at the centre; NaN where the CRS does not reach there."""
    col, row = shape[1] / 2, shape[0] / 2
    x, y = zip(*(transform @ (col + right, row + down) for right, down in ((0, 0), (1, 0), (0, 1))), strict=True)
    lon, lat = (x, y) if known_crs(crs).is_geographic else transformer(crs, "EPSG:4326").transform(x, y)
    if not np.isfinite([*lon, *lat]).all():
        return math.nan, math.nan
    width, height = (float(_GEOD.inv(lon[0], lat[0], lon[k], lat[k])[2]) for k in (1, 2))
    return width, height


def ground_size_m(transform: Affine, shape: tuple[int, int], crs: str) -> float:
    """Measure the size of a pixel as one number: the geometric mean of width and height, to a tenth of a millimetre.

    Args:
        transform: Pixel to coordinates.
        shape: Rows and columns.
        crs: As for `pixel_size_m`.

    Raises:
        ValueError: Likewise.
    """
    width, height = pixel_size_m(transform, shape, crs)
    return round(math.sqrt(width * height), 4)


def ground_m2_per_unit(x: NDArray[np.float64], y: NDArray[np.float64], crs: str, step: float) -> NDArray[np.float64]:
    """Compute how many square metres of ground one square unit of a CRS is, at some places.

    Args:
        x: Coordinates to the east, `(N,)`.
        y: Coordinates to the north, `(N,)`.
        crs: "EPSG:…" or WKT, in metres or degrees.
        step: Side of the square that is measured, as that of a pixel, in units of the CRS.

    Returns:
        `(N,)`: 1 within 0.1 % in UTM, about a third in EPSG:3857 at 53 degrees north.
    """
    to = transformer(crs, _EQUAL_AREA)
    places = np.stack([np.stack([x, y]), np.stack([x + step, y]), np.stack([x, y + step])])  # (3, 2, N)
    east, north = to.transform(places[:, 0], places[:, 1])
    cross = (east[1] - east[0]) * (north[2] - north[0]) - (north[1] - north[0]) * (east[2] - east[0])
    return np.asarray(np.abs(cross) / step**2)


def on_sphere(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return unit vectors `(N, 3)` of places in degrees."""
    lam, phi = np.radians(lon), np.radians(lat)
    return np.column_stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])


def footprint_lonlat(transform: Affine, shape: tuple[int, int], crs: str) -> BaseGeometry:
    """Compute the outline of a raster in EPSG:4326, split where it crosses the date line.

    Args:
        transform: Pixel to coordinates.
        shape: Rows and columns.
        crs: "EPSG:…" or WKT.

    Raises:
        ValueError: If the outline cannot be expressed in degrees.
    """
    rows, cols = shape
    t = np.linspace(0, 1, _SEGMENTS_PER_SIDE, endpoint=False)
    col = np.concatenate([t * cols, np.full_like(t, cols), (1 - t) * cols, np.zeros_like(t)])
    row = np.concatenate([np.zeros_like(t), t * rows, np.full_like(t, rows), (1 - t) * rows])
    x = transform.a * col + transform.b * row + transform.c
    y = transform.d * col + transform.e * row + transform.f
    return ring_lonlat(x, y, crs)


def ring_lonlat(x: NDArray[np.float64], y: NDArray[np.float64], crs: str) -> BaseGeometry:
    """Turn a closed ring of projected coordinates into a polygon in EPSG:4326, split at the date line.

    Args:
        x: Coordinates to the east, `(N,)`.
        y: Coordinates to the north, `(N,)`.
        crs: "EPSG:…" or WKT.

    Raises:
        InputError: If it cannot be expressed in degrees.
    """
    lon, lat = transformer(crs, "EPSG:4326").transform(x, y)
    lon, lat = np.asarray(lon), np.asarray(lat)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()) or np.abs(lat).max() > 90:
        raise InputError("the outline lies outside what its CRS can express")
    # Follow the ring without jumps, so that a ring across the date line stays in one piece.
    lon = np.unwrap(lon, period=360.0)
    if abs(lon[-1] - lon[0]) > 180:
        raise RejectedError(
            "pole",
            "its outline surrounds a pole, where longitudes meet: cut it into parts that do not, with gdalwarp -te",
        )
    return split_at_date_line(Polygon(np.column_stack([lon, lat])))


def split_at_date_line(polygon: Polygon) -> BaseGeometry:
    """Split a polygon whose longitudes leave -180 to 180, and bring its parts back into them."""
    west, _, east, _ = polygon.bounds
    if west >= -180 and east <= 180:
        return polygon
    parts: list[BaseGeometry] = []
    for turn in (-360.0, 0.0, 360.0):
        piece = shapely.intersection(
            shapely.transform(polygon, lambda c, t=turn: c + np.array([t, 0.0])), box(-180, -90, 180, 90)
        )
        parts += [part for part in shapely.get_parts(piece) if isinstance(part, Polygon) and part.area > 0]
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def area_lonlat(areas: BaseGeometry, crs: str) -> BaseGeometry:
    """Bring polygons to EPSG:4326, split where they cross the date line.

    Args:
        areas: One or many polygons.
        crs: Theirs, "EPSG:…" or WKT.

    Raises:
        InputError: If an outline cannot be expressed in degrees.
    """
    to, parts = transformer(crs, "EPSG:4326"), []
    for part in shapely.get_parts(areas):
        if known_crs(crs).is_geographic:  # a box round the globe stays one, also of four corners
            moved = shapely.transform(part, lambda c: np.column_stack(to.transform(c[:, 0], c[:, 1])))
            parts.append(split_at_date_line(moved))
            continue
        outline = shapely.segmentize(part, part.length / _SEGMENTS_PER_OUTLINE)  # so that it is followed all the way
        rings = (np.asarray(ring.coords)[:, :2].T for ring in (outline.exterior, *outline.interiors))
        shell, *holes = (ring_lonlat(x, y, crs) for x, y in rings)
        parts.append(shapely.difference(shell, shapely.union_all(holes)))
    return shapely.union_all(parts)


def box_lonlat(west: float, south: float, east: float, north: float) -> BaseGeometry:
    """Draw a box in degrees; across the date line, where west is larger than east, in two parts."""
    return split_at_date_line(box(west, south, east if west < east else east + 360, north))


def bounds_lonlat(geometry: BaseGeometry) -> tuple[float, float, float, float]:
    """Give west, south, east and north of an EPSG:4326 geometry, every part of which lies within -180 to 180.

    West is larger than east where a box across the date line holds it in less than half of the globe.
    """
    west, south, east, north = (float(value) for value in geometry.bounds)
    spans = sorted((part.bounds[0], part.bounds[2]) for part in shapely.get_parts(geometry) if not part.is_empty)
    gap, reached = 180.0, spans[0][1]
    for start, end in spans[1:]:
        if start - reached > gap:
            gap, west, east = start - reached, start, reached
        reached = max(reached, end)
    return float(west), south, float(east), north


def project(geometry: BaseGeometry, crs: str) -> BaseGeometry:
    """Project an EPSG:4326 geometry; its longitudes are first brought to the CRS's side of the date line."""
    area = known_crs(crs).area_of_use
    centre = 0.0 if area is None else _mid_longitude(area.west, area.east)
    to = transformer("EPSG:4326", crs)

    def move(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        lon = centre + (coordinates[:, 0] - centre + 180) % 360 - 180
        x, y = to.transform(lon, coordinates[:, 1])
        return np.column_stack([x, y])

    moved = [shapely.transform(shapely.segmentize(part, 0.05), move) for part in shapely.get_parts(geometry)]
    finite = [part for part in moved if np.isfinite(shapely.get_coordinates(part)).all()]
    return shapely.union_all([shapely.make_valid(part) for part in finite])


def _mid_longitude(west: float, east: float) -> float:
    return west + ((east - west) % 360) / 2
