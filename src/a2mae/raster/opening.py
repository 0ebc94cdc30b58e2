"""Open a raster file: by one of four drivers of GDAL, within bounds, with the sidecars of local files.

GDAL has a hundred drivers, and some of them open other files and addresses that a file names. A file is opened by the
driver that its first bytes tell (a remote one by its ending), never by whatever GDAL detects.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast
from xml.parsers import expat

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

from a2mae.errors import InputError, RejectedError, without_secrets
from a2mae.files import check_regular
from a2mae.remote.fetch import check_redirects
from a2mae.remote.policy import ReadingParameters, RemoteAccess, is_remote, redact

_MAX_PIXELS = 200_000 * 200_000
_MAX_BANDS = 2_000
_MAX_BLOCK_PIXELS = 2**27  # of one band: half a gigabyte as float32
_MAX_TABLE = 4_000_000  # blocks, 16 bytes each in GDAL's tables
_MAX_SIDECAR = 16_000_000  # bytes of XML
_BESIDE = (
    ".aux", ".tab", ".wld", ".imd", ".rpb", ".rpc", ".pass", ".xml", "_rpc.txt", "_metadata.xml", "_metadata.txt",
    "_mtl.txt", "_MTL.txt",
)  # fmt: skip
"""Endings, beside those of world files, under which GDAL looks for what belongs to a raster."""
_NO_MASK = {MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha}
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAGIC: dict[str, tuple[bytes, ...]] = {
    "GTiff": _TIFF,
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "JP2OpenJPEG": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
}
READ = "GeoTIFF (COG), PNG, JPEG and JPEG 2000"
"""The formats that are read, for messages."""
GDAL_OPTIONS = {
    # Bytes per process, as rasterio counts (128 would be MB to GDAL itself, and switch the cache off here). The default
    # of 5 % of the machine is not bounded in a pool.
    "GDAL_CACHEMAX": 128 * 2**20,
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecar search, one request less per file over HTTP
    "GDAL_HTTP_MAX_RETRY": 0,  # ours ask the server what is the matter and heed its Retry-After
    "GDAL_HTTP_TIMEOUT": 60,
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/",  # what failed is not remembered once the file is closed
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",  # that way, a PNG that was cut short is memory nobody has written
}


_NO_KEYS = ("AWS_SECRET_ACCESS_KEY", "InvalidCredentials", "AWS_NO_SIGN_REQUEST")


class _WithoutSecrets(logging.Filter):
    """Leaves out of GDAL's messages what addresses hold behind their path: signatures, for example."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _without_queries(record.getMessage()), ()
        return True


def _without_queries(text: str) -> str:
    """Leave out queries, also behind the last part of an address alone, which is what GDAL calls a file."""
    return without_secrets(re.sub(r"\?[^ '\"]*", "?…", text))


for _speaker in ("rasterio._env", "rasterio._err"):
    logging.getLogger(_speaker).addFilter(_WithoutSecrets())


def gdal_env(reading: ReadingParameters, **more: object) -> rasterio.Env:
    """Make GDAL's environment for files of a catalog.

    Args:
        reading: How long a server may be silent.
        more: Further options of GDAL.
    """
    return rasterio.Env(**{**GDAL_OPTIONS, "GDAL_HTTP_TIMEOUT": max(1, round(reading.timeout_s)), **more})


