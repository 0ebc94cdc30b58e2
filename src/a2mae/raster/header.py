"""Raster headers, read many at a time: grid, bands, nodata and whether the file is whole."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import rasterio
from affine import Affine
from rasterio.errors import RasterioError
from shapely.geometry.base import BaseGeometry
from tqdm import tqdm

from a2mae.errors import RejectedError
from a2mae.raster.footprints import footprint_lonlat, pixel_size_m
from a2mae.remote.policy import HrefPolicy, Signer, check_redirects, is_remote, redact

_UNREACHABLE = re.compile(r"HTTP response code|does not exist|CURL error|[Tt]imed? ?out|[Cc]ould not resolve")
_MAX_PIXELS = 200_000 * 200_000
_MAX_BANDS = 2_000
_MAX_BLOCKS = 20_000
_MAX_BLOCK_PIXELS = 2**27  # of one band: half a gigabyte as float32
_MAX_TABLE = 4_000_000  # blocks, 16 bytes each in GDAL's tables
_GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_HTTP_TIMEOUT": "30",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
}


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


def driver_for(href: str) -> str:
    """The one GDAL driver that may open an href: a file is never handed to the other hundred."""
    path = href.partition("?")[0] if is_remote(href) else href
    return "JP2OpenJPEG" if path.lower().endswith((".jp2", ".j2k")) else "GTiff"


def crs_text(crs: rasterio.crs.CRS) -> str:
    """A CRS as the tables hold it: its EPSG code where it has one, WKT otherwise."""
    code = crs.to_epsg(confidence_threshold=70)
    return f"EPSG:{code}" if code else str(crs.to_wkt())


def read_header(href: str, sign: Signer = str, policy: HrefPolicy | None = None) -> RasterHeader:
    """Read one header and check that the file is whole.

    Args:
        href: A checked href.
        sign: Turns it into what is opened.
        policy: Where given, its host is looked up and its redirects are followed, and private ones are refused.

    Raises:
        RejectedError: "missing_file", "unreachable", "bad_href", "corrupt", "no_crs", "too_large".
    """
    shown = redact(href)
    address = sign(href)
    if policy is not None:
        policy.check_resolved(href)
        check_redirects(address, policy, float(_GDAL["GDAL_HTTP_TIMEOUT"]))
    if not is_remote(href) and not os.path.isfile(href):
        raise RejectedError("missing_file", f"{shown} is not a file")
    try:
        with rasterio.Env(**_GDAL), rasterio.open(address, driver=driver_for(href), sharing=False) as source:
            check_size(source, shown)
            if source.crs is None:
                raise RejectedError(
                    "no_crs", f"{shown} has no coordinate reference system; write one with gdal_edit -a_srs EPSG:…"
                )
            if source.transform == Affine.identity() or source.transform.determinant == 0:
                raise RejectedError("no_crs", f"{shown} has a CRS but no georeference (its transform is the identity)")
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
    except (RasterioError, ValueError) as error:
        line = first_line(error)
        reason = "unreachable" if is_remote(href) and _UNREACHABLE.search(line) else "corrupt"
        raise RejectedError(reason, f"{shown} cannot be read: {line}") from error


def check_size(source: rasterio.DatasetReader, shown: str) -> None:
    """Refuse what a header claims beyond bounds, before anything is allocated for it.

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
    """A file cut short still opens: its header lies in front. So every block must end inside the file."""
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
    """The first line of an error without queries: GDAL repeats the name of what it opened, signature and all."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return re.sub(r"\?[^ '\"]*", "?…", text)[:300]


def read_headers(
    hrefs: Iterable[str], *, policy: HrefPolicy | None = None, sign: Signer = str, workers: int = 8
) -> dict[str, RasterHeader | RejectedError]:
    """Read many headers at once.

    Args:
        hrefs: Checked hrefs; duplicates are read once.
        policy: As for `read_header`.
        sign: Turns an address into what is opened.
        workers: Threads.

    Returns:
        Header or refusal per href.
    """

    def read(href: str) -> RasterHeader | RejectedError:
        try:
            return read_header(href, sign, policy)
        except RejectedError as refusal:
            return refusal

    unique = list(dict.fromkeys(hrefs))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        results = pool.map(read, unique)
        bar = tqdm(results, total=len(unique), desc="reading headers", unit="file", delay=1)
        return dict(zip(unique, bar, strict=True))
