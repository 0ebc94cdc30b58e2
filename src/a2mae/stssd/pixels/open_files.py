"""Files that stay open from one piece of a build to the next: neighbouring pieces read the same blocks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from a2mae.stssd.access.checksums import Verifier
from a2mae.stssd.access.remote import RemoteAccess
from a2mae.stssd.access.storage import Folder
from a2mae.stssd.pixels.rasters import RasterReader


class _Kept(threading.local):
    """One reader per thread: GDAL's handles belong to the thread that uses them."""

    build: str = ""
    reader: RasterReader | None = None


_kept = _Kept()


@contextlib.contextmanager
def kept_reader(build: str, *, work: str, access: RemoteAccess) -> Iterator[RasterReader]:
    """The reader that earlier pieces of the same build in this thread have used, or a new one.

    Args:
        build: Names one run of one build; files of any other run are closed, so that a rerun sees them as they are now.
        work: The build's work folder, which remembers what files were verified.
        access: How files are reached; what an earlier piece has given up is tried again.
    """
    if _kept.build != build or _kept.reader is None:
        close_kept()
        _kept.build = build
        _kept.reader = RasterReader(access=access, verifier=Verifier(Folder(work), access))
    with _kept.reader.in_use() as reader:
        yield reader


def close_kept() -> None:
    """Close this thread's files: at the end of a build in the process that ran it."""
    if _kept.reader is not None:
        _kept.reader.close()
    _kept.build, _kept.reader = "", None
