"""Open rasters safely, and read their headers, many at a time: grid, bands, nodata, and whether the file is whole."""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import rasterio
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.errors import RasterioError
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry
from tqdm import tqdm

from a2mae.errors import RejectedError, without_secrets
from a2mae.raster.footprints import footprint_lonlat, known_crs, pixel_size_m
from a2mae.remote.fetch import NoAnswerError, ask, check_redirects, retried
from a2mae.remote.policy import ReadingParameters, RemoteAccess, Signer, is_remote, redact

_MAX_PIXELS = 200_000 * 200_000
_MAX_BANDS = 2_000
_MAX_BLOCKS = 20_000
_MAX_BLOCK_PIXELS = 2**27  # of one band: half a gigabyte as float32
_MAX_TABLE = 4_000_000  # blocks, 16 bytes each in GDAL's tables
_HEADERS_ONLY = {"GDAL_PAM_ENABLED": "NO", "GDAL_HTTP_CONNECTTIMEOUT": 10}
_NO_KEYS = ("AWS_SECRET_ACCESS_KEY", "InvalidCredentials", "AWS_NO_SIGN_REQUEST")
GDAL_OPTIONS = {
    # Bytes per process, as rasterio counts (128 would be MB to GDAL itself, and switch the cache off here). The default
    # of 5 % of the machine is not bounded in a pool.
    "GDAL_CACHEMAX": 128 * 2**20,
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecar search, one request less per file over HTTP
    "GDAL_HTTP_MAX_RETRY": 0,  # ours ask the server what is the matter and heed its Retry-After
    "GDAL_HTTP_TIMEOUT": 60,
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/",  # what failed is not remembered once the file is closed
}


class _WithoutSecrets(logging.Filter):
    """Leaves out of GDAL's messages what addresses hold behind their path: signatures, for example."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_secrets(record.getMessage()), ()
        return True


logging.getLogger("rasterio._env").addFilter(_WithoutSecrets())


def gdal_env(reading: ReadingParameters, **more: object) -> rasterio.Env:
    """Make GDAL's environment for files of a catalog.

    Args:
        reading: How long a server may be silent.
        more: Further options of GDAL.
    """
    return rasterio.Env(**{**GDAL_OPTIONS, "GDAL_HTTP_TIMEOUT": max(1, round(reading.timeout_s)), **more})


@dataclass(frozen=True, slots=True)
class RasterHeader:
    """What a raster says about itself.

    Attributes:
        crs: "EPSG:…" or WKT.
        transform: Pixel to coordinates.
        shape: Rows, columns.
        count: Number of bands.
        dtype: NumPy name of the first band's type.
        nodata: Per band, None where none is declared.
        scales: Per band, from the file's tags; 1 where none.
        offsets: Per band, from the file's tags; 0 where none.
        descriptions: Per band, empty where none.
        gsd_m: Geometric mean of pixel width and height, metres.
        footprint: Outline in EPSG:4326.
    """

    crs: str
    transform: Affine
    shape: tuple[int, int]
    count: int
    dtype: str
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    descriptions: tuple[str, ...]
    gsd_m: float
    footprint: BaseGeometry


def open_raster(href: str, address: str, access: RemoteAccess, *, any_driver: bool = False) -> rasterio.DatasetReader:
    """Open a raster that nobody vouches for.

    Its server's redirects are checked, one driver of GDAL's hundred may read it, and it claims no size beyond bounds.

    Args:
        href: A checked href.
        address: What is opened: the href, signed where its provider asks for that, or a local copy.
        access: Where redirects may lead, and how long a server may be silent.
        any_driver: Open whatever GDAL can: for files that the user named, never for those of a catalog.

    Raises:
        RejectedError: "unreachable", "no_keys", "unsupported", "corrupt", "bad_href" or "too_large".
    """
    if access.policy is not None and is_remote(address):
        check_redirects(address, access.policy, access.reading.timeout_s)
    path = href.partition("?")[0] if is_remote(href) else href
    if path.lower().endswith(".vrt") and not any_driver:
        raise RejectedError(
            "unsupported",
            f"{redact(href)} is a VRT, which may name any other file or server, and is not read: name the GeoTIFFs that"
            " it is made of, or write one with gdal_translate",
        )
    driver = "JP2OpenJPEG" if path.lower().endswith((".jp2", ".j2k")) else "GTiff"
    try:
        source = rasterio.open(address, driver=None if any_driver else driver, sharing=False)
    except (RasterioError, OSError) as error:
        if is_remote(address) and any(sign in str(error) for sign in _NO_KEYS):
            raise RejectedError(
                "no_keys",
                f"{redact(href)} asks for keys of its store and there are none: set AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY, or AWS_NO_SIGN_REQUEST=YES where it is public",
            ) from error
        reason = "unreachable" if is_remote(address) else "corrupt"
        raise RejectedError(reason, f"{redact(href)} cannot be opened: {first_line(error)}") from error
    try:
        _check_size(source, redact(href))
    except RejectedError:
        source.close()
        raise
    return source


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
        RejectedError: "missing_file", "unreachable", "no_keys", "unsupported", "bad_href", "corrupt", "no_crs",
            "no_transform", "pole", "too_large".
    """
    access = access or RemoteAccess()
    if not is_remote(href):
        if not os.path.isfile(href):
            raise RejectedError("missing_file", f"{href} is not a file{_neighbour(href)}")
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
        with gdal_env(access.reading, **_HEADERS_ONLY), open_raster(href, address, access) as source:
            _check_place(source, shown)
            if not is_remote(href):
                _check_whole(source, href)
            crs = crs_text(source.crs)
            width, height = pixel_size_m(source.transform, source.shape, crs)
            return RasterHeader(
                crs=crs,
                transform=source.transform,
                shape=(source.height, source.width),
                count=source.count,
                dtype=source.dtypes[0],
                nodata=tuple(source.nodatavals),
                scales=tuple(source.scales),
                offsets=tuple(source.offsets),
                descriptions=tuple(text or "" for text in source.descriptions),
                gsd_m=round(math.sqrt(width * height), 4),
                footprint=footprint_lonlat(source.transform, source.shape, crs),
            )
    except RejectedError:
        raise
    except (RasterioError, ShapelyError, ProjError, ValueError, ArithmeticError) as error:
        raise RejectedError("corrupt", f"{shown} cannot be read: {first_line(error)}") from error


