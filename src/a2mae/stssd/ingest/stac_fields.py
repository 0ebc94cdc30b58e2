"""Read single fields of STAC items, whose JSON is not trusted: numbers, times, grids and outlines."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from shapely.geometry import Polygon
from shapely.geometry import shape as shapely_shape
from shapely.geometry.base import BaseGeometry

from a2mae.errors import InputError, RejectedError
from a2mae.raster.footprints import footprint_lonlat, known_crs, pixel_size_m, split_at_date_line
from a2mae.scenes import BandAsset
from a2mae.stssd.ingest.checks import check_date

_MAX_SIDE = 1_000_000
_LARGEST = 1e300  # whole numbers of JSON have no bound
_LARGEST_FACTOR = 1e30
_LARGEST_GSD_M = 1e6
_MAX_CHECKSUM = 256
_MAX_CRS = 100_000  # characters
_LARGEST_EPSG = 2**31
_MAX_CROSSING = 50  # vertices of an outline that crosses itself: the time to repair it grows with their fourth power
_WIDE, _NARROW = 180.0, 60.0  # degrees of longitude: of no scene, and of any scene


@dataclass(frozen=True)
class AssetGrid:
    """Where the pixels of an asset lie, as far as its item says; attributes as in `BandAsset`."""

    crs: str | None
    shape: tuple[int, int] | None
    transform: tuple[float, float, float, float, float, float] | None
    gsd_m: float


def grid_of(asset: Mapping[str, object], properties: Mapping[str, object], crs: str | None, gsd_m: float) -> AssetGrid:
    """Read an asset's grid, without shape and transform where the projection extension does not give all of it.

    Args:
        asset: The asset's JSON; its fields win.
        properties: The item's properties.
        crs: The item's reference system.
        gsd_m: Pixel size where the asset gives none, metres.

    Raises:
        RejectedError: "bad_metadata" where the fields describe no raster.
    """
    code = crs_of(asset) or crs
    shape, numbers = (sequence(asset.get(k)) or sequence(properties.get(k)) for k in ("proj:shape", "proj:transform"))
    if code is None or len(shape) != 2 or len(numbers) not in (6, 9):
        return AssetGrid(crs, None, None, gsd_of(asset) or gsd_m)
    try:
        rows, cols = (int(str(n)) for n in shape)
        a, b, c, d, e, f = (float(str(n)) for n in numbers[:6])
        if not all(map(math.isfinite, (a, b, c, d, e, f))):
            raise InputError("a number is not finite")
        width, height = pixel_size_m(Affine(a, b, c, d, e, f), (rows, cols), code)
    except ValueError as error:
        raise RejectedError("bad_metadata", f"projection fields cannot be read: {error}") from error
    if not (
        0 < rows <= _MAX_SIDE and 0 < cols <= _MAX_SIDE and 0 < width <= _LARGEST_GSD_M and 0 < height <= _LARGEST_GSD_M
    ):
        raise RejectedError("bad_metadata", f"proj:shape {shape} and proj:transform {numbers} describe no raster")
    return AssetGrid(code, (rows, cols), (a, b, c, d, e, f), round(math.sqrt(width * height), 4))


def gsd_of(asset: Mapping[str, object]) -> float | None:
    """Read the pixel size that an asset states, metres; None where it states none.

    Raises:
        RejectedError: "bad_metadata" where it is not a positive finite number.
    """
    stated = asset.get("gsd")
    if stated is None:
        return None
    gsd_m = number(stated)
    if gsd_m is None or not 0 < gsd_m <= _LARGEST_GSD_M:
        raise RejectedError("bad_metadata", f"gsd is {str(stated)[:40]!r}, not a positive number of metres")
    return gsd_m


def crs_of(fields: Mapping[str, object]) -> str | None:
    """Read the reference system from the projection extension, old or new: "EPSG:…" or WKT.

    The first of `proj:code`, `proj:epsg`, `proj:wkt2` and `proj:projjson` that is one counts; None without any.
    """
    epsg, projjson = fields.get("proj:epsg"), fields.get("proj:projjson")
    for text in (
        fields.get("proj:code"),
        f"EPSG:{epsg}" if isinstance(epsg, int) and not isinstance(epsg, bool) and 0 < epsg < _LARGEST_EPSG else None,
        fields.get("proj:wkt2"),
        json.dumps(projjson) if isinstance(projjson, Mapping) else None,
    ):
        if isinstance(text, str) and 0 < len(text) <= _MAX_CRS:
            with contextlib.suppress(InputError):
                known = known_crs(text)
                return text if text[0].isalpha() else str(known.to_wkt())
    return None


def datetime_of(properties: Mapping[str, object]) -> dt.datetime:
    """Read the time of acquisition, UTC; it is taken for UTC where no zone is given.

    Raises:
        RejectedError: "no_date".
    """
    text = str(properties.get("datetime") or properties.get("start_datetime"))
    try:
        return check_date(dt.datetime.fromisoformat(text.replace("Z", "+00:00")))
    except RejectedError:
        raise
    except ValueError as error:
        raise RejectedError("no_date", f"the item's datetime {text[:80]!r} is not a date") from error


def processed_of(properties: Mapping[str, object]) -> dt.datetime | None:
    """Read when the provider processed the item, or else published it, UTC; None where it does not say."""
    for name in ("processing:datetime", "s2:generation_time", "updated", "created"):
        with contextlib.suppress(ValueError):
            return check_date(dt.datetime.fromisoformat(str(properties.get(name)).replace("Z", "+00:00")))
    return None


def cloud_cover_of(properties: Mapping[str, object]) -> float | None:
    """Read the provider's cloud cover, percent; None where it is not from 0 to 100 (providers write -1 for unknown)."""
    percent = number(properties.get("eo:cloud_cover"))
    return percent if percent is not None and 0 <= percent <= 100 else None


