"""Vector files: GeoPackage, Shapefile, GeoParquet and GeoJSON of any CRS, read whole or refused.

They are read by geopandas. Features are numbered from 0 in the file's order, also in messages.
"""

from __future__ import annotations

import logging
import re
import struct
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely
from pyarrow.types import is_nested

from a2mae.errors import InputError
from a2mae.files import check_regular
from a2mae.raster.footprints import known_crs, transformer
from a2mae.remote.policy import check_vector
from a2mae.tasks.datasets.task_data import TaskDataError

logger = logging.getLogger(__name__)

VECTOR_SUFFIXES = (".gpkg", ".shp", ".parquet", ".geoparquet", ".geojson", ".json")
_STARTS = {".gpkg": b"SQLite format 3", ".shp": b"\x00\x00\x27\x0a"}
_NO_FEATURES = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, UnicodeError)
"""What pyogrio raises of no vector file."""
_NO_PARQUET = (ValueError, LookupError, TypeError, AttributeError, RecursionError, pyproj.exceptions.ProjError)
"""What geopandas raises of no Parquet, of Parquet without a geometry, and of odd words about it."""
_LEFT_OUT = re.compile(r"Unexpected data type for record|Invalid content for record \d+ in column .*?: *\S")
"""What GDAL says of a value that it takes for an empty one, though it is not empty."""
_FURTHEST = 1e12
"""A coordinate beyond is none of any ground, in millimetres either; GEOS calculates with none of infinity."""


def read_features(path: Path) -> gpd.GeoDataFrame:
    """Read every feature of a vector file's only layer; a geometry that cannot be decoded is None.

    Args:
        path: Of one of `VECTOR_SUFFIXES`.

    Raises:
        TaskDataError: If the file has no CRS, or several layers.
        OSError: If it is no vector file.
    """
    check_regular(path)
    if path.suffix.lower() in (".parquet", ".geoparquet"):
        try:
            features = gpd.read_parquet(path)
        except _NO_PARQUET as error:
            raise OSError(" ".join(str(error).split())) from error
        except NotImplementedError as error:
            raise _told_of_columns(path, error) from error
    else:
        _check_start(path)
        check_vector(path)
        try:
            layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                warnings.filterwarnings("ignore", message=".*does not support open option DATE_AS_STRING")
                # Days as text: GDAL takes 01/06/23 for one of 2001, and pandas a year above 9999 for none.
                features = gpd.read_file(
                    path, engine="pyogrio", on_invalid="ignore", datetime_as_string=True, DATE_AS_STRING="YES"
                )
                _restore_booleans(path, features)
        except _NO_FEATURES as error:
            raise OSError(str(error)) from error
        except ValueError as error:
            raise OSError(f"a date in it is none of the years 1 to 9999 ({error}): correct it") from error
        _check_read(path, layers, [str(warning.message) for warning in told])
    if not isinstance(features, gpd.GeoDataFrame):
        raise OSError("it holds a table without geometries")
    if features.crs is None:
        raise TaskDataError(f"{path} has no CRS: write it with the one that its coordinates are in")
    _check_crs(path, features.crs)
    features = features.reset_index(drop=True)
    places, owners = shapely.get_coordinates(features.geometry.array, return_index=True)
    if (far := np.abs(places) > _FURTHEST).any():
        row, axis = np.argwhere(far)[0]
        raise TaskDataError(
            f"{path}: feature {owners[row]} has the coordinate {places[row, axis]:g}, and no ground lies there: correct"
            " the feature, or remove it"
        )
    return features


def _check_crs(path: Path, crs: pyproj.CRS) -> None:
    """Reject a CRS that opens a file, and one of no place on Earth: of a building site, or of the Moon."""
    try:
        known_crs(crs.to_wkt())
    except InputError as error:
        raise TaskDataError(
            f"{path} has a CRS that names a file or is none ({crs.name}): write it with a code, as EPSG:4326"
        ) from error
    try:
        transformer(crs.to_wkt(), "EPSG:4326")
    except InputError as error:
        raise TaskDataError(
            f"{path} has the CRS {crs.name!r}, from which no way leads to longitude and latitude on Earth: write it"
            " with the one of the ground that it shows, for example EPSG:4326"
        ) from error


def _told_of_columns(path: Path, error: Exception) -> Exception:
    """Name the columns of lists, structs and maps that Arrow brings into no table where it could not read one."""
    schema = pq.read_schema(path)
    nested = [f"{name!r} ({kind})" for name, kind in zip(schema.names, schema.types, strict=True) if is_nested(kind)]
    if not nested:
        return OSError(" ".join(str(error).split()))
    return TaskDataError(
        f"{path}: the column {', '.join(nested)} holds lists, structs or maps and is said to hold something else"
        f" ({error}): leave it out, or write the file anew with text or numbers in it"
    )


def _check_start(path: Path) -> None:
    """Reject what only bears the name: GDAL would open whatever it is, also files that name others."""
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith(_STARTS.get(path.suffix.lower(), b"{")):
        found = f"it begins with {start[:16]!r}" if start else "it is empty"
        raise OSError(f"it is no {path.suffix.lower()[1:]}: {found}")
    if path.suffix.lower() == ".shp":
        _check_whole(path)


def _check_whole(path: Path) -> None:
    """Reject a Shapefile of which a part is cut: GDAL reads what is left of it without a word."""
    for part in (path, path.with_suffix(".dbf"), path.with_suffix(".DBF")):
        if not part.is_file():
            continue
        with part.open("rb") as file:
            header, size = file.read(32).ljust(32, b"\0"), part.stat().st_size
        rows, start, row = struct.unpack("<4xIHH20x", header)
        stated = 2 * int.from_bytes(header[24:28], "big") if part == path else start + rows * row
        if size < max(stated, len(header)):
            raise OSError(f"{part.name} is cut: it holds {size} bytes, expected {max(stated, 32)}; copy it again")


def _restore_booleans(path: Path, features: gpd.GeoDataFrame) -> None:
    """Have true and false again in columns that are read as 1 and 0 because a feature has neither."""
    info = pyogrio.read_info(path)
    for name, kind in zip(info["fields"], info["ogr_subtypes"], strict=True):
        if kind == "OFSTBoolean" and features[name].dtype.kind == "f":
            features[name] = features[name].map({1.0: True, 0.0: False}).astype(object)


def _check_read(path: Path, layers: Sequence[str], told: Iterable[str]) -> None:
    """Reject several layers, and a value that GDAL has left out; what else it tells is logged."""
    if len(layers) > 1:
        raise TaskDataError(
            f"{path} holds the layers {', '.join(layers)}, and labels are read from a file's only one: write the layer"
            " with the labels to a file of its own"
        )
    for line in told:
        if _LEFT_OUT.match(line):
            raise TaskDataError(
                f"{path}: a value is not of its column's type ({line}): correct the feature, or leave its value empty"
            )
        logger.warning("%s: %s", path, line)