def open_raster(href: str, address: str, access: RemoteAccess) -> rasterio.DatasetReader:
    """Open a raster that nobody vouches for.

    Its server's redirects are checked, one driver of GDAL's hundred may read it, and it claims no size beyond bounds.
    Beside a local file, `.msk`, `.aux.xml` and a world file are read as other programs read them.

    Args:
        href: A checked href.
        address: What is opened: the href, signed where its provider asks for that, or a local copy.
        access: Where redirects may lead, and how long a server may be silent.

    Raises:
        RejectedError: "unreachable", "no_keys", "corrupt", "not_read", "bad_href" or "too_large".
    """
    if is_remote(address):
        if access.policy is not None:
            check_redirects(address, access.policy, access.reading.timeout_s)
        path = href.partition("?")[0]
        if path.lower().endswith(".vrt"):
            raise _vrt(redact(href))
        driver = "JP2OpenJPEG" if path.lower().endswith((".jp2", ".j2k")) else "GTiff"
        beside: dict[str, object] = {"GDAL_PAM_ENABLED": "NO"}
    else:
        driver = _driver(address, redact(href))
        _check_sidecars(address)
        beside = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}  # no listing, yet each sidecar is looked for by its name
    try:
        with rasterio.Env(**beside):
            source = rasterio.open(address, driver=driver, sharing=False)
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
        if not is_remote(address):
            _ = source.colorinterp  # has GDAL read what lies beside the file, and say what is wrong with it
            _check_beside(source, address)
    except RejectedError:
        source.close()
        raise
    except CPLE_BaseError as error:
        source.close()
        beside_it = f"{address}.aux.xml"
        where = f"{beside_it} cannot be used" if os.path.isfile(beside_it) else f"{redact(href)} cannot be opened"
        raise RejectedError(
            "corrupt", f"{where}: {first_line(error)}; remove it, or write the file afresh with gdal_translate"
        ) from error
    return source


@contextlib.contextmanager
def named_drivers() -> Iterator[None]:
    """Have what other packages open by `rasterio.open` meanwhile read by the same four drivers, by the first bytes.

    For readers that nobody can hand an open file: not where several threads read.

    Raises:
        RejectedError: At the opening, as `open_raster` of a local file.
    """
    anything = rasterio.open

    def by_first_bytes(file: object, mode: str = "r", *args: object, **more: object) -> object:
        if mode == "r":
            path = os.fspath(cast("str | os.PathLike[str]", file))
            more["driver"] = _driver(path, redact(path))
            _check_sidecars(path)
        source = anything(file, mode, *args, **more)
        if mode == "r":
            _check_beside(source, path)
        return source

    rasterio.open = by_first_bytes
    try:
        yield
    finally:
        rasterio.open = anything


def _driver(path: str, shown: str) -> str:
    """Tell a local file's driver by its first bytes."""
    if not os.path.isfile(path):  # a path of GDAL's own, such as /vsizip/, and a pipe that nobody writes to
        why = "it is no regular file" if os.path.exists(path) else "there is no such file"
        raise RejectedError("corrupt", f"{shown} cannot be opened: {why}")
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise RejectedError("corrupt", f"{shown} cannot be opened: {first_line(error)}") from error
    found = next((driver for driver, starts in _MAGIC.items() if start.startswith(starts)), None)
    if found is not None:
        return found
    if b"<VRTDataset" in start:
        raise _vrt(shown)
    raise RejectedError(
        "corrupt", f"{shown} cannot be opened: its first bytes are of none of {READ}, which are what is read"
    )


def _vrt(shown: str) -> RejectedError:
    return RejectedError(
        "not_read",
        f"{shown} is a VRT, which may name any file and address and is therefore not read: name the GeoTIFFs that it is"
        " made of, or write it out with gdal_translate -of COG",
    )


def _check_sidecars(path: str) -> None:
    """Reject sidecars by which GDAL would open what nobody has named, or wait for ever: it takes any driver for them.

    Raises:
        RejectedError: "not_read".
    """
    stem, ending = os.path.splitext(path)
    lower = [f"{stem}{one}" for one in (*_BESIDE, f"{ending.lower()}w", f"{ending[:2]}{ending[-1:]}w".lower())]
    upper = [f"{stem}{one[len(stem) :].upper()}" for one in lower]
    folder = [os.path.join(os.path.dirname(path), one) for one in ("METADATA.DIM", "metadata.dim", "summary.txt")]
    try:
        check_regular(Path(path), (*lower, *upper, *folder, f"{path}.aux.xml", f"{path}.aux", f"{path}.AUX"))
    except InputError as error:
        raise RejectedError("not_read", str(error)) from error
    for ending in (".msk", ".MSK", ".ovr", ".OVR"):
        beside = path + ending
        if os.path.lexists(beside) and not _begins_as_tiff(beside):
            raise RejectedError("not_read", f"{beside} is no TIFF, as the masks and overviews beside a file are")
    beside = f"{path}.aux.xml"
    if os.path.isfile(beside):
        with open(beside, "rb") as file:
            text = file.read(_MAX_SIDECAR + 1)
        if len(text) > _MAX_SIDECAR or b"OVERVIEW_FILE" in text:
            raise RejectedError("not_read", f"{beside} is too large, or names a file of overviews: remove it")
        _check_form(text, beside)


