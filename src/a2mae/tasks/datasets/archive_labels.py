"""Labels on an archive: a file of features, a table of points or a raster, as it is laid on any footprint.

Features are polygons or points with a class or a value and, where it is known, the days from `start` to `end` for which
it holds. Where features overlap, the later one counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from a2mae.errors import RejectedError
from a2mae.raster.header import RasterHeader, read_header
from a2mae.raster.read import RasterReader
from a2mae.raster.statements import tagged_factors
from a2mae.scenes import BandAsset
from a2mae.sensors import Units
from a2mae.tasks.datasets.masks import Masks
from a2mae.tasks.datasets.pictures import Note
from a2mae.tasks.datasets.polygons import (
    POINTS,
    FolderLabels,
    bring,
    check_degrees,
    check_metres,
    class_text,
    clean,
    feature_labels,
    listed_bounds,
    outline,
    swapped,
)
from a2mae.tasks.datasets.task_data import Targets, TaskDataError, read_number
from a2mae.tasks.datasets.text_tables import read_table
from a2mae.tasks.datasets.vector_files import read_features

TABLE_SUFFIX = ".csv"
_PLACES = (("lon", "lat"), ("longitude", "latitude"))
_FINER = 0.5  # pixels below this share of the grid's are averaged
_ALWAYS = np.datetime64("NaT", "D")
_DAY = r"\s*(\d{4}([-/])\d{1,2}\2\d{1,2}|\d{8})(?!\d)"
"""Year, month, day, as they begin a date: in another order, day and month cannot be told apart."""
_FIRST, _LAST = np.datetime64("0001-01-01"), np.datetime64("9999-12-31")


@dataclass(frozen=True)
class FeatureLabels:
    """Features with their labels.

    Attributes:
        path: Of the file.
        geometry: Cleaned, under the number of the feature in the file.
        labels: Class number or value of every feature of the file.
        start: First day of each, NaT where it holds from the beginning.
        end: Last day of each, NaT where it holds to the end.
        stated: What the labels stand for; classes are named.
    """

    path: Path
    geometry: gpd.GeoSeries
    labels: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    start: npt.NDArray[np.datetime64]
    end: npt.NDArray[np.datetime64]
    stated: FolderLabels

    def on(self, grid: GeoBox) -> gpd.GeoSeries:
        """Return what touches a footprint, in its CRS."""
        buffer_m = self.stated.buffer_m or 0.0
        ground = outline(grid, self.geometry.crs, buffer_m)
        touching = self.geometry.iloc[np.sort(self.geometry.sindex.query(ground, predicate="intersects"))]
        return bring(touching, grid, ground, buffer_m) if len(touching) else touching

    def near(self, grounds: Sequence[GeoBox]) -> FeatureLabels:
        """Return the same labels with the geometry of those alone that touch one of some footprints."""
        outlines = [outline(grid, self.geometry.crs, self.stated.buffer_m or 0.0) for grid in grounds]
        touching = self.geometry.sindex.query(outlines, predicate="intersects")[1]
        return replace(self, geometry=self.geometry.iloc[np.unique(touching)])

    def hold(self, numbers: npt.NDArray[np.int64], day: np.datetime64, *, allow_future: bool) -> npt.NDArray[np.bool_]:
        """Tell which features hold for an image of a day; later ones too where that is allowed."""
        start, end = self.start[numbers], self.end[numbers]
        begun = np.isnat(start) | (start <= day)
        return (begun | allow_future) & (np.isnat(end) | (day <= end))

    def name(self, numbers: Iterable[int]) -> list[str]:
        """Name features for messages."""
        return [f"{self.path.name} feature {number}" for number in numbers]


def read_feature_labels(path: Path, stated: FolderLabels, grounds: Sequence[GeoBox], note: Note) -> FeatureLabels:
    """Read labels that are features.

    Args:
        path: A vector file, or a table (.csv) of points with the columns lon and lat.
        stated: What the labels stand for; without class names, all that the file names are classes.
        grounds: The footprints of the archive.
        note: Told of every feature that was repaired or has no geometry.

    Raises:
        TaskDataError: If the file cannot be read, holds no features, or kinds of geometry that do not go together; if
            its coordinates are not what its CRS says, or no feature lies on a footprint; or if a label is none.
    """
    try:
        features = read_points(path) if path.suffix.lower() == TABLE_SUFFIX else read_features(path)
    except OSError as error:
        raise TaskDataError(f"{path} cannot be read: {error}") from error
    if not len(features):
        raise TaskDataError(f"{path} holds no features, and {stated.group}.labels needs some with a label each")
    stated = _named(path, features, stated)
    labels = feature_labels(path, features, stated)
    start, end = (read_days(path, features, column) for column in ("start", "end"))
    if (wrong := np.flatnonzero(end < start)).size:
        raise TaskDataError(f"{path}: feature {wrong[0]} ends ({end[wrong[0]]}) before it starts ({start[wrong[0]]})")
    geometry = clean(path, features.geometry, stated, note, points=True)
    for index in geometry.index[~np.isfinite(labels[geometry.index])]:
        note("features without a value, left out", f"{path.name} feature {index}")
    geometry = geometry[np.isfinite(labels[geometry.index])]
    _check_kinds(path, geometry, stated)
    if len(geometry):
        _check_place(path, geometry, grounds, stated.buffer_m or 0.0)
    return FeatureLabels(path, geometry, labels, start, end, stated)


def read_points(path: Path) -> gpd.GeoDataFrame:
    """Read a table of points with the columns lon and lat.

    Raises:
        TaskDataError: If it is not in UTF-8, has no such columns, or text in them.
    """
    columns, rows, lines = read_table(path, _PLACES, ", in degrees")
    names = next(pair for pair in _PLACES if set(pair) <= set(columns))
    places = [
        [_degrees(row[name], f"{path}, line {line}", name) for name in names]
        for line, row in zip(lines, rows, strict=True)
    ]
    lon, lat = np.array(places, np.float64).reshape(-1, 2).T
    table = pd.DataFrame({column: [row[column].strip() or None for row in rows] for column in columns})
    return gpd.GeoDataFrame(table, geometry=gpd.points_from_xy(lon, lat), crs="EPSG:4326")


def _degrees(text: str, where: str, name: str) -> float:
    try:
        degrees = read_number(text)
    except ValueError:
        degrees = math.nan
    if not math.isfinite(degrees):
        raise TaskDataError(f"{where}: {name} is {text[:40]!r}, expected degrees as a number")
    return degrees


def _named(path: Path, features: gpd.GeoDataFrame, stated: FolderLabels) -> FolderLabels:
    """Name the classes after the file where nobody has."""
    if stated.quantity is not None or stated.class_names or stated.class_property not in features.columns:
        return stated
    found = features[stated.class_property].dropna()
    names = sorted({class_text(one) for one in found})
    if len(names) < 2:
        raise TaskDataError(
            f"{path}: {stated.class_property!r} names {len(names)} class(es) ({', '.join(names) or 'none'}), two are"
            f" needed to tell apart; one may be the ground outside, named in {stated.group}.class_names and .outside"
        )
    return replace(stated, class_names=tuple(names), values=())


def read_days(path: Path, features: gpd.GeoDataFrame, column: str) -> npt.NDArray[np.datetime64]:
    """Read a day per feature from a column of days, or of text that begins with year, month and day.

    Args:
        path: Of the file, for messages.
        features: As read.
        column: Its name.

    Returns:
        One day each; NaT where there is none, so for all without the column.

    Raises:
        TaskDataError: For what is no such day of the years 1 to 9999.
    """
    if column not in features.columns:
        _check_near(path, features, column)
        return np.full(len(features), _ALWAYS)
    stated = features[column]
    if not pd.api.types.is_datetime64_any_dtype(stated):
        text = stated.astype(object).map(class_text, na_action="ignore").astype(object)
        stated = text.where(text.str.match(_DAY, flags=re.ASCII).eq(True))
    found = pd.to_datetime(stated, errors="coerce", utc=True, format="ISO8601").dt.tz_convert(None)
    days = np.asarray(found.to_numpy(), "datetime64[D]")
    given = features[column].notna().to_numpy()
    wrong = np.flatnonzero(given & ~((days >= _FIRST) & (days <= _LAST)))
    if wrong.size:
        told = days[wrong[0]] if np.isfinite(days[wrong[0]]) else class_text(features[column].iloc[wrong[0]])
        raise TaskDataError(f"{path}: feature {wrong[0]}: {column} is {str(told)[:80]!r}, expected a day as 2021-06-04")
    return days


def _check_near(path: Path, features: gpd.GeoDataFrame, column: str) -> None:
    """Reject days in a column whose name is another by its capitals alone: they would not count without a word."""
    for name in (str(one) for one in features.columns if str(one) != column and str(one).strip().lower() == column):
        try:
            days = read_days(path, features.rename(columns={name: column}), column)
        except TaskDataError:  # something else of that name
            continue
        if not np.isnat(days).all():
            raise TaskDataError(f"{path} has days in a column {name!r}, which is read as {column!r} alone: rename it")


def _check_kinds(path: Path, geometry: gpd.GeoSeries, stated: FolderLabels) -> None:
    """Reject points among polygons: of both nobody has said which ground a point stands for."""
    points = geometry.geom_type.isin(POINTS)
    if stated.buffer_m is None and points.any() and not points.all():
        area, point = (~points).idxmax(), points.idxmax()
        raise TaskDataError(
            f"{path} mixes geometries: feature {area} is a {geometry[area].geom_type}, feature {point} a"
            f" {geometry[point].geom_type}; write points to a file of their own, or set {stated.group}.buffer_m to the"
            " distance up to which the ground around is of their label"
        )


def _check_place(path: Path, geometry: gpd.GeoSeries, grounds: Sequence[GeoBox], buffer_m: float) -> None:
    """Reject coordinates that are not what the CRS says, and labels none of which lies on a footprint."""
    bounds = geometry.total_bounds
    check_metres(path, geometry.crs, bounds)
    ground = gpd.GeoSeries([outline(grid, geometry.crs, buffer_m) for grid in grounds], crs=geometry.crs).union_all()
    check_degrees(path, geometry, ground)
    if not geometry.intersects(ground).any():
        raise TaskDataError(
            f"{path}: none of its {len(geometry)} features lies on one of the {len(grounds)} locations. They lie within"
            f" {listed_bounds(bounds)} (west, south, east, north), the locations within {listed_bounds(ground.bounds)}"
            f" of the same CRS.{swapped(geometry, ground)}"
        )


@dataclass(frozen=True)
class RasterLabels:
    """A raster with a label per pixel, in any CRS and grid.

    Attributes:
        path: Of the file.
        header: What it says of itself.
        stated: What its numbers stand for.
        masks: Tells classes from its numbers.
    """

    path: Path
    header: RasterHeader
    stated: FolderLabels
    masks: Masks

    def on(self, grid: GeoBox, reader: RasterReader) -> Targets:
        """Return the labels on a footprint's grid: of the nearest pixel; the mean of values on much smaller pixels."""
        header, quantity = self.header, self.stated.quantity
        scale, offset = (1.0, 0.0) if quantity is None else (header.scales[0], header.offsets[0])
        band = BandAsset("label", str(self.path), 1, scale, offset, header.nodata[0], Units.DN, header.gsd_m)
        try:
            nearest = quantity is None or header.gsd_m > _FINER * abs(grid.resolution.x)
            found = reader.read([band], grid, categorical=nearest)[0]
        except RejectedError as rejection:
            raise TaskDataError(rejection.detail) from rejection
        if quantity is not None:
            return np.asarray(found, np.float32)
        seen = np.isfinite(found)
        return self.masks.numbers(str(self.path), np.where(seen, found, 0), seen)


