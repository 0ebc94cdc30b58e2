"""Write files and folders that appear whole or not at all, also after a power cut; the same content, the same bytes.

They have the access that the user's umask gives.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from a2mae.errors import A2maeError, InputError, names_nothing

PART = ".part"
"""Ending of files that are still being written."""


class WriteError(A2maeError, OSError):
    """A file or folder cannot be written: the disk is full, or this user may not."""


@contextmanager
def telling_where(path: Path, *kinds: type[Exception], doing: str = "write") -> Iterator[None]:
    """Turn what the operating system or a library says of a write that failed into one sentence with its place.

    Args:
        path: What is written.
        doing: What failed, if it is not known to be a write.
        kinds: What the library raises that writes, where that is no `OSError` with a number.

    Raises:
        WriteError: If what is done inside finds no space or may not write.
    """
    failed: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except failed as error:
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, WriteError) or not (number in _ADVICE or isinstance(error, kinds)):
            raise
        # Arrow's own words hold the name of the file being written.
        said, advice = (os.strerror(number), _ADVICE[number]) if number in _ADVICE else (str(error), _ROOM)
        raise WriteError(
            f"cannot {doing} {path}: {said}; {advice} and run the same command again: what is finished is kept"
        ) from error


_ROOM, _ACCESS = "make room there, or set another data_root", "change its access, or set another data_root"
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EIO: "look at the disk",
    errno.EROFS: _ACCESS,
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.ENOTDIR: "move the file that stands in a folder's place",
}


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name to write to; the file takes its own name only when all went well.

    Its access is that of a file which the user makes (0o666 less the umask), also where a library writes through a
    private file of its own, as safetensors does.

    Args:
        path: The file; folders are made, an older file stays until the new one is whole.

    Raises:
        WriteError: If there is no space or no access.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        with telling_where(path):
            make_folder(path.parent)
            temporary.unlink(missing_ok=True)
            temporary.touch()
            access = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            temporary.chmod(access)
            flush(temporary)
            os.replace(temporary, path)
            flush(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder's place to fill; it takes its own name, and the older one's place, only when all went well.

    The older one is moved away before it is deleted, so that at no time half of one stands in the place.

    Args:
        path: The folder; those above it are made. What a killed run leaves beside it, the next one clears.

    Raises:
        WriteError: If there is no space or no access.
    """
    partial, older = (path.with_name(f".{path.name}.{ending}") for ending in (_PARTIAL, _OLDER))
    with telling_where(path):
        make_folder(path.parent)
        _bring_back(older, path)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            yield partial
            for written in (*partial.rglob("*"), partial):
                flush(written)
            if path.exists():
                os.replace(path, older)
            os.replace(partial, path)
            flush(path.parent)
        finally:
            _bring_back(older, path)
            shutil.rmtree(partial, ignore_errors=True)


_PARTIAL, _OLDER = "partial", "older"


def make_folder(path: Path) -> None:
    """Make a folder and those above it, so that a power cut does not lose them."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        flush(folder.parent)


def flush(path: Path) -> None:
    """Wait until a file's or folder's content has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_leftovers(path: Path) -> None:
    """Remove what killed writers have left of a file or a folder, and inside of it.

    Nobody else may be writing there. A folder that was being replaced when its writer was killed returns.

    Args:
        path: What they wrote; nothing need be there.
    """
    if path.parent.is_dir():
        _bring_back(path.with_name(f".{path.name}.{_OLDER}"), path)
        shutil.rmtree(path.with_name(f".{path.name}.{_PARTIAL}"), ignore_errors=True)
    beside = path.parent.glob(f".{escape(path.name)}.*{PART}")
    for left in (*beside, *path.rglob(f".*{PART}")):
        left.unlink(missing_ok=True)


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
    """Format JSON with sorted keys: one content, one text.

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


def check_regular(path: Path, beside: Iterable[str | Path] = ()) -> None:
    """Refuse a pipe, a socket or a device under the name of a file: reading it would wait for ever.

    Args:
        path: The file.
        beside: Of others that a library reads along with it.

    Raises:
        InputError: If the file's name is no text, which no library opens, or one beside it is one of these.
        OSError: If the file is one of these.
    """
    if why := names_nothing(str(path)):
        raise InputError(f"{str(path)!a} {why}")
    if _waits(path):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    for other in filter(_waits, map(Path, beside)):
        raise InputError(
            f"{other} is read along with {path.name}, and it is no regular file but a pipe, a socket or a device: move"
            " it away, or write it anew"
        )


def _waits(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write an `.npz` that `np.load(allow_pickle=False)` reads; unlike NumPy's own, it holds no time of writing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())
    write_bytes(path, buffer.getvalue())


def is_inside(path: Path, root: Path) -> bool:
    """Whether no link leads from a path out of a folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def digest_of(content: object) -> str:
    """Return the SHA-256 of a JSON value in its one canonical form."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(utf8(text)).hexdigest()


def utf8(text: str) -> bytes:
    """Encode a text that may hold names of files: bytes of one that are no UTF-8 are written as JSON escapes them."""
    return text.encode("utf-8", "backslashreplace")