def _neighbour(path: str) -> str:
    """Name the file that lies there under another ending, as the end of a sentence; empty where none does."""
    folder, stem = os.path.dirname(path) or ".", os.path.splitext(os.path.basename(path))[0]
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    near = [name for name in names if os.path.splitext(name)[0].lower() == stem.lower()]
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
        raise RejectedError(
            "no_crs", f"{shown} has no coordinate reference system; write one with gdal_edit -a_srs EPSG:…"
        )
    if known_crs(crs_text(source.crs)).is_engineering:
        raise RejectedError(
            "no_crs",
            f"{shown} has a local coordinate reference system, which says nothing of where on Earth it lies; assign"
            " the real one with gdal_edit -a_srs EPSG:…",
        )


def _check_size(source: rasterio.DatasetReader, shown: str) -> None:
    """Reject a header that claims sizes beyond bounds, before anything is allocated for them.

    Args:
        source: An open file, of which nothing was asked yet.
        shown: Its name for messages.

    Raises:
        RejectedError: "too_large".
    """
    rows, columns = max(source.block_shapes, key=math.prod, default=(1, 1))
    blocks = -(-source.height // rows) * -(-source.width // columns)
    if source.interleaving and source.interleaving.name == "band":
        blocks *= source.count
    if source.count > _MAX_BANDS or source.width * source.height > _MAX_PIXELS:
        what = f"{source.count} bands of {source.shape} px exceed what is opened"
    elif rows * columns > _MAX_BLOCK_PIXELS:
        what = f"blocks of {rows} x {columns} px exceed what is read at once; tile it"
    elif blocks > _MAX_TABLE:  # GDAL reads the table of all of them
        what = f"{blocks} blocks of {rows} x {columns} px exceed what is opened; write it with larger tiles"
    else:
        return
    raise RejectedError("too_large", f"{shown}: {what}")


def _check_whole(source: rasterio.DatasetReader, href: str) -> None:
    """Reject a file that was cut short. It opens, as its header lies in front, but blocks end beyond the file."""
    if source.driver != "GTiff":
        return
    size = os.path.getsize(href)
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


def first_line(error: BaseException) -> str:
    """Return the first line of an error without queries: GDAL repeats the address it opened, signature included."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return without_secrets(re.sub(r"\?[^ '\"]*", "?…", text))[:300]


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
