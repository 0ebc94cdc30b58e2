"""Look at labels within bounds: of what kind they are, what their attributes or numbers hold, where they lie."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from pandas.api.types import is_hashable
from rasterio.errors import RasterioError
from rasterio.windows import Window

from a2mae.errors import InputError, ReadError, RejectedError, plural
from a2mae.files import check_regular
from a2mae.raster.header import FileBands, crs_text
from a2mae.raster.opening import first_line, gdal_env, open_raster
from a2mae.raster.whole import header_of
from a2mae.remote.policy import RemoteAccess
from a2mae.stssd.recognise.look import look_into, spread_over
from a2mae.tasks.datasets.archive_labels import TABLE_SUFFIX, read_days, read_points
from a2mae.tasks.datasets.class_folders import LABELS_FILE, has_table
from a2mae.tasks.datasets.formats import IMAGE_SUFFIXES
from a2mae.tasks.datasets.listing import files_in, is_hidden
from a2mae.tasks.datasets.polygons import class_text
from a2mae.tasks.datasets.task_data import SPLITS
from a2mae.tasks.datasets.text_tables import file_inside, read_table, utf8_text
from a2mae.tasks.datasets.vector_files import VECTOR_SUFFIXES, read_features

MOST_CLASSES = 100
"""An attribute or a raster with more different words or numbers holds no classes."""
_MASKS_READ = 300
_PIXELS_READ = 150_000_000
_MOST_LISTED = 200_000
_BLOCK_PX = 2048
_DAYS = ("start", "end")


class Kind(StrEnum):
    """What labels lie in."""

    FEATURES = "features"
    RASTER = "raster"
    CLASS_FOLDERS = "class folders"
    TABLE = "table of pictures"
    MASKS = "masks beside images"
    VALUES = "values beside images"
    DRAWN = "polygons beside images"
    PAIRS = "pairs of dates with masks"

    @property
    def on_archive(self) -> bool:
        """Whether they lie on image sets; else they bring images of their own."""
        return self in (Kind.FEATURES, Kind.RASTER)


@dataclass(frozen=True)
class Column:
    """What an attribute, a column or the pixels of rasters hold.

    Attributes:
        counts: How often each word or whole number occurs; empty where there are more than `MOST_CLASSES`.
        span: Smallest and largest number; None of words.
        whole: Whether all numbers are whole.
        every: Whether each occurs once, as the number of a row does.
    """

    counts: Mapping[str, int]
    span: tuple[float, float] | None
    whole: bool
    every: bool = False


@dataclass(frozen=True)
class Images:
    """The images that come with labels.

    Attributes:
        count: How many.
        first: Path of the one that was opened.
        bands: What it says of its bands.
        gsd_m: Metres per pixel; None where it does not say.
        darkest: Lowest 1st percentile of a band as stored; None where it was not read.
    """

    count: int
    first: Path
    bands: FileBands
    gsd_m: float | None
    darkest: float | None


@dataclass(frozen=True, kw_only=True)
class Look:
    """Labels that were looked at.

    Attributes:
        path: File or folder, as the task's parameters name it.
        kind: What they lie in.
        geometry: `polygons`, `points` or `lines`; empty where they are no features.
        crs: As text; empty where there is none.
        columns: By name: attributes, columns of a table; `pixels` of rasters, `folders` of class folders.
        count: Of features, pictures or masks; of a raster its pixels.
        features: None where there are none, or where they lie beside images.
        images: That come with them; None where they lie on an archive.
        days: From when to when they hold, in words; empty where they do not say.
        notes: What else is to be said.
    """

    path: Path
    kind: Kind
    geometry: str = ""
    crs: str = ""
    columns: Mapping[str, Column]
    count: int
    features: gpd.GeoDataFrame | None = field(default=None, repr=False)
    images: Images | None = None
    days: str = ""
    notes: tuple[str, ...] = ()


def look_at(path: Path) -> Look:
    """Look at a file or folder of labels.

    Raises:
        InputError: If it is not there, may not be read, or holds no labels that are read.
    """
    try:
        if not path.exists():
            raise InputError(f"{path} is not there: name a file or a folder of labels")
        check_regular(path)
        if path.is_dir():
            return _folder(path)
        ending = path.suffix.lower()
        if path.name == LABELS_FILE and "file" in _header(path):
            return _table(path.parent)
        if ending in (*VECTOR_SUFFIXES, TABLE_SUFFIX):
            return _features(path)
        if ending in IMAGE_SUFFIXES:
            return _raster(path)
    except RejectedError as error:
        raise InputError(error.detail) from error
    except ReadError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        why = error.strerror or first_line(error)
        change = "change its access" if error.strerror else "write it anew"
        raise InputError(f"{path} cannot be read ({why}): {change}, or name another file") from error
    readable = ", ".join((*VECTOR_SUFFIXES, TABLE_SUFFIX, ".tif"))
    packed = ": unpack it and name what comes out" if ending in (".zip", ".tar", ".gz", ".7z", ".rar") else ""
    raise InputError(f"{path} is no file of labels that is read ({readable}, or a folder){packed}")


def _header(path: Path) -> list[str]:
    return [name.strip().strip('"') for name in utf8_text(path).partition("\n")[0].split(",")]


def _features(path: Path) -> Look:
    features = read_points(path) if path.suffix.lower() == TABLE_SUFFIX else read_features(path)
    if not len(features):
        raise InputError(f"{path} holds no features: labels are polygons or points with a class or a value each")
    return Look(
        path=path,
        kind=Kind.FEATURES,
        geometry=_geometry(features),
        crs=features.crs.to_string() if features.crs.to_epsg() is None else f"EPSG:{features.crs.to_epsg()}",
        columns=_columns(features),
        count=len(features),
        features=features,
        days=_holding(path, features),
    )


def _geometry(features: gpd.GeoDataFrame) -> str:
    kinds = set(features.geom_type.dropna().str.removeprefix("Multi"))
    if "Polygon" in kinds:
        return "polygons"
    return "lines" if "LineString" in kinds else "points"


def _holding(path: Path, features: gpd.GeoDataFrame) -> str:
    told = []
    for column in _DAYS:
        days = read_days(path, features, column)
        if not np.isnat(days).all():
            told.append(f"{column} {np.nanmin(days)} to {np.nanmax(days)}")
    return ", ".join(told)


def _columns(table: pd.DataFrame) -> dict[str, Column]:
    found = {}
    for name in table.columns:
        if name in (*_DAYS, "geometry", "lon", "lat", "longitude", "latitude"):
            continue
        column = _column(table[name].dropna())
        if column is not None:
            found[str(name)] = column
    return found


def _column(values: pd.Series) -> Column | None:
    """What a column of words or numbers holds; None where nothing stands in it."""
    if not len(values) or not values.map(is_hashable).all():
        return None
    words = values.astype(object).map(class_text)
    numbers = pd.to_numeric(words, errors="coerce")
    counts = Counter(words) if words.nunique() <= MOST_CLASSES else Counter()
    every = words.nunique() == len(words) > 2
    if numbers.isna().any():
        return Column(dict(sorted(counts.items())), None, False, every)
    whole = bool((numbers == np.floor(numbers)).all())
    span = float(numbers.min()), float(numbers.max())
    return Column(dict(sorted(counts.items(), key=lambda one: float(one[0]))) if whole else {}, span, whole, every)


def _raster(path: Path) -> Look:
    pixels, crs, note = _pixels([path])
    (count,) = {sum(pixels.counts.values())}
    if not crs:
        raise InputError(
            f"{path} says nothing of where it lies: a raster of labels lies on the archive; with images of its own, put"
            " both into images/ and masks/ and name the folder above"
        )
    return Look(path=path, kind=Kind.RASTER, crs=crs, columns={"pixels": pixels}, count=count, notes=note)


def _pixels(paths: Sequence[Path]) -> tuple[Column, str, tuple[str, ...]]:
    """Count the numbers of rasters with one band, nodata left out; the first one's CRS; what was not read."""
    counts: Counter[float] = Counter()
    low, high, whole, crs, read, few = np.inf, -np.inf, True, "", 0, True
    for path in paths:
        access = RemoteAccess()
        try:
            with gdal_env(access.reading), open_raster(str(path), str(path), access) as source:
                if source.count != 1:
                    raise InputError(f"{path}: {plural(source.count, 'band')}; a raster of labels has one")
                crs = crs or ("" if source.crs is None else crs_text(source.crs))
                for window in _blocks(source.height, source.width):
                    if read > _PIXELS_READ:
                        break
                    stored = source.read(1, window=window, masked=True).compressed()
                    stored = stored[np.isfinite(stored)] if stored.dtype.kind == "f" else stored
                    read += window.width * window.height
                    if not stored.size:
                        continue
                    low, high = min(low, float(stored.min())), max(high, float(stored.max()))
                    whole = whole and (stored.dtype.kind in "iu" or bool((stored == np.floor(stored)).all()))
                    few = few and whole
                    if few:
                        numbers, many = np.unique(stored, return_counts=True)
                        counts.update(dict(zip(numbers.tolist(), many.tolist(), strict=True)))
                        few = len(counts) <= MOST_CLASSES
        except RasterioError as error:
            raise InputError(f"{path} cannot be read: {first_line(error)}") from error
    if not np.isfinite(low):
        raise InputError(f"{paths[0]}: every pixel is nodata: there is no label in it")
    note = (f"numbers are those of the first {read:,} pixels",) if read > _PIXELS_READ else ()
    named = {class_text(float(number)): many for number, many in sorted(counts.items())} if few else {}
    return Column(named, (low, high), whole), crs, note


