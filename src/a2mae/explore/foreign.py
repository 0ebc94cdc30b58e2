"""Annual embeddings that others publish as COGs, such as AlphaEarth's and TESSERA's, as a store that is searched.

Known layouts: int8 of 64 bands A00 to A63, nodata -128, the square of the count over 127.5 with its sign (AlphaEarth
Foundations, https://developers.google.com/earth-engine/guides/aef_on_gcs_readme); int8 with a scale per band as GDAL
writes it; floats of 128 bands (TESSERA, as geotessera exports them). One vector stands for a block of pixels.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.errors import RasterioError
from rasterio.windows import Window

from a2mae.errors import InputError, RejectedError, plural
from a2mae.explore.store import EmbeddingStore, StoreAbout, begin_store
from a2mae.files import digest_of
from a2mae.raster.footprints import known_crs, split_at_date_line, transformer
from a2mae.raster.header import read_header
from a2mae.raster.opening import GDAL_OPTIONS, first_line, open_raster
from a2mae.remote.policy import HrefPolicy, RemoteAccess
from a2mae.stssd.ingest.checks import Found
from a2mae.stssd.ingest.folder_files import walk

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

_FEWEST_BANDS = 8
_MOST_BLOCK_PX = 1024  # a block is read at once, all bands of it
_ALPHA_EARTH = tuple(f"A{number:02}" for number in range(64))
_ALPHA_EARTH_FULL = 127.5
_INT8_NODATA = -128
_YEAR = re.compile(r"(?<!\d)(20[0-4]\d|19[89]\d)(?!\d)")


def import_cogs(source: Path, folder: Path, *, block_px: int, dataset: str | None = None) -> EmbeddingStore:
    """Read the COGs of a folder into a store, a row per block; files that are in it already are not read again.

    A row's `location_id` is that of its ground in every year, its `datetime` the first of January of the year that the
    file's name or folder tells, its `sensor` the data set.

    Args:
        source: Folder with `.tif` or `.tiff` files, at any depth and also behind links, or one file.
        folder: Of the store.
        block_px: Side of a block, pixels; its vector is the mean of those that were seen.
        dataset: Name of the data set; None: `alphaearth` or `tessera` by the layout, else `foreign`.

    Returns:
        The store.

    Raises:
        InputError: If there is no file, a folder cannot be read, one is no raster of embeddings, or files are of
            several kinds.
    """
    files = [source] if source.is_file() else _files(source)
    if not files:
        raise InputError(f"{source} has no .tif or .tiff: name a folder of annual embeddings, or one file")
    if not 1 <= block_px <= _MOST_BLOCK_PX:
        raise InputError(f"a block has 1 to {_MOST_BLOCK_PX:,} pixels a side, found {block_px}")
    kinds = {path: _kind(path) for path in files}
    found = sorted(set(kinds.values()))
    if len(found) > 1:
        words = " and ".join(f"{bands} bands of {name}" for name, bands in found)
        raise InputError(f"{source} has files of {words}, which cannot be compared: search each by itself")
    (name, bands), root = found[0], source if source.is_dir() else source.parent
    name = dataset or name
    about = StoreAbout(digest_of([name, bands, block_px]), bands, "float16", "mean", (), False, block_px)
    store = begin_store(folder, about)
    wanted: dict[tuple[str, str], str] = {}
    there, new = store.contents(), 0
    for path in files:
        key = path.relative_to(root).as_posix()
        content = digest_of([key, path.stat().st_size, path.stat().st_mtime_ns])[:16]
        known = {ids: what for ids, what in there.items() if what == content}
        if known:
            wanted |= known
            continue
        for rows, geometry, vectors in _blocks(path, key, name, content, block_px):
            store.add(rows, geometry, vectors)
            wanted |= {("image", str(row)): content for row in rows["id"]}
            new += 1
    store.keep(wanted)
    if not wanted:
        raise InputError(f"{source} shows nothing: every pixel is nodata, zero or no number")
    logger.info(
        "%s: %s of %d numbers from %s", name, plural(store.count("image"), "vector"), bands, plural(len(files), "file")
    )
    return store


def _files(folder: Path) -> list[Path]:
    """List the COGs below a folder; what cannot be read is no reason to take its vectors out of the store."""
    found = Found()
    names = walk(folder, HrefPolicy(frozenset({"file"}), (Path(os.sep),)), found)
    files = sorted(folder / name for name in names if name.lower().endswith((".tif", ".tiff")))
    unread = [one for one in found.rejected if one.reason == "unreadable"]
    if unread:
        more = f" ({plural(len(unread), 'folder')} in all)" if len(unread) > 1 else ""
        raise InputError(f"{folder / unread[0].scene_id}: {unread[0].detail}{more}")
    for one in found.rejected:
        logger.warning("%s: %s", folder, one.detail)
    return files


def _opened(path: Path) -> rasterio.io.DatasetReader:
    """Open a file by one of the named drivers."""
    try:
        return open_raster(str(path), str(path), RemoteAccess())
    except RejectedError as rejection:
        raise InputError(rejection.detail) from rejection


def _kind(path: Path) -> tuple[str, int]:
    """Tell the layout of a file and its bands; it is whole, and lies on Earth."""
    try:
        header = read_header(str(path))
    except RejectedError as rejection:
        raise InputError(rejection.detail) from rejection
    if header.count < _FEWEST_BANDS or header.dtype not in ("int8", "float16", "float32", "float64"):
        raise InputError(
            f"{path} has {plural(header.count, 'band')} of {header.dtype} and is no raster of embeddings:"
            f" at least {_FEWEST_BANDS} bands of int8 or floats were expected"
        )
    named = header.descriptions == _ALPHA_EARTH
    if header.dtype == "int8" and not named and set(header.scales) == {1.0}:
        if header.count != len(_ALPHA_EARTH):
            raise InputError(
                f"{path} has int8 counts without a scale, and is not of AlphaEarth's 64 bands: set the bands' scale"
                " (gdal_edit.py -scale)"
            )
        named = True
    if named and header.dtype == "int8":
        return "alphaearth", header.count
    return ("tessera" if header.count == 128 else "foreign"), header.count


def _blocks(
    path: Path, key: str, name: str, content: str, block: int
) -> Iterator[tuple[dict[str, Sequence[object]], list[bytes], Floats]]:
    """Yield rows, footprints and vectors of a file, some rows of blocks at a time."""
    year = _YEAR.findall(key)
    if not year:
        raise InputError(
            f"{path} does not tell its year: have it in the file's name or its folder's, as 2024/{path.name}"
        )
    moment = dt.datetime(int(year[-1]), 1, 1, tzinfo=dt.UTC)
    with rasterio.Env(**GDAL_OPTIONS), _opened(path) as source:
        to = transformer(source.crs.to_wkt(), "EPSG:4326")
        authority = known_crs(source.crs.to_wkt()).to_authority() or ("", digest_of(source.crs.to_wkt())[:8])
        height = max(block, 512 // block * block)
        for top in range(0, source.height, height):
            vectors, places = [], []
            for left in range(0, source.width, height):
                window = Window(left, top, min(height, source.width - left), min(height, source.height - top))
                try:
                    mean, seen = _means(source, window, block)
                except RasterioError as error:
                    raise InputError(f"{path}: pixels cannot be read: {first_line(error)}; fetch it again") from error
                row, column = np.nonzero(seen)
                vectors.append(mean[:, row, column].T)
                places.append(np.column_stack([top + row * block, left + column * block]))
            corner = np.concatenate(places)
            if not len(corner):
                continue
            end = np.minimum(corner + block, [source.height, source.width])
            (first_row, first_column), (last_row, last_column) = corner.T, end.T
            columns = np.stack([first_column, last_column, last_column, first_column], axis=1)
            x, y = source.transform @ (columns, np.stack([first_row, first_row, last_row, last_row], axis=1))
            geometry = [_polygon(*to.transform(a, b)) for a, b in zip(x, y, strict=True)]
            centre = [shape.centroid for shape in geometry]
            # The same ground has the same name in every year, whether the file is stored top or bottom first.
            ground = [
                f"{authority[1]}/{round(float(a.mean()))}/{round(float(b.mean()))}" for a, b in zip(x, y, strict=True)
            ]
            count = len(ground)
            rows: dict[str, Sequence[object]] = {
                "id": [f"{year[-1]}/{place}" for place in ground],
                "level": ["image"] * count,
                "set_id": ground,
                "location_id": ground,
                "sensor": [name] * count,
                "datetime": [moment] * count,
                "split": [""] * count,
                "lon": [point.x for point in centre],
                "lat": [point.y for point in centre],
                "content": [content] * count,
            }
            yield rows, [shapely.to_wkb(shape) for shape in geometry], np.concatenate(vectors)


def _polygon(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> shapely.Geometry:
    return split_at_date_line(shapely.Polygon(np.column_stack([np.unwrap(lon, period=360.0), lat])))


def _means(source: rasterio.io.DatasetReader, window: Window, block: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Average the vectors of each block: `(D, rows, columns)`, and whether anything was seen."""
    stored = source.read(window=window)
    nodata = source.nodata if source.nodata is not None else _INT8_NODATA if stored.dtype == np.int8 else math.nan
    seen = ~(np.isnan(stored) if math.isnan(nodata) else stored == nodata).any(axis=0)
    values = stored.astype(np.float32)
    if stored.dtype == np.int8 and set(source.scales) == {1.0}:
        values = np.sign(values) * (values / np.float32(_ALPHA_EARTH_FULL)) ** 2
    else:
        values *= np.asarray(source.scales, np.float32)[:, None, None]
        values += np.asarray(source.offsets, np.float32)[:, None, None]
    seen &= np.isfinite(values).all(axis=0) & values.any(axis=0)  # nothing but zeros is like nothing
    values = np.where(seen, values, np.float32(0))
    rows, columns = (np.arange(0, side, block) for side in seen.shape)
    count = np.add.reduceat(np.add.reduceat(seen.astype(np.int64), rows, axis=0), columns, axis=1)
    total = np.add.reduceat(np.add.reduceat(values, rows, axis=1), columns, axis=2)
    return (total / np.maximum(count, 1)).astype(np.float32), count > 0
