"""What a map shows inside the user's own polygons: hectares and shares of every class, and how probable they are."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import geometry_mask

from a2mae.errors import InputError, plural
from a2mae.raster.footprints import ground_m2_per_unit
from a2mae.tasks.datasets.vector_files import VECTOR_SUFFIXES, read_features
from a2mae.tasks.inference.read_map import ClassMap

logger = logging.getLogger(__name__)

_BLOCK_PX = 2048


def read_vectors(path: Path, crs: str, key: str, kinds: tuple[str, ...]) -> gpd.GeoDataFrame:
    """Read a vector file of the user's in the CRS of a map.

    Args:
        path: GeoPackage, Shapefile, GeoParquet or GeoJSON.
        crs: "EPSG:…" or WKT.
        key: The parameter that names it, for messages.
        kinds: Geometries that are understood.

    Raises:
        InputError: If it is no such file, has no CRS or several layers, no features, or a geometry of another kind,
            absent or empty.
    """
    if path.suffix.lower() not in VECTOR_SUFFIXES:
        raise InputError(f"{key}: {path} is none of {', '.join(VECTOR_SUFFIXES)}")
    try:
        found = read_features(path)
    except OSError as error:
        raise InputError(f"{key}: {path} cannot be read: {error}") from error
    if not len(found):
        raise InputError(f"{key}: {path} has no features")
    wrong = found.geometry.isna() | found.geometry.is_empty | ~found.geom_type.isin(kinds)
    if wrong.any():
        index = int(np.flatnonzero(wrong)[0])
        geometry = found.geometry.iloc[index]
        what = "no geometry" if geometry is None or geometry.is_empty else f"a {geometry.geom_type}"
        raise InputError(f"{key}: feature {index} of {path} has {what}; {' or '.join(kinds)} was expected")
    moved = found.to_crs(crs)
    if not np.isfinite(moved.total_bounds).all():
        raise InputError(
            f"{key}: {path} lies where the CRS of the map does not reach: state the CRS that its coordinates are in"
        )
    return moved


def zonal_statistics(found: ClassMap, path: Path, key: str = "deliver.zones") -> gpd.GeoDataFrame:
    """Measure the classes of a map inside polygons; a pixel counts where its centre lies inside.

    Args:
        found: The map.
        path: The polygons, in any CRS; they may overlap.
        key: The parameter that names them, for messages.

    Returns:
        A row per polygon in the map's CRS: its own columns, then `seen_share` (of its ground, where the map has a
        class), `largest_class`, `mean_probability` of the mapped classes, and for every class `<class>_ha` and
        `<class>_share` of what was seen. A polygon of which nothing was seen has shares of NaN.

    Raises:
        InputError: As `read_vectors`; or if no polygon touches the map.
    """
    zones = read_vectors(path, found.crs, key, ("Polygon", "MultiPolygon"))
    zones["geometry"] = shapely.make_valid(zones.geometry.array, method="structure", keep_collapsed=False)
    outline = found.grid.extent.geom
    touching = zones.intersects(outline)
    if not touching.any():
        there, here = (", ".join(f"{value:.0f}" for value in bounds) for bounds in (zones.total_bounds, outline.bounds))
        raise InputError(
            f"{key}: none of the {plural(len(zones), 'polygon')} of {path} touches {found.path.name}; they lie within"
            f" {there} (west, south, east, north), the map within {here}: name polygons of its ground"
        )
    if not touching.all():
        outside = plural(int((~touching).sum()), "polygon")
        logger.warning("%s: %s of %s lie outside %s", key, outside, path.name, found.path.name)
    rows = [_statistics(found, geometry) for geometry in zones.geometry]
    added = {name: [row[name] for row in rows] for name in rows[0]}
    taken = sorted(set(added) & set(zones.columns))
    if taken:
        raise InputError(f"{key}: {path} has columns that the statistics take, rename them: {', '.join(taken)}")
    geometry = zones.pop("geometry")
    return gpd.GeoDataFrame(zones.assign(**added), geometry=geometry.array, crs=found.crs)


def _statistics(found: ClassMap, zone: shapely.Geometry) -> Mapping[str, object]:
    """Measure one polygon; its ground is measured at its centre."""
    pixels, probability, inside = np.zeros(256, np.int64), 0.0, 0
    for row, column, rows, columns in _windows(found, zone):
        affine = found.affine @ Affine.translation(column, row)
        mask = geometry_mask([zone], (rows, columns), affine, invert=True)
        classes = found.read(row, column, rows, columns)
        seen = mask & found.seen(classes)
        pixels += np.bincount(classes[seen], minlength=256)
        inside += int(mask.sum())
        confidence = found.read_confidence(row, column, rows, columns)
        probability += math.nan if confidence is None else float(confidence[seen].sum())
    total = int(pixels.sum())
    shares: npt.NDArray[np.float64] = pixels / total if total else np.full(256, np.nan)
    x, y = (np.array([value]) for value in (zone.centroid.x, zone.centroid.y))
    per_unit = float(ground_m2_per_unit(x, y, found.crs, abs(found.affine.a))[0])
    ha = abs(found.affine.determinant) * per_unit / 10_000
    whole = zone.area / abs(found.affine.determinant)  # pixels, also of what lies outside the map
    return {
        "seen_share": min(total / whole, 1.0) if whole else math.nan,
        "largest_class": found.names.get(int(pixels.argmax())) if total else None,
        "mean_probability": probability / total if total else math.nan,
        **{f"{name}_ha": float(pixels[value] * ha) for value, name in found.names.items()},
        **{f"{name}_share": float(shares[value]) for value, name in found.names.items()},
    }


def _windows(found: ClassMap, zone: shapely.Geometry) -> Iterator[tuple[int, int, int, int]]:
    """Yield row, column, rows and columns of the map's windows that a polygon's box covers."""
    height, width = found.grid.shape
    west, south, east, north = zone.bounds
    corners = [~found.affine @ (x, y) for x in (west, east) for y in (south, north)]
    left, right = (min(max(bound, 0), width) for bound in _bounds([x for x, _ in corners]))
    top, bottom = (min(max(bound, 0), height) for bound in _bounds([y for _, y in corners]))
    for row in range(top, bottom, _BLOCK_PX):
        for column in range(left, right, _BLOCK_PX):
            yield row, column, min(_BLOCK_PX, bottom - row), min(_BLOCK_PX, right - column)


def _bounds(values: list[float]) -> tuple[int, int]:
    return math.floor(min(values)), math.ceil(max(values))


def reference_counts(
    found: ClassMap, path: Path, class_property: str, key: str = "deliver.references"
) -> npt.NDArray[np.float64]:
    """Count reference points by what is mapped at them and what they say, in the order of the map's classes.

    Args:
        found: The map.
        path: Points, in any CRS.
        class_property: The attribute that names a point's true class.
        key: The parameter that names them, for messages.

    Returns:
        `(K, K)`: mapped classes by rows.

    Raises:
        InputError: As `read_vectors`; or if a point names no class of the map, or none lies where the map has one.
    """
    points = read_vectors(path, found.crs, key, ("Point",))
    if class_property not in points.columns:
        others = ", ".join(sorted(str(name) for name in points.columns if name != "geometry"))
        raise InputError(
            f"{key}: {path} has no property {class_property!r}, but {others}; set class_property beside it"
            if others
            else f"{key}: no point of {path} has a property: give every one its class as {class_property!r}"
        )
    names = list(found.names.values())
    unknown = sorted({str(name) for name in points[class_property]} - set(names))
    if unknown:
        raise InputError(
            f"{key}: {path} names {', '.join(map(repr, unknown[:5]))}; classes of the map are {', '.join(names)}"
        )
    mapped = found.at(points.geometry.x.to_numpy(), points.geometry.y.to_numpy())
    counts, place = np.zeros((len(names), len(names))), {value: position for position, value in enumerate(found.names)}
    for value, name in zip(mapped.tolist(), points[class_property], strict=True):
        if value in place:
            counts[place[value], names.index(str(name))] += 1
    left_out = int((mapped < 0).sum())
    if not counts.sum():
        raise InputError(f"{key}: none of the points of {path} lies where {found.path.name} has a class")
    if left_out:
        logger.warning("%s: %s of %s lie where the map has no class", key, plural(left_out, "point"), path.name)
    return counts