def _blocks(height: int, width: int) -> Iterator[Window]:
    for row in range(0, height, _BLOCK_PX):
        for column in range(0, width, _BLOCK_PX):
            yield Window(column, row, min(_BLOCK_PX, width - column), min(_BLOCK_PX, height - row))


def _folder(folder: Path) -> Look:
    roots = [folder / split for split in SPLITS if (folder / split).is_dir()] or [folder]
    first = roots[0]
    if (first / "A").is_dir() and (first / "B").is_dir():
        return _beside(folder, roots, Kind.PAIRS, "A", "label")
    for name, kind in (("masks", Kind.MASKS), ("values", Kind.VALUES), ("labels", Kind.DRAWN)):
        if (first / "images").is_dir() and (first / name).is_dir():
            return _beside(folder, roots, kind, "images", name)
    if has_table(folder):
        return _table(folder)
    files = _files(folder)
    single = [p for p in files if p.parent == folder and p.suffix.lower() in (*VECTOR_SUFFIXES, TABLE_SUFFIX)]
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if len(single) == 1 and not pictures:
        return look_at(single[0])
    if single:
        raise InputError(
            f"{folder} holds {', '.join(path.name for path in single[:4])}"
            f"{' …' if len(single) > 4 else ''} beside {plural(len(pictures), 'raster')}: name the file with the labels"
        )
    counts = Counter(path.parent.name for path in pictures if path.parent.parent in roots)
    if len(counts) >= 2:
        return Look(
            path=folder,
            kind=Kind.CLASS_FOLDERS,
            columns={"folders": Column(dict(sorted(counts.items())), None, False)},
            count=sum(counts.values()),
            images=look_at_images([path for path in pictures if path.parent.parent in roots]),
        )
    if len(pictures) == 1:
        return _raster(pictures[0])
    kinds = Counter(path.suffix.lower() or "no ending" for path in files)
    shown = ", ".join(f"{count} {ending}" for ending, count in kinds.most_common(4)) or "nothing"
    raise InputError(
        f"{folder} holds no labels that are recognised ({shown}): name a vector file, a .csv, a raster of classes, a"
        " folder per class, a folder with images/ and masks/, or one with labels.csv"
    )


