"""Look into a folder within bounds: which files there are, what some say of themselves, a few of their values."""

from __future__ import annotations

import itertools
import math
import os
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from a2mae.errors import InputError, RejectedError, plain_text, plural
from a2mae.raster.files import unseen_numbers
from a2mae.raster.header import RasterHeader, read_headers
from a2mae.raster.opening import first_line, gdal_env, open_raster
from a2mae.remote.policy import HrefPolicy, RemoteAccess
from a2mae.scenes import RejectedScene
from a2mae.stssd.ingest.checks import Found
from a2mae.stssd.ingest.folder_files import walk

MOST_LISTED = 200_000
"""Files whose names are read; a folder with more is looked at in part, and that is said."""
MOST_OPENED = 300
"""Files that are looked into, over all products."""
RASTERS = (".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg")
"""Endings of files that may be scenes."""
_WHOLE_PX = 4_000_000  # of a band: read at once, larger ones in windows
_WINDOW_PX, _WINDOWS = 192, 3
_MOST_DISTINCT = 40
T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes:
        root: The folder.
        names: Paths below it, in order.
        notes: What could not be listed, and why.
    """

    root: Path
    names: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Values:
    """Some of a band's seen values.

    Attributes:
        low: Smallest.
        dark: 1st percentile.
        median: Their median.
        bright: 99th percentile.
        high: Largest.
        distinct: All whole numbers that occur, if they are few.
    """

    low: float
    dark: float
    median: float
    bright: float
    high: float
    distinct: tuple[int, ...]


@dataclass(frozen=True)
class Glimpse:
    """A file that was looked into.

    Attributes:
        path: Below the folder.
        header: What it says of itself.
        bands: Some values of each band; None where all are nodata.
        fill: The number that every band holds in more than a hundredth of the sample, undeclared; None without.
        tags: Of the file.
    """

    path: str
    header: RasterHeader
    bands: tuple[Values | None, ...]
    fill: float | None
    tags: Mapping[str, str]

    @property
    def is_integer(self) -> bool:
        """Whether whole numbers are stored."""
        return not self.header.is_float

    def spread(self, places: Iterable[int] | None = None) -> Values | None:
        """Return the values over several bands: smallest dark, largest bright, middle median; None without any.

        Args:
            places: Of the bands, from 0; None: all of them.
        """
        chosen = self.bands if places is None else [self.bands[place] for place in places]
        found = [values for values in chosen if values is not None]
        if not found:
            return None
        return Values(
            min(v.low for v in found),
            min(v.dark for v in found),
            float(np.median([v.median for v in found])),
            max(v.bright for v in found),
            max(v.high for v in found),
            (),
        )


def list_folder(root: Path) -> Listing:
    """List the files below a folder.

    Raises:
        InputError: If it is no folder, may not be read, or holds no file.
    """
    try:
        is_file, is_folder = root.is_file(), root.is_dir()
        if is_folder:
            next(os.scandir(root), None)
    except OSError as error:
        raise InputError(f"{root} cannot be read ({error.strerror}): change its access") from error
    if is_file:
        packed = zipfile.is_zipfile(root) or root.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
        how = "add --unpack, or name the folder that comes out" if packed else "name the folder that it lies in"
        raise InputError(f"{root} is a file, and a folder of scenes is looked at: {how}")
    if not is_folder:
        raise InputError(f"{root} is not there: name a folder of scenes")
    found = Found()
    policy = HrefPolicy(frozenset({"file"}), (root,))
    names = list(itertools.islice(walk(root, policy, found), MOST_LISTED + 1))
    names = [name for name in names if not _leads_out(root, name, policy, found)]
    notes = _unlisted(found.rejected)
    if not names and notes:
        raise InputError(f"{root}: nothing in it can be used: {notes[0]}")
    if len(names) > MOST_LISTED:
        notes.append(
            f"the folder holds more than {plural(MOST_LISTED, 'file')}: only so many names were read, the rules are"
            " made for all"
        )
    if not names:
        raise InputError(f"{root} holds no file: name a folder of scenes")
    archives = [name for name in names if name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz", ".7z"))]
    if archives:
        notes.append(
            f"{plural(len(archives), 'archive is', 'archives are')} not looked into, the first {archives[0]}:"
            " --unpack uses what is in them"
        )
    return Listing(root, tuple(sorted(names[:MOST_LISTED])), tuple(notes))


def _leads_out(root: Path, name: str, policy: HrefPolicy, found: Found) -> bool:
    """Whether a file is a link out of the folder, which ingest does not open; it is added to `found`."""
    path = root / name
    if not path.is_symlink():
        return False
    try:
        policy.check_path(path)
    except RejectedError as rejection:
        detail = f"a link out of the folder, to {path.resolve()}, which is not followed: name that folder, or copy it"
        found.rejected.append(RejectedScene(name, rejection.reason, detail))
        return True
    return False


def _unlisted(rejected: Sequence[RejectedScene]) -> list[str]:
    """A line for each reason that something below a folder is not listed, with how many and the first of them."""
    reasons: dict[str, list[RejectedScene]] = defaultdict(list)
    for one in rejected:
        reasons[one.reason].append(one)
    return [
        f"{f'{len(ones)} times, first ' if ones[1:] else ''}{ones[0].scene_id}: {ones[0].detail}"
        for ones in reasons.values()
    ]


def spread_over(names: Sequence[T], most: int) -> list[T]:
    """Choose some of many, from the first to the last."""
    if len(names) <= most:
        return list(names)
    return [names[round(k * (len(names) - 1) / (most - 1))] for k in range(most)] if most > 1 else [names[0]]


def look_into(root: Path, names: Sequence[str]) -> tuple[dict[str, Glimpse], dict[str, str]]:
    """Open files and read some of their values.

    Args:
        root: The folder.
        names: Paths below it.

    Returns:
        What was seen, by path; and why a file could not be read, by path.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # told for each such file, as why it cannot be used
        headers = read_headers([str(root / name) for name in names])
    why: dict[str, str] = {}
    whole: list[tuple[str, RasterHeader]] = []
    for name in names:
        found = headers[str(root / name)]
        if isinstance(found, RasterHeader):
            whole.append((name, found))
        else:
            why[name] = found.detail.removeprefix(plain_text(f"{root / name} "))
    with ThreadPoolExecutor(max_workers=4) as pool:
        glimpses = pool.map(lambda one: _glimpse(root, *one), whole)
        seen: dict[str, Glimpse] = {}
        for (name, _), glimpse in zip(whole, glimpses, strict=True):
            if isinstance(glimpse, Glimpse):
                seen[name] = glimpse
            else:
                why[name] = glimpse
    return seen, why