def factor_of(fields: Mapping[str, object], name: str) -> float | None:
    """Read `scale` or `offset` of a band; None where it is not stated.

    Raises:
        RejectedError: "bad_metadata" where no stored number could mean anything with it.
    """
    stated = fields.get(name)
    if stated is None:
        return None
    factor = number(stated)
    if factor is None or abs(factor) > _LARGEST_FACTOR or (name == "scale" and abs(factor) < 1 / _LARGEST_FACTOR):
        raise RejectedError("bad_metadata", f"raster:{name} is {str(stated)[:40]!r}, which decodes no stored number")
    return factor


def geometry_of(item: Mapping[str, object], bands: Sequence[BandAsset]) -> BaseGeometry:
    """Read the item's footprint, EPSG:4326, cut to the grid of its finest band; empty where only a header tells it.

    Raises:
        RejectedError: "no_footprint", "pole" or "bad_metadata".
    """
    said = _stated_geometry(item)
    grids = [a for a in bands if a.crs and a.shape and a.transform]
    if not grids:
        return said
    finest = min(grids, key=lambda a: a.gsd_m)
    try:
        ground = footprint_lonlat(Affine(*(finest.transform or ())), finest.shape or (0, 0), str(finest.crs))
    except RejectedError:
        raise
    except ValueError as error:
        raise RejectedError("bad_metadata", f"projection fields describe no place: {error}") from error
    return stated_within(said, ground, "its own grid")


def stated_within(said: BaseGeometry, ground: BaseGeometry, what: str) -> BaseGeometry:
    """Cut a stated footprint to the ground of the pixels.

    Args:
        said: As the item states it; empty: the ground counts alone. So it does where an outline of more than half the
            globe leaves little of it: an outline across the date line that nobody split.
        ground: Outline of the pixels.
        what: They are of, for the message.

    Raises:
        RejectedError: "no_footprint" if the two have no place in common.
    """
    if said.is_empty:
        return ground
    inside = shapely.intersection(said, ground)
    west, _, east, _ = said.bounds
    if east - west > _WIDE and inside.area < ground.area / 2:
        return ground
    if inside.is_empty or inside.area == 0:
        raise RejectedError("no_footprint", f"the item's geometry lies outside {what}")
    return inside


def _stated_geometry(item: Mapping[str, object]) -> BaseGeometry:
    """Read `geometry`; empty where it is none that could be a footprint."""
    nothing = Polygon()
    try:
        geometry = shapely_shape(item["geometry"])
        if geometry.geom_type not in ("Polygon", "MultiPolygon") or geometry.is_empty:
            return nothing
        if not geometry.is_valid:
            if shapely.get_num_coordinates(geometry) > _MAX_CROSSING:  # to find all crossings takes minutes
                return nothing
            geometry = shapely.make_valid(geometry)
        if isinstance(geometry, Polygon):
            geometry = _in_one_piece(geometry)
        west, south, east, north = geometry.bounds
        on_earth = -180.01 <= west <= east <= 180.01 and -90.01 <= south <= north <= 90.01
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, shapely.errors.ShapelyError):
        return nothing
    return geometry if on_earth and geometry.area > 0 else nothing


def _in_one_piece(polygon: Polygon) -> BaseGeometry:
    """Split a polygon at the date line that goes across it: beyond 180, or the long way round the globe."""
    west, _, east, _ = polygon.bounds
    if east - west > _WIDE:
        lon, lat = np.asarray(polygon.exterior.coords)[:, :2].T
        lon = np.unwrap(lon, period=360.0)
        if lon[-1] == lon[0] and 0 < lon.max() - lon.min() < _NARROW:
            polygon = Polygon(np.column_stack([lon, lat]))
    return split_at_date_line(polygon) if -540 <= polygon.bounds[0] and polygon.bounds[2] <= 540 else polygon


def count_numbers(coordinates: object, *, enough: int) -> int:
    """Count the numbers in nested lists, up to `enough`."""
    count, waiting = 0, [iter(sequence(coordinates))]
    while waiting and count < enough:
        for part in waiting[-1]:
            if isinstance(part, (list, tuple)):
                waiting.append(iter(part))
                break
            count += 1
            if count >= enough:
                break
        else:
            waiting.pop()
    return count


def nodata_of(value: object) -> float | None:
    """Read a nodata value: any number, or the text that JSON has instead of NaN and the infinities."""
    if isinstance(value, float) or (isinstance(value, str) and value.lower() in ("nan", "inf", "-inf")):
        return float(value)
    return number(value)


def number(value: object) -> float | None:
    """The value if it is a finite number, else None."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < _LARGEST:
        return None
    return float(value)


def mapping(value: object) -> Mapping[str, object]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> Sequence[object]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, (list, tuple)) else ()


def checksum_of(asset: Mapping[str, object]) -> str | None:
    """Read the multihash of an asset's file, as the item gives it; `verify.parse_multihash` decodes it."""
    text = asset.get("file:checksum") or asset.get("checksum:multihash")  # the latter until STAC 1.0.0-beta.2
    return text[:_MAX_CHECKSUM] if isinstance(text, str) and text else None
