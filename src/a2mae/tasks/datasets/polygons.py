"""Polygon labels: vector files of any CRS, drawn as classes or values onto the grid of an image.

Where polygons overlap, the later one counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import shapely
from odc.geo.geobox import GeoBox
from pandas.api.types import is_hashable
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from a2mae.tasks.datasets.pictures import Note
from a2mae.tasks.datasets.task_data import IGNORE, Quantity, Targets, TaskDataError
from a2mae.tasks.datasets.vector_files import read_features

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""Value of `outside`: ground in no polygon has no label, so it is neither trained on nor scored."""
_AREAS = ("Polygon", "MultiPolygon")
_MAX_CROSSINGS = 20_000
"""Of one feature with itself: to repair or widen it takes two seconds; 2,000 vertices can cross a million times."""
_PAIRS_AT_ONCE = 1_000_000
_PIECE = 16
"""Segments of a line that are widened at once."""
POINTS = ("Point", "MultiPoint")
_NO_AREAS = ("Point", "MultiPoint", "LineString", "MultiLineString", "LinearRing")


@dataclass(frozen=True)
class FolderLabels:
    """What the labels of a folder stand for.

    Attributes:
        class_names: One per class; empty where labels are values.
        class_property: The attribute of a feature that holds its class name.
        outside: Class of the ground in no polygon, or `UNKNOWN`.
        buffer_m: Points and lines stand for the ground within this distance; None: they are rejected.
        values: The number of each class in masks; empty: its position.
        ignore: Further numbers of masks that stand for no class.
        quantity: What values are, named as the attribute that holds them; None: labels are classes.
        group: The parameters that say so, for messages.
        colors: RGB of each class, by which masks of three bands are read; empty: these are rejected.
    """

    class_names: tuple[str, ...]
    class_property: str = "class"
    outside: str = UNKNOWN
    buffer_m: float | None = None
    values: tuple[int, ...] = ()
    ignore: tuple[int, ...] = ()
    quantity: Quantity | None = None
    group: str = "segment.data"
    colors: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        """Number the classes by their positions where nothing else is said."""
        if not self.values:
            object.__setattr__(self, "values", tuple(range(len(self.class_names))))


def draw_polygons(path: Path, grid: GeoBox, labels: FolderLabels, note: Note) -> Targets:
    """Draw the polygons of a vector file as class numbers or values.

    Args:
        path: Of one of `VECTOR_SUFFIXES`. A file without features is an image without polygons.
        grid: Of the image.
        labels: Classes, and the attribute that names them.
        note: Told of every feature that was repaired or has no geometry.

    Returns:
        `(H, W)` class numbers; in no polygon that of `labels.outside`, `IGNORE` where it is unknown. Of values float32,
        and NaN in no polygon.

    Raises:
        TaskDataError: If the file has no CRS, several layers, a feature without a known class or an area, or if none
            of its polygons touches the image.
        OSError: If it is no vector file.
    """
    features = read_features(path)
    target = background((grid.shape.y, grid.shape.x), labels)
    if not len(features):
        return target
    found = feature_labels(path, features, labels)
    geometry = clean(path, features.geometry, labels, note)
    if not len(geometry):
        return target
    check_metres(path, geometry.crs, geometry.total_bounds)
    check_degrees(path, geometry, outline(grid, geometry.crs))
    drawn = _on_image(path, geometry, grid, labels.buffer_m or 0.0)
    rasterize(zip(drawn, found[drawn.index], strict=True), out=target, transform=grid.affine)
    return target


def background(shape: tuple[int, int], labels: FolderLabels) -> Targets:
    """Make labels of a grid on which nothing is drawn yet, `(H, W)`.

    Args:
        shape: Of the grid.
        labels: Say what lies outside of all features.
    """
    if labels.quantity is not None:
        return np.full(shape, np.nan, np.float32)
    outside = IGNORE if labels.outside == UNKNOWN else labels.class_names.index(labels.outside)
    return np.full(shape, outside, np.uint8)


