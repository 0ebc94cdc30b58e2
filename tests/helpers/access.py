"""Act as somebody who may not read everything: root may, and tests run as root in places."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NOBODY = 65534


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """A new folder that every user may enter; it is removed at the end."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(folder)


@contextlib.contextmanager
def as_anybody() -> Iterator[None]:
    """Read files as a user without rights of its own, also where the test is run by root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
