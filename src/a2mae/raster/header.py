"""Read headers of rasters, many at a time: grid, bands, nodata, and whether the file is whole."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import rasterio
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry
from tqdm import tqdm

from a2mae.errors import RejectedError
from a2mae.raster.footprints import footprint_lonlat, ground_size_m, known_crs
from a2mae.raster.opening import first_line, gdal_env, open_raster
from a2mae.remote.fetch import NoAnswerError, ask, retried
from a2mae.remote.policy import RemoteAccess, Signer, is_remote, redact

NO_CRS = "has no coordinate reference system"
"""Begins the reason why a file without a place is no scene."""
NEVER_MEASURED = 1e30
"""Floats beyond are some program's nodata (-3.4e38), whether or not the file says so."""
MOST_BYTES = 8 * 2**30
"""Of a raster that is read at once."""
MOST_PACKED = 1032
"""Bytes that DEFLATE, by which PNGs are packed, makes of one at most."""
_MAX_BLOCKS = 20_000
_NOT_PATIENT = {"GDAL_HTTP_CONNECTTIMEOUT": 10}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBands:
    """What a raster says of its bands.

    Attributes:
        shape: Rows, columns.
        count: Number of bands.
        dtype: NumPy name of the first band's type.
        nodata: Per band, None where none is declared.
        scales: Per band, from the file's tags; 1 where none.
        offsets: Per band, from the file's tags; 0 where none.
        descriptions: Per band, empty where none.
        alpha: The band that is flagged as alpha, counted from 1; None where none is.
    """

    shape: tuple[int, int]
    count: int
    dtype: str
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    descriptions: tuple[str, ...]
    alpha: int | None

    @property
    def is_float(self) -> bool:
        """Whether numbers are stored as floats."""
        return np.dtype(self.dtype).kind == "f"


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterHeader(FileBands):
    """What a raster with a place says about itself.

    Attributes:
        crs: "EPSG:…" or WKT.
        transform: Pixel to coordinates.
        gsd_m: Geometric mean of pixel width and height on the ground, metres.
        footprint: Outline in EPSG:4326.
    """

    crs: str
    transform: Affine
    gsd_m: float
    footprint: BaseGeometry


def bands_of(source: rasterio.DatasetReader) -> FileBands:
    """Read what an open file says of its bands."""
    alpha = next((k for k, kind in enumerate(source.colorinterp, start=1) if kind is ColorInterp.alpha), None)
    return FileBands(
        shape=(source.height, source.width),
        count=source.count,
        dtype=source.dtypes[0],
        nodata=tuple(source.nodatavals),
        scales=tuple(source.scales),
        offsets=tuple(source.offsets),
        descriptions=tuple(text or "" for text in source.descriptions),
        alpha=alpha,
    )


def claimed_bytes(source: rasterio.DatasetReader) -> int:
    """Compute what the pixels of an open file take in memory, all bands of them."""
    return int(source.height * source.width * sum(np.dtype(dtype).itemsize for dtype in source.dtypes))


def crs_text(crs: rasterio.crs.CRS) -> str:
    """Return a CRS as the tables hold it: its EPSG code if it has one, else WKT."""
    code = crs.to_epsg(confidence_threshold=70)
    return f"EPSG:{code}" if code else str(crs.to_wkt())


def read_header(href: str, access: RemoteAccess | None = None, sign: Signer = str) -> RasterHeader:
    """Read one header and check that the file is whole; a remote one is tried again as its server asks.

    Args:
        href: A checked href.
        access: Where the address and its redirects may lead, and how patient the reading is.
        sign: Turns the href into what is opened.

    Raises:
        RejectedError: "missing_file", "unreachable", "no_keys", "not_read", "bad_href", "corrupt", "no_crs",
            "no_transform", "pole", "too_large".
    """
    access = access or RemoteAccess()
    if not is_remote(href):
        if not os.path.isfile(href):
            found = "is a link to what is not there" if os.path.islink(href) else "is not a file"
            raise RejectedError("missing_file", f"{href} {found}{_neighbour(href)}")
        return _read_header(href, href, access)
    policy, reading = access.policy, access.reading
    if policy is not None:
        policy.check_resolved(href)

    def attempt() -> RasterHeader:
        address = sign(href)
        try:
            return _read_header(href, address, access)
        except RejectedError as rejection:
            if rejection.reason != "unreachable":
                raise
            raise NoAnswerError(rejection.detail, ask(address, reading.timeout_s, policy)) from rejection

    return retried(attempt, reading)


def _read_header(href: str, address: str, access: RemoteAccess) -> RasterHeader:
    shown = redact(href)
    try:
        with gdal_env(access.reading, **_NOT_PATIENT), open_raster(href, address, access) as source:
            _check_place(source, shown)
            if not is_remote(href):
                _check_whole(source, href)
            crs = crs_text(source.crs)
            bands = bands_of(source)
            return RasterHeader(
                **{field.name: getattr(bands, field.name) for field in dataclasses.fields(bands)},
                crs=crs,
                transform=source.transform,
                gsd_m=ground_size_m(source.transform, source.shape, crs),
                footprint=footprint_lonlat(source.transform, source.shape, crs),
            )
    except RejectedError:
        raise
    except (RasterioError, ShapelyError, ProjError, OSError, ValueError, ArithmeticError) as error:
        raise RejectedError("corrupt", f"{shown} cannot be read: {first_line(error)}") from error