def _files(folder: Path) -> list[Path]:
    """Files up to two folders down, in order; links to folders are not followed.

    Raises:
        InputError: If one of the folders may not be read: its labels would be missing.
    """
    found: list[Path] = []

    def unlisted(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read ({error.strerror}): change its access") from error

    for above, folders, names in os.walk(folder, onerror=unlisted):
        if len(Path(above).relative_to(folder).parts) >= 2:
            folders.clear()
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found += [Path(above) / name for name in sorted(names) if not is_hidden(name)]
        if len(found) > _MOST_LISTED:
            raise InputError(f"{folder} holds more than {_MOST_LISTED:,} files: name the folder with the labels in it")
    return found


def _beside(folder: Path, roots: Sequence[Path], kind: Kind, image: str, label: str) -> Look:
    """Labels in files beside images of the same names."""
    there = [root / label for root in roots if (root / label).is_dir()]
    rasters = [path for one in there for path in files_in(one, folder)]
    vectors = [path for one in there for path in files_in(one, folder, VECTOR_SUFFIXES)]
    truths = vectors if kind is Kind.DRAWN else rasters
    images = [path for root in roots if (root / image).is_dir() for path in files_in(root / image, folder)]
    if not images or not truths:
        raise InputError(
            f"{folder}: {image}/ or {label}/ holds no file that is read: both have files of the same names"
        )
    looked = spread_over(truths, _MASKS_READ)
    columns, geometry, notes = dict[str, Column](), "", tuple[str, ...]()
    if kind is Kind.DRAWN:
        features = pd.concat([read_features(path).assign(geometry=None) for path in looked], ignore_index=True)
        geometry = _geometry(read_features(looked[0]))
        columns = _columns(features)
    else:
        columns["pixels"], _, notes = _pixels(looked)
    if len(looked) < len(truths):
        notes = (*notes, f"{len(looked)} of {len(truths)} files in {label}/ were looked into")
    found = look_at_images(images)
    return Look(
        path=folder, kind=kind, geometry=geometry, columns=columns, count=len(images), images=found, notes=notes
    )


def _table(folder: Path) -> Look:
    path = folder / LABELS_FILE
    names, rows, _ = read_table(path, [("file",)], ": the pictures' paths in this folder")
    table = pd.DataFrame(rows, columns=names)
    columns = _columns(table.drop(columns=["file", "split"], errors="ignore").replace("", np.nan))
    if "classes" in table.columns:
        several = table["classes"].str.split(";").explode().str.strip()
        columns["classes"] = Column(dict(sorted(Counter(several[several != ""]).items())), None, False)
    pictures = [found for name in table["file"] if (found := file_inside(folder, name.strip())) is not None]
    if not pictures:
        raise InputError(f"{path}: none of its {plural(len(table), 'file')} is in {folder}")
    return Look(path=folder, kind=Kind.TABLE, columns=columns, count=len(table), images=look_at_images(pictures))


def look_at_images(paths: Sequence[Path]) -> Images:
    """Look at the first image that can be opened.

    Raises:
        InputError: If none can, within seconds.
    """
    began, why = time.monotonic(), ""
    for path in paths:
        try:
            bands, gsd_m = header_of(path)
        except (ReadError, RejectedError) as error:
            why = why or str(error)
            if time.monotonic() - began > 10:
                break
            continue
        darkest = None
        if gsd_m is not None:
            seen, _ = look_into(path.parent, [path.name])
            darks = [values.dark for glimpse in seen.values() for values in glimpse.bands if values is not None]
            darkest = min(darks, default=None)
        return Images(len(paths), path, bands, gsd_m, darkest)
    raise InputError(f"none of {plural(len(paths), 'image')} can be read: {why}")