def _glimpse(root: Path, name: str, header: RasterHeader) -> Glimpse | str:
    access = RemoteAccess()
    try:
        with gdal_env(access.reading), open_raster(str(root / name), str(root / name), access) as source:
            stored = _sample(source)
            tags = {key: str(value)[:200] for key, value in source.tags().items()}
    except RejectedError as error:
        return error.detail
    except RasterioError as error:
        return f"its pixels cannot be read: {first_line(error)}"
    bands, unseen = [], []
    for values, nodata in zip(stored, header.nodata, strict=True):
        hidden = unseen_numbers(values, nodata)
        seen = values if hidden is None else values[~hidden]
        unseen.append(np.zeros(values.shape, bool) if hidden is None else hidden)
        bands.append(_values(seen) if seen.size else None)
    return Glimpse(name, header, tuple(bands), _fill(stored, np.logical_or.reduce(unseen)), tags)


def _sample(source: DatasetReader) -> NDArray[np.generic]:
    """Pixels `(C, N)`: all of a small file, of a large one windows from all over it."""
    if source.height * source.width <= _WHOLE_PX:
        return np.asarray(source.read()).reshape(source.count, -1)
    side = min(_WINDOW_PX, source.height, source.width)
    rows, columns = (np.linspace(0, size - side, _WINDOWS).astype(int) for size in source.shape)
    parts = [source.read(window=Window(c, r, side, side)).reshape(source.count, -1) for r in rows for c in columns]
    return np.concatenate(parts, axis=1)


def _values(seen: NDArray[np.generic]) -> Values:
    low, dark, median, bright, high = (float(v) for v in np.percentile(seen.astype(np.float64), (0, 1, 50, 99, 100)))
    distinct: tuple[int, ...] = ()
    if seen.dtype.kind in "iu":
        found = np.unique(seen)
        distinct = tuple(int(v) for v in found) if len(found) <= _MOST_DISTINCT else ()
    return Values(low, dark, median, bright, high, distinct)


def _fill(stored: NDArray[np.generic], unseen: NDArray[np.bool_]) -> float | None:
    """The number, 0 or the type's largest, that all bands hold where it is too often to be ground."""
    if stored.dtype.kind not in "iu" or len(stored) < 2 or unseen.all():
        return None
    for number in (0, int(np.iinfo(stored.dtype.name).max)):
        share = float((stored[:, ~unseen] == number).all(axis=0).mean())
        if share > 0.01 and math.isfinite(share):
            return float(number)
    return None
