"""Unpack the archives that providers deliver scenes in: plain files below one folder, bounded, never a link."""

from __future__ import annotations

import contextlib
import errno
import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from a2mae.errors import InputError, plural
from a2mae.files import make_folder, whole_folder

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
_PART = re.compile(r"[\w][\w.+ -]*")
_MOST_MEMBERS = 5_000
_MOST_BYTES = 50 * 2**30
_SPARE = 0.9  # of the free space
_BLOCK = 2**20
_SHOWN = 80  # signs of a name
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    UnicodeDecodeError,
)


def archives_in(folder: Path) -> list[Path]:
    """Return the archives of a folder, or the one that is named, in order."""
    if folder.is_file():
        return [folder] if folder.name.lower().endswith(ARCHIVES) else []
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name.lower().endswith(ARCHIVES))


def unpack(archives: list[Path], into: Path) -> list[str]:
    """Unpack archives, each into a folder of its name; one that is there already is kept.

    Args:
        archives: Files that end in one of `ARCHIVES`.
        into: The folder above; made if need be.

    Returns:
        A sentence per archive that says what was made, or why nothing of it was: it cannot be read, is too large, or
        names a member that is no plain file below it.

    Raises:
        InputError: If that is so of every archive.
    """
    told, failed = [], []
    make_folder(into)
    for archive in archives:
        name = archive.name.lower()
        ending = next(one for one in ARCHIVES if name.endswith(one))
        target = into / archive.name[: -len(ending)]
        if target.is_dir():
            told.append(f"{target} is there already, and is kept")
            continue
        try:
            with whole_folder(target) as partial, _told(str(archive)):
                count, size = _unpack(archive, partial, int(shutil.disk_usage(into).free * _SPARE))
        except InputError as error:
            failed.append(error)
            told.append(f"left out: {error}")
            continue
        told.append(f"unpacked {archive.name}: {plural(count, 'file')}, {size / 2**20:,.0f} MiB")
    if len(failed) == len(archives):
        raise failed[0]
    return told


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Say in a sentence why an archive, or a member of it, cannot be unpacked."""
    try:
        yield
    except _DAMAGED as error:
        raise InputError(f"{what} cannot be unpacked ({error}): fetch it again") from error
    except RuntimeError as error:  # zipfile, of a password
        raise InputError(f"{what} cannot be unpacked ({error}): unpack it by hand") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{what} cannot be unpacked ({error.strerror}): unpack it by hand, renamed") from error
        if error.errno is not None:  # of the disk
            raise
        raise InputError(f"{what} cannot be unpacked ({error}): fetch it again") from error


def _unpack(archive: Path, target: Path, free: int) -> tuple[int, int]:
    most, count, size = min(_MOST_BYTES, free), 0, 0
    seen: set[Path] = set()
    target.mkdir()
    for name, stream in _members(archive):
        with _told(f"{archive}, {name[:_SHOWN]!r},"), stream:
            parts = name.split("/")
            if not all(_PART.fullmatch(part) for part in parts):
                raise InputError(f"{archive} holds {name!r}, which is no plain path below it: it is not unpacked")
            path = target.joinpath(*parts)
            if path.exists() or seen & {path, *path.parents}:
                raise InputError(f"{archive} holds {name!r} twice, or below a file: it is not unpacked")
            seen.add(path)
            make_folder(path.parent)
            count += 1
            if count > _MOST_MEMBERS:
                raise InputError(f"{archive} holds more than {_MOST_MEMBERS:,} files: unpack it by hand")
            with path.open("xb") as out:
                while block := stream.read(_BLOCK):
                    size += len(block)
                    if size > most:
                        raise InputError(f"{archive} holds more than {most / 2**30:,.1f} GiB: unpack it by hand")
                    out.write(block)
    return count, size


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the path and the open content of each file."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            for one in packed.infolist():
                if (one.external_attr >> 16) & 0o170000 == 0o120000:
                    raise InputError(f"{archive} holds a link, {one.filename!r}: it is not unpacked")
                if not one.filename.endswith("/"):  # `is_dir` fails of a name that begins with a zero
                    with _told(f"{archive}, {one.filename[:_SHOWN]!r},"):
                        content = packed.open(one)
                    yield one.filename, content
        return
    with tarfile.open(archive) as bundle:
        for member in bundle:
            if member.isdir():
                continue
            stream = bundle.extractfile(member) if member.isreg() else None
            if stream is None:
                raise InputError(f"{archive} holds {member.name!r}, which is no file (a link?): it is not unpacked")
            yield member.name.removeprefix("./"), stream