def _neighbour(path: str) -> str:
    """Name the file that lies there under another ending, as the end of a sentence; empty where none does."""
    folder, own = os.path.dirname(path) or ".", os.path.basename(path)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    stem = os.path.splitext(own)[0].lower()
    near = [name for name in names if name != own and os.path.splitext(name)[0].lower() == stem]
    return f"; beside it lies {', '.join(near[:3])}" if near else ""


def _check_place(source: rasterio.DatasetReader, shown: str) -> None:
    """Reject a raster that does not say where its pixels lie, with the way to one that does.

    Raises:
        RejectedError: "no_transform", "no_crs".
    """
    if source.transform == Affine.identity() or source.transform.determinant == 0:
        ways = (
            (
                source.gcps[0],
                "has ground control points and no transform",
                "-tps -t_srs EPSG:…, radar: terrain-correct it",
            ),
            (
                source.tags(ns="RPC"),
                "has RPCs and no transform: orthorectify it",
                "-rpc -to RPC_DEM=dem.tif -t_srs EPSG:…",
            ),
        )
        for found, what, how in ways:
            if found:
                raise RejectedError("no_transform", f"{shown} {what} (gdalwarp {how})")
        if source.crs is not None:
            raise RejectedError("no_crs", f"{shown} has a CRS but no georeference (its transform is the identity)")
    if source.crs is None:
        raise RejectedError("no_crs", f"{shown} {NO_CRS}; write one with gdal_edit -a_srs EPSG:…")
    known = known_crs(crs_text(source.crs))
    if known.is_geocentric:
        raise RejectedError(
            "no_crs",
            f"{shown} has coordinates from the centre of the Earth ({known.name}), where a place on a map was expected;"
            " assign the real reference system with gdal_edit -a_srs EPSG:…",
        )
    if known.is_engineering:
        raise RejectedError(
            "no_crs",
            f"{shown} has a local coordinate reference system, which says nothing of where on Earth it lies; assign"
            " the real one with gdal_edit -a_srs EPSG:…",
        )


def _check_whole(source: rasterio.DatasetReader, href: str) -> None:
    """Reject a file that was cut short. It opens, as its header lies in front, but blocks end beyond the file.

    Blocks may also be absent, as they are where nothing was seen; but not nearly all of what is too large to be read at
    once: squares would be looked for, and found empty, for hours.
    """
    if source.driver != "GTiff":
        return
    size, needed = os.path.getsize(href), claimed_bytes(source)
    if needed > max(MOST_BYTES, 8 * MOST_PACKED * size):
        raise RejectedError(
            "corrupt",
            f"{href} is nearly empty or damaged: its header claims {source.count} bands of {source.width} x"
            f" {source.height} px, {needed / 2**30:.1f} GiB, and the file has {size:,} bytes; fetch it again, or cut"
            " out the part that was seen with gdal_translate -projwin",
        )
    block_rows, block_cols = source.block_shapes[0]
    down, across = -(-source.height // block_rows), -(-source.width // block_cols)
    bands = range(1, source.count + 1) if source.interleaving and source.interleaving.name == "band" else (1,)
    count = down * across * len(bands)  # a header may claim more than fit into memory
    for block in itertools.chain(range(0, count, max(1, math.ceil(count / _MAX_BLOCKS))), (count - 1,)):
        band, index = bands[block // (down * across)], block % (down * across)
        name = f"{index % across}_{index // across}"
        offset = source.get_tag_item(f"BLOCK_OFFSET_{name}", "TIFF", bidx=band)
        length = source.get_tag_item(f"BLOCK_SIZE_{name}", "TIFF", bidx=band)
        if offset is not None and length is not None and int(offset) + int(length) > size:
            raise RejectedError(
                "corrupt",
                f"{href} is cut short: its pixels reach to byte {int(offset) + int(length)}, the file has {size};"
                " fetch it again",
            )


def read_headers(
    hrefs: Iterable[str], access: RemoteAccess | None = None, *, workers: int = 8
) -> dict[str, RasterHeader | RejectedError]:
    """Read many headers at once.

    Args:
        hrefs: Checked hrefs; duplicates are read once.
        access: As for `read_header`, and who signs addresses.
        workers: Threads.

    Returns:
        Header, or why there is none, per href.
    """
    sign = str if access is None else access.signer()

    def read(href: str) -> RasterHeader | RejectedError:
        try:
            return read_header(href, access, sign)
        except RejectedError as rejection:
            return rejection

    unique = list(dict.fromkeys(hrefs))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        results = pool.map(read, unique)
        bar = tqdm(results, total=len(unique), desc="reading headers", unit="file", delay=1)
        return dict(zip(unique, bar, strict=True))