def read_raster_labels(path: Path, stated: FolderLabels, grounds: Sequence[GeoBox]) -> RasterLabels:
    """Open labels that are a raster.

    Args:
        path: Of a raster of one band.
        stated: What its numbers stand for.
        grounds: The footprints of the archive.

    Raises:
        TaskDataError: If it cannot be read, lies nowhere, has several bands, or no footprint lies on it.
    """
    if stated.quantity is None and len(stated.class_names) < 2:
        raise TaskDataError(f"{stated.group}.class_names: name the classes that the numbers of {path} stand for")
    try:
        header = read_header(str(path))
        if stated.quantity is not None:
            tagged_factors(header, 1, str(path))
    except RejectedError as rejection:
        raise TaskDataError(rejection.detail) from rejection
    if header.count != 1:
        raise TaskDataError(f"{path}: {header.count} bands; a raster of labels has one")
    here = GeoBox(header.shape, header.transform, header.crs)
    check_metres(path, pyproj.CRS.from_user_input(header.crs), here.extent.geom.bounds)
    ground: BaseGeometry = gpd.GeoSeries([outline(grid, str(here.crs)) for grid in grounds]).union_all()
    if not ground.intersects(here.extent.geom):
        raise TaskDataError(
            f"{path} lies within {listed_bounds(here.extent.geom.bounds)} (west, south, east, north), and the"
            f" {len(grounds)} locations within {listed_bounds(ground.bounds)} of the same CRS: none lies on it"
        )
    masks = Masks(stated, stated.group)
    if stated.quantity is None:
        masks.check_nodata(path, header.nodata[0])
    return RasterLabels(path, header, stated, masks)
