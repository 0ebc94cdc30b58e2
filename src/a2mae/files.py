"""Files and folders that appear whole or not at all, with the access that the user's umask gives; a file's SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
"""Ending of files that are still being written."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name to write to; the file takes its own name only when all went well.

    Its access is that of a file which the user makes (0o666 less the umask), also where a library writes through a
    private file of its own, as safetensors does.

    Args:
        path: The file; folders are made, an older file stays until the new one is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    temporary.unlink(missing_ok=True)
    temporary.touch()
    access = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(access)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, flush: bool = False) -> Iterator[Path]:
    """Give a folder's place to fill; it takes its own name, and the older one's place, only when all went well.

    The older one is moved away before it is deleted, so that at no time half of one stands in the place.

    Args:
        path: The folder; those above it are made. What a killed run leaves beside it, the next one clears.
        flush: Wait until the disk has every byte before the folder takes its name: what a power cut leaves is whole.
    """
    partial, older = (path.with_name(f".{path.name}.{ending}") for ending in ("partial", "older"))
    path.parent.mkdir(parents=True, exist_ok=True)
    _bring_back(older, path)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        if flush:
            for written in (*partial.rglob("*"), partial):
                _flush(written)
        if path.exists():
            os.replace(path, older)
        os.replace(partial, path)
        if flush:
            _flush(path.parent)
    finally:
        _bring_back(older, path)
        shutil.rmtree(partial, ignore_errors=True)


def _flush(path: Path) -> None:
    """Make sure that a file's or folder's content has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bring_back(older: Path, path: Path) -> None:
    """Where nothing has taken its place, what was moved away returns; else it goes."""
    if older.exists() and not path.exists():
        os.replace(older, path)
    shutil.rmtree(older, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def json_text(content: object, *, allow_nan: bool = False) -> str:
    """JSON with sorted keys: one content, one text.

    Raises:
        ValueError: If there is a number in it that JSON does not know.
    """
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=allow_nan) + "\n"


def write_json(path: Path, content: object) -> None:
    """Replace a JSON file as a whole by `json_text`.

    Raises:
        ValueError: If there is a number in it that JSON does not know.
    """
    write_bytes(path, json_text(content).encode())


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