def feature_labels(
    path: Path, features: gpd.GeoDataFrame, labels: FolderLabels
) -> npt.NDArray[np.int64] | npt.NDArray[np.float32]:
    """Find the class number or the value of every feature.

    Args:
        path: Of the file, for messages.
        features: As read.
        labels: Name the attribute.

    Raises:
        TaskDataError: If there is no such attribute, or a feature has none of the classes or what is no number in it.
    """
    quantity = labels.quantity
    key = labels.class_property if quantity is None else quantity.name
    others = ", ".join(sorted(str(column) for column in features.columns if column != features.geometry.name))
    if not others:
        missing = "without its table: copy the .dbf beside it"
        bare = "that is a bare geometry: write a FeatureCollection"
        raise TaskDataError(
            f"{path}: no feature has a property, as in a file {missing if path.suffix.lower() == '.shp' else bare}, and"
            f" give every feature the property {key!r}"
        )
    if key not in features.columns:
        raise TaskDataError(
            f"{path}: feature 0 has no property {key!r}, but {others}; set {labels.group}."
            + (
                "class_property to the one that names the class"
                if quantity is None
                else "value_property to the value's"
            )
        )
    strange = np.flatnonzero(~features[key].map(is_hashable).to_numpy(bool))
    if strange.size:
        value = features[key].iloc[strange[0]]
        raise TaskDataError(
            f"{path}: feature {strange[0]} has {str(value)[:80]!r} as {key!r}, which is no text or number but a"
            f" {type(value).__name__}: give every feature one class or value"
        )
    if quantity is not None:
        values = [quantity.read(value, f"{path}: feature {index}") for index, value in enumerate(features[key])]
        return np.array(values, np.float32)
    numbers = {name: number for number, name in enumerate(labels.class_names)}
    found = []
    for index, value in enumerate(features[key]):
        if pd.isna(value) or not str(value).strip():
            raise TaskDataError(f"{path}: feature {index} has no {key!r}: give every feature its class")
        name = class_text(value)
        if name not in numbers:
            raise TaskDataError(
                f"{path}: feature {index} has {key} {name[:80]!r}; classes are {', '.join(numbers)}: add it to"
                f" {labels.group}.class_names, or correct the feature"
            )
        found.append(numbers[name])
    return np.array(found, np.int64)


