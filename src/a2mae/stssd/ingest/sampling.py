"""Choose among the possible locations: spread, balanced over classes, dense around cities, capped; all seeded."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window
from scipy.spatial import cKDTree

from a2mae.errors import InputError, plural
from a2mae.files import check_regular
from a2mae.raster.footprints import EARTH_RADIUS_M, on_sphere, transformer
from a2mae.raster.header import crs_text
from a2mae.raster.opening import gdal_env, open_raster
from a2mae.remote.policy import RemoteAccess
from a2mae.stssd.ingest.parameters import LocationParameters

logger = logging.getLogger(__name__)

_TILE = 1024  # pixels of the raster of classes that are read at once, per side
_REACH = 3.0  # radii beyond which a city draws no location


def draw(found: pd.DataFrame, parameters: LocationParameters) -> NDArray[np.int64]:
    """Choose among the possible locations.

    Args:
        found: One row per square, with `lon`, `lat` and `group` (squares with the very same scenes share it).
        parameters: Sampling, distance and caps.

    Returns:
        Positions of the rows to keep, ascending.

    Raises:
        ValueError: If a file cannot be used; the message names its parameter.
    """
    rng = np.random.default_rng(parameters.seed)
    if parameters.sampling == "cities":
        order = _around_cities(found, parameters, rng)
    elif parameters.sampling == "strata":
        order = _balanced(found, parameters, rng)
    else:
        order = rng.permutation(len(found))
    if parameters.min_distance_m > 0:
        order = order[_apart(found.iloc[order], parameters.min_distance_m)]
    if parameters.max_per_group is not None:
        rank = found.iloc[order].groupby("group", sort=False).cumcount().to_numpy()
        order = order[rank < parameters.max_per_group]
    if parameters.max_locations is not None:
        order = order[: parameters.max_locations]
    return np.sort(order).astype(np.int64)


def _around_cities(found: pd.DataFrame, parameters: LocationParameters, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows in a random order, those near cities sooner, without rows out of every city's reach.

    A location's weight is the sum over cities of their population times a Gaussian of the distance. Drawing without
    replacement by weight is sorting by exponential variates divided by the weights (Efraimidis and Spirakis 2006).
    """
    cities, population = _cities(str(parameters.cities))
    places = on_sphere(found["lon"].to_numpy(), found["lat"].to_numpy())
    radius = parameters.city_radius_m / EARTH_RADIUS_M
    tree = cKDTree(places)
    weights = np.zeros(len(found))
    for city, people in zip(on_sphere(cities[:, 0], cities[:, 1]), population, strict=True):
        near = np.asarray(tree.query_ball_point(city, _chord(_REACH * parameters.city_radius_m)), dtype=np.int64)
        if len(near):
            distance = np.linalg.norm(places[near] - city, axis=1)
            weights[near] += people * np.exp(-0.5 * (distance / radius) ** 2)
    variates = rng.exponential(size=len(found))
    near_any = np.flatnonzero(weights > 0)
    order = near_any[np.argsort(variates[near_any] / weights[near_any], kind="stable")]
    if not len(order):
        raise InputError(
            f"no location lies within {_REACH * parameters.city_radius_m:g} m of the {len(cities)} places of"
            f" ingest.locations.cities = {parameters.cities!r}; widen city_radius_m or give other places"
        )
    return order.astype(np.int64)


def _cities(path: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places (N, 2) in degrees and their population, 1 where not given."""
    try:
        check_regular(Path(path))
        frame = gpd.GeoDataFrame.from_features(json.loads(Path(path).read_text(encoding="utf-8"))["features"], crs=4326)
        points = shapely.get_coordinates(shapely.centroid(frame.geometry.to_numpy()))
        population = pd.to_numeric(frame.get("population", pd.Series(1.0, index=frame.index))).fillna(1.0)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"ingest.locations.cities: {path!r} is not a GeoJSON file of places ({error})") from error
    if not len(frame) or (population < 0).any():
        raise InputError(f"ingest.locations.cities: {path!r} holds no place, or a negative population")
    return points, population.to_numpy(dtype=np.float64)


def _balanced(found: pd.DataFrame, parameters: LocationParameters, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows in a random order in which the classes of the raster take turns until each is used up."""
    classes, known = _classes(found, str(parameters.strata))
    if not known.any():
        raise InputError(
            f"ingest.locations.strata: {parameters.strata!r} covers none of the {len(found)} locations;"
            " give a raster of classes of this area"
        )
    if not known.all():
        outside = plural(int((~known).sum()), "location lies", "locations lie")
        logger.info("%s outside the raster of strata and cannot be drawn.", outside)
    shuffled = rng.permutation(np.flatnonzero(known))
    labels = classes[shuffled]
    turn = pd.Series(labels).groupby(labels, sort=False).cumcount().to_numpy()
    return shuffled[np.argsort(turn, kind="stable")].astype(np.int64)


def _classes(found: pd.DataFrame, path: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Class at each location's centre, and where there is one."""
    try:
        access = RemoteAccess()
        with gdal_env(access.reading), open_raster(path, path, access) as source:
            if source.crs is None or np.dtype(source.dtypes[0]).kind not in "iu":
                raise InputError("it needs a CRS and whole numbers as classes")
            to = transformer("EPSG:4326", crs_text(source.crs))
            x, y = to.transform(found["lon"].to_numpy(), found["lat"].to_numpy())
            inverse = ~source.transform
            col = np.floor(inverse.a * x + inverse.b * y + inverse.c)
            row = np.floor(inverse.d * x + inverse.e * y + inverse.f)
            inside = (col >= 0) & (col < source.width) & (row >= 0) & (row < source.height)
            values = np.zeros(len(found), dtype=np.int64)
            valid = np.zeros(len(found), dtype=bool)
            tile = (row // _TILE) * (source.width // _TILE + 1) + col // _TILE
            for members in pd.Series(np.flatnonzero(inside)).groupby(tile[inside]):
                index = members[1].to_numpy()
                top, left = int(row[index].min()), int(col[index].min())
                bottom, right = int(row[index].max()), int(col[index].max())
                window = Window(left, top, right - left + 1, bottom - top + 1)
                pixels = source.read(1, window=window, masked=True)
                here = pixels[row[index].astype(int) - top, col[index].astype(int) - left]
                values[index] = here.data
                valid[index] = ~np.ma.getmaskarray(here)
    except (RasterioError, ValueError) as error:
        raise InputError(f"ingest.locations.strata: {path!r} cannot be used: {error}") from error
    return values, valid


def _chord(distance_m: float) -> float:
    return 2 * math.sin(min(distance_m / (2 * EARTH_RADIUS_M), math.pi / 2))


def _apart(found: pd.DataFrame, distance_m: float) -> NDArray[np.bool_]:
    """Keep, in the given order, every location that is not nearer than the distance to one that is kept."""
    points = on_sphere(found["lon"].to_numpy(), found["lat"].to_numpy())
    chord = _chord(distance_m) * (1 - 1e-9)
    tree = cKDTree(points)
    kept = np.ones(len(points), dtype=bool)
    for index in range(len(points)):
        if kept[index]:
            near = np.asarray(tree.query_ball_point(points[index], chord), dtype=np.int64)
            kept[near[near > index]] = False
    return kept
