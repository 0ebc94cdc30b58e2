"""Copies of remote files that were downloaded as a whole to be verified: their pixels are read from here.

They lie in the build's work folder until the build ends, in a bounded space: the one that was not opened for the
longest time makes room for the next. A file that does not fit is downloaded, compared and then read by ranges.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from a2mae.files import PART
from a2mae.stssd.access.storage import Folder

COPIES = "copies"
"""Folder of a build's work."""
_LOCK = ".lock"


class Copies:
    """The copies of one build; every worker on the machine (or on a shared disk) has its own, of the same folder."""

    def __init__(self, work: Folder, limit_bytes: int) -> None:
        """Begin.

        Args:
            work: The build's work folder; where it is not local, nothing is kept.
            limit_bytes: Of all copies together, those included that are still being written.
        """
        self._folder = Path(work.key(COPIES)) if work.is_local and limit_bytes else None
        self._limit = limit_bytes

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Let one worker at a time download a file; the others wait here, and find it there."""
        if self._folder is None:
            yield
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{name}{_LOCK}").open("w") as lock:
            with contextlib.suppress(OSError):  # a file system without locks: it is downloaded twice, perhaps
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def path(self, name: str) -> str | None:
        """Where the copy of a file lies; None where there is none."""
        if self._folder is None:
            return None
        path = self._folder / name
        try:
            os.utime(path)  # in use: the last to make room
        except FileNotFoundError:
            return None
        return str(path)

    def written(self, name: str, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass a file's bytes on, and write them down as far as there is room; `keep` makes them a copy."""
        if self._folder is None:
            yield from blocks
            return
        part = self._part(name)
        part.unlink(missing_ok=True)
        fits = True
        for block in blocks:
            if fits:
                fits = self._make_room(len(block)) and _append(part, block)
                if not fits:
                    part.unlink(missing_ok=True)
            yield block

    def keep(self, name: str) -> None:
        """What was written last under this name is the whole file, and the right one."""
        if self._folder is not None:
            with contextlib.suppress(FileNotFoundError):  # it did not fit
                os.replace(self._part(name), self._folder / name)

    def drop(self, name: str) -> None:
        """What was written last under this name is of no use."""
        if self._folder is not None:
            self._part(name).unlink(missing_ok=True)

    def _part(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f".{name}.{os.getpid()}{PART}"

    def _make_room(self, size: int) -> bool:
        """Remove copies, the longest unused first, until so many bytes more are within the limit."""
        assert self._folder is not None
        found: list[tuple[int, int, Path]] = []
        for entry in os.scandir(self._folder):
            with contextlib.suppress(FileNotFoundError):  # another worker has removed it
                status = entry.stat()
                found.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        free = self._limit - size - sum(length for _, length, _ in found)
        for _, length, path in sorted(found):
            if free >= 0:
                break
            if not path.name.endswith((PART, _LOCK)):
                path.unlink(missing_ok=True)
                free += length
        return free >= 0


def _append(part: Path, block: bytes) -> bool:
    """Write on; False where the disk has no more room, which costs a copy and nothing else."""
    try:
        with part.open("ab") as file:
            file.write(block)
    except OSError:
        return False
    return True