def class_text(value: object) -> str:
    """Write the class that an attribute holds: whole numbers beside empty values come as floats; true and false."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def clean(
    path: Path, geometry: gpd.GeoSeries, labels: FolderLabels, note: Note, *, points: bool = False
) -> gpd.GeoSeries:
    """Repair geometries and leave out empty ones, under the index of their features.

    Args:
        path: Of the file, for messages.
        geometry: As read.
        labels: Say whether points and lines are widened.
        note: Told of every feature that was repaired or has no geometry.
        points: Points need not be widened: each stands for its own pixel.

    Raises:
        TaskDataError: For another kind of geometry, or one without an area that nothing is said of.
    """
    absent = geometry.isna() | geometry.is_empty
    kinds = geometry.geom_type[~absent]
    strange = kinds[~kinds.isin((*_AREAS, *_NO_AREAS))]
    if len(strange):
        raise TaskDataError(
            f"{path}: feature {strange.index[0]} is a {strange.iloc[0]}: labels are polygons, points or lines"
        )
    thin = kinds[kinds.isin(_NO_AREAS) & ~(points & kinds.isin(POINTS))]
    if len(thin) and labels.buffer_m is None:
        raise TaskDataError(
            f"{path}: feature {thin.index[0]} is a {thin.iloc[0]}, which has no area: draw polygons, or set"
            f" {labels.group}.buffer_m to the distance up to which the ground around is of the class"
        )
    geometry = geometry[~absent].copy()
    for index in thin.index[~thin.isin(POINTS)]:
        _check_crossings(path, index, geometry[index])
    for index in geometry.index[~geometry.is_valid & kinds.isin(_AREAS)]:
        _check_crossings(path, index, geometry[index])
        geometry[index] = shapely.make_valid(geometry[index], method="structure", keep_collapsed=False)
        if not geometry[index].is_empty:
            note("geometries repaired", f"{path.name} feature {index}")
    for index in sorted([*absent.index[absent], *geometry.index[geometry.is_empty]]):
        note("features without an area, left out", f"{path.name} feature {index}")
    return geometry[~geometry.is_empty]


def _check_crossings(path: Path, index: int, geometry: BaseGeometry) -> None:
    """Reject a feature whose outline or lines cross or touch themselves so often that GEOS would take minutes."""
    boundary = geometry if geometry.geom_type in _NO_AREAS else shapely.boundary(geometry)
    corners = [shapely.get_coordinates(line) for line in shapely.get_parts(boundary)]
    pieces = [np.stack([line[:-1], line[1:]], axis=1) for line in corners if len(line) > 1]
    count = sum(map(len, pieces))
    if count * (count - 1) < 2 * _MAX_CROSSINGS:
        return
    segments = shapely.linestrings(np.concatenate(pieces))
    tree = shapely.STRtree(segments)
    step = max(_PAIRS_AT_ONCE // len(segments), 1)
    met = -3 * len(segments)  # every one meets itself and its neighbours
    for start in range(0, len(segments), step):
        met += tree.query(segments[start : start + step], predicate="intersects").shape[1]
        if met > 2 * _MAX_CROSSINGS:
            raise TaskDataError(
                f"{path}: feature {index} crosses or touches itself more than {_MAX_CROSSINGS:,} times, and no outline"
                " that somebody has drawn does: repair it (QGIS: Fix geometries), or split it into its parts"
            )


def check_metres(path: Path, crs: pyproj.CRS, bounds: Iterable[float]) -> None:
    """Reject coordinates of a projected CRS that are degrees.

    Args:
        path: Of the file, for the message.
        crs: That it states.
        bounds: West, south, east and north of what it holds.

    Raises:
        TaskDataError: If they are.
    """
    west, south, east, north = bounds
    if crs.is_projected and west >= -180 and east <= 180 and south >= -90 and north <= 90:
        raise TaskDataError(
            f"{path} says {crs.to_string()}, which is in metres, and what it holds lies within"
            f" {listed_bounds((west, south, east, north))}, which are degrees: write it with EPSG:4326"
        )


def check_degrees(path: Path, geometry: gpd.GeoSeries, ground: BaseGeometry) -> None:
    """Reject coordinates of a geographic CRS that are no degrees.

    Args:
        path: Of the file, for the message.
        geometry: Cleaned.
        ground: Of the images, in its CRS.

    Raises:
        TaskDataError: With the first of them; it says so if axes are swapped.
    """
    if not geometry.crs.is_geographic:
        return
    bounds = geometry.bounds
    wrong = (bounds.minx < -180) | (bounds.maxx > 180) | (bounds.miny < -90) | (bounds.maxy > 90)
    if wrong.any():
        index = wrong.idxmax()
        west, south, east, north = bounds.loc[index]
        x, y = west if abs(west) > 180 else east, south if abs(south) > 90 else north
        raise TaskDataError(
            f"{path}: feature {index} lies at {x:g}, {y:g}, which are no degrees."
            f"{swapped(geometry, ground)} GeoJSON holds longitude and latitude (WGS 84): export it so, or state its CRS"
        )


def _on_image(path: Path, geometry: gpd.GeoSeries, grid: GeoBox, buffer_m: float) -> gpd.GeoSeries:
    """Bring what touches an image to its CRS, points and lines widened."""
    ground = outline(grid, geometry.crs, buffer_m)
    touching = geometry[geometry.intersects(ground)]
    if not len(touching):
        raise TaskDataError(
            f"{path}: none of its {len(geometry)} features touches its image. They lie within"
            f" {listed_bounds(geometry.total_bounds)} (west, south, east, north), the image within"
            f" {listed_bounds(ground.bounds)} of the same CRS.{swapped(geometry, ground)} Where an image"
            " shows nothing that was labelled, give it a file without features"
        )
    return bring(touching, grid, ground, buffer_m)


def bring(touching: gpd.GeoSeries, grid: GeoBox, ground: BaseGeometry, buffer_m: float) -> gpd.GeoSeries:
    """Bring geometries to the CRS of an image, points and lines widened.

    Args:
        touching: What touches the image.
        grid: Of the image.
        ground: Its outline in the geometries' CRS.
        buffer_m: By which points and lines are widened; 0: they stay as they are.
    """
    # A country reaches further than the image's CRS; a margin keeps the cut edges off the image.
    west, south, east, north = ground.bounds
    margin = 0.1 * max(east - west, north - south)
    near = touching.intersection(shapely.box(west - margin, south - margin, east + margin, north + margin))
    thin = touching.geom_type.isin(_NO_AREAS)
    if thin.any() and buffer_m:
        metres = near[thin].to_crs(_metres(grid))
        near[thin] = gpd.GeoSeries([_widened(one, buffer_m) for one in metres], metres.index, metres.crs).to_crs(
            touching.crs
        )
    return near.to_crs(str(grid.crs))


def _widened(geometry: BaseGeometry, buffer_m: float) -> BaseGeometry:
    """Widen points and lines piece by piece: the time that GEOS takes for a whole grows with what lies side by side."""
    pieces: list[BaseGeometry] = []
    for part in shapely.get_parts(geometry):
        corners = shapely.get_coordinates(part)
        if len(corners) <= _PIECE + 1:
            pieces.append(part)
            continue
        starts = range(0, len(corners) - 1, _PIECE)
        pieces += [shapely.LineString(corners[start : start + _PIECE + 1]) for start in starts]
    return shapely.union_all(shapely.buffer(pieces, buffer_m))


def listed_bounds(bounds: Iterable[float]) -> str:
    """Write west, south, east and north as text."""
    return ", ".join(f"{value:g}" for value in bounds)


def outline(grid: GeoBox, crs: object, buffer_m: float = 0.0) -> BaseGeometry:
    """Return the ground of an image, and what lies within a distance of it, in another CRS."""
    ground = gpd.GeoSeries([shapely.segmentize(grid.extent.geom, grid.extent.geom.length / 64)], crs=str(grid.crs))
    if buffer_m:
        ground = ground.to_crs(_metres(grid)).buffer(buffer_m)
    return ground.to_crs(crs).iloc[0]


def _metres(grid: GeoBox) -> object:
    """Return the UTM zone of an image."""
    return gpd.GeoSeries([grid.extent.geom], crs=str(grid.crs)).estimate_utm_crs()


def swapped(geometry: gpd.GeoSeries, ground: BaseGeometry) -> str:
    """Say so if geometries touch the image once x and y are exchanged."""
    if not shapely.intersects(shapely.transform(geometry.array, lambda xy: xy[:, ::-1]), ground).any():
        return ""
    return " With x and y exchanged they would: their axes are swapped, latitude stands before longitude."