def _check_form(text: bytes, beside: str) -> None:
    """Reject metadata that were cut short: GDAL passes over them without a word. Entities are not looked up."""
    parser = expat.ParserCreate("iso-8859-1")  # any byte is a sign of it: GDAL asks for no encoding either
    parser.StartDoctypeDeclHandler = partial(_no_doctype, beside)
    try:
        parser.Parse(text.removeprefix(b"\xef\xbb\xbf").strip(), True)
    except expat.ExpatError as error:
        raise RejectedError(
            "corrupt",
            f"{beside} is no whole XML ({error}), as the metadata beside a file are: restore it, or remove it if"
            " nothing in it counts",
        ) from error


def _no_doctype(beside: str, *_: object) -> None:
    raise RejectedError("not_read", f"{beside} declares a document type, as metadata beside a file never do: remove it")


def _check_beside(source: rasterio.DatasetReader, path: str) -> None:
    """Reject what lies beside a file and GDAL passes over without a word: ground that a mask hides would count as seen.

    Raises:
        RejectedError: "corrupt" or "no_crs".
    """
    beside = next((path + ending for ending in (".msk", ".MSK") if os.path.isfile(path + ending)), None)
    if beside is not None:
        if any(_NO_MASK & set(flags) for flags in source.mask_flag_enums):
            raise RejectedError(
                "corrupt",
                f"{beside} is no mask of {os.path.basename(path)} that can be read: it is cut short, of another size"
                f" than {source.height} x {source.width} pixels, or lacks GDAL's INTERNAL_MASK_FLAGS; write it again,"
                " or remove it if nothing is hidden",
            )
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            rasterio.open(path, driver=source.driver, sharing=False) as alone,
        ):
            if not any(_NO_MASK & set(flags) for flags in alone.mask_flag_enums):
                raise RejectedError(
                    "corrupt",
                    f"{path} holds a mask and {beside} is another, which GDAL does not read: remove the one that does"
                    " not hold",
                )
    beside = f"{path}.aux.xml"
    if source.crs is None and os.path.isfile(beside) and b"<SRS" in Path(beside).read_bytes():
        raise RejectedError(
            "no_crs",
            f"{beside} states none of the coordinate reference systems that GDAL knows, and it counts before the"
            " file's own: correct it, or remove it",
        )


def sidecars(path: str) -> tuple[str, ...]:
    """Return where files may lie that decide how a local file is read: its mask, its metadata, its world file."""
    return (f"{path}.msk", f"{path}.aux.xml", f"{os.path.splitext(path)[0]}.tfw")


def _begins_as_tiff(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(4).startswith(_TIFF)


def _check_size(source: rasterio.DatasetReader, shown: str) -> None:
    """Reject a header that claims sizes beyond bounds, before anything is allocated for them, or complex numbers.

    Args:
        source: An open file, of which nothing was asked yet.
        shown: Its name for messages.

    Raises:
        RejectedError: "too_large" or "not_read".
    """
    if any(dtype.startswith("complex") for dtype in source.dtypes):
        raise RejectedError(
            "not_read",
            f"{shown} holds complex numbers, as radar before detection does: write the backscatter of it",
        )
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


def first_line(error: BaseException) -> str:
    """Return the first line of an error without queries: GDAL repeats the address it opened, signature included."""
    if error.__cause__ is not None and "See previous exception" in str(error):
        error = error.__cause__
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return _without_queries(text)[:300]
