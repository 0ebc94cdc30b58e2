"""What stands for the pixels of a source file in a build's fingerprint."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

_BLOCK = 16 * 2**10
_BLOCKS = 64


def source_digest(href: str) -> str:
    """A digest of a local file's size and content; empty for addresses and for files that are not there.

    Files up to 1 MiB are read whole, of larger ones 64 blocks of 16 KiB spread from the first byte to the last. So
    a scene that was processed again is noticed even at the same size: of a compressed file all blocks behind the first
    changed one move, and its table of blocks changes. The time of modification is not part of it, because it
    differs between copies of the same data, and stores of the same data have the same bytes everywhere.
    """
    try:
        status = os.stat(href)
    except OSError:
        return ""
    return _digest(href, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _digest(path: str, size: int, _modified: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with Path(path).open("rb") as file:
        if size <= _BLOCK * _BLOCKS:
            digest.update(file.read())
        else:
            for k in range(_BLOCKS):
                file.seek((size - _BLOCK) * k // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()
