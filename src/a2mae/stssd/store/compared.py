"""Remember which shard files were compared with their digests, so that no later epoch or process reads them for that.

A file is known again by size, inode and the two times at which its bytes and its entry last changed: whatever is
written through the file system changes one of them, and the file is compared again. What changes without its knowing (a
rotting disk) is found by `ImageSetStore.verify` and when a build goes on; both read every byte.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

logger = logging.getLogger(__name__)

_SETTLED_NS = 2_000_000_000
"""A file that changed since may change again within one tick of the file system's clock: it is not remembered yet."""


class Compared:
    """The record of one store: a line per file, appended by any process; a torn line is no line."""

    def __init__(self, path: Path) -> None:
        """Read the record.

        Args:
            path: Of the record; a missing one is empty, and is made with the first file.
        """
        self._path, self._usable, self._lines = path, True, set[bytes]()
        try:
            self._lines.update(path.read_bytes().split(b"\n"))
        except FileNotFoundError:
            return
        except OSError as error:
            self._give_up(error)

    def knows(self, digest: int | str, state: os.stat_result) -> bool:
        """Tell whether a file was compared with this digest, and has not changed since.

        Args:
            digest: What its bytes should have.
            state: Of the open file.
        """
        return _line(digest, state) in self._lines

    def add(self, digest: int | str, state: os.stat_result) -> None:
        """Keep that a file was found to be as written; where nothing can be kept, the log says so once.

        Args:
            digest: What its bytes have.
            state: Of the open file before it was read.
        """
        if not self._usable or time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) < _SETTLED_NS:
            return
        line = _line(digest, state)
        self._lines.add(line)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, b"\n" + line + b"\n")  # at once: processes do not mix
            finally:
                os.close(descriptor)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._usable = False
        logger.info("%s cannot be used (%s): every process compares the shards again", self._path, error)


def _line(digest: int | str, state: os.stat_result) -> bytes:
    seen = (digest, state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
    return " ".join(map(str, seen)).encode()
