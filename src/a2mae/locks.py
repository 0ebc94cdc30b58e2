"""One run at a time in a folder: a lock that says who holds it since when, and that ends with its process."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from a2mae.errors import A2maeError
from a2mae.files import make_folder, telling_where

logger = logging.getLogger(__name__)

LOCK = ".a2mae.lock"
"""Name of the file, below the folder; gone when nobody works there."""


class LockedError(A2maeError, RuntimeError):
    """Another run works in the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work in a folder alone.

    The operating system ends the lock with the process that holds it: what a killed run has left is recognised.

    Args:
        folder: Made if absent.

    Raises:
        LockedError: If another run works there; the message says which one, since when.
    """
    path = folder / LOCK
    with telling_where(path):
        make_folder(folder)
        file = _opened(path)
    with file:
        try:
            if before := _owner(file):
                logger.info("%s: the run of %s was killed: going on from what it has finished", folder, before)
            file.seek(0)
            file.truncate()
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
            file.flush()
            yield
        finally:
            path.unlink(missing_ok=True)


def _opened(path: Path) -> IO[str]:
    """Open the file of a lock and take the lock."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _owner(file) or "another process"
            file.close()
            raise LockedError(
                f"another run works in {path.parent} ({owner}): two would write the same files. Wait until it has"
                " ended, or set another data_root"
            ) from error
        except OSError as error:
            logger.warning("%s: this file system has no locks (%s): start no second run there", path, error.strerror)
            return file
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass  # whoever held it removed it between our two looks
        file.close()


def _owner(file: IO[str]) -> str:
    """Say who wrote a lock; empty for a new one."""
    file.seek(0)
    text = file.read()
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return text and "a process that was killed at once"
