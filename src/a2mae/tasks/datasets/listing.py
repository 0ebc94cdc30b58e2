"""List the files of a folder of data: hidden ones are none of it, links out of it are refused, what is left is told."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from a2mae.files import is_inside
from a2mae.tasks.datasets.formats import IMAGE_SUFFIXES
from a2mae.tasks.datasets.labelled import Reading
from a2mae.tasks.datasets.task_data import TaskDataError

_NOT_READ = (".bmp", ".gif", ".heic", ".hdr", ".img", ".jfif", ".jpe", ".nc", ".npy", ".vrt", ".webp")
"""Endings of pictures that are not read."""


def is_hidden(name: str) -> bool:
    """Whether a name is of no data: hidden, or what macOS leaves in archives and on foreign disks."""
    return name.startswith(".") or name == "__MACOSX"


def files_in(folder: Path, root: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the files of a folder that have one of some endings, in order, without hidden ones.

    Args:
        folder: Whose files.
        root: Of the data set, which none of them may lie outside of.
        suffixes: Endings in small letters, with a dot.

    Raises:
        TaskDataError: If the folder or a file is a link out of the root.
    """
    check_inside(folder, root)
    found = []
    for entry in os.scandir(folder):
        if is_hidden(entry.name) or Path(entry.name).suffix.lower() not in suffixes or _is_folder(entry):
            continue
        path = folder / entry.name
        if entry.is_symlink():
            check_inside(path, root)
        found.append(path)
    return sorted(found)


def folders_in(folder: Path, root: Path | None) -> list[str]:
    """Name the folders in a folder, in order, without hidden ones.

    Args:
        folder: Whose folders.
        root: Of the data set; None: links out of it are not looked for.

    Raises:
        TaskDataError: If one is a link out of the root.
    """
    found = []
    for entry in os.scandir(folder):
        if is_hidden(entry.name) or not _is_folder(entry):
            continue
        if root is not None and entry.is_symlink():
            check_inside(folder / entry.name, root)
        found.append(entry.name)
    return sorted(found)


def pictures_below(root: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Iterator[Path]:
    """Yield the pictures of a folder and of those in it, in order; links to folders are not followed."""
    for above, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(above, name) for name in sorted(names) if _is_picture(name, suffixes))


def check_links(root: Path) -> None:
    """Refuse a folder in which a link leads out of it, where others than this program list its files.

    Args:
        root: Of the data set.

    Raises:
        TaskDataError: If one does.
    """
    for above, folders, _ in os.walk(root):
        folders.sort()
        for entry in os.scandir(above):
            if entry.is_symlink():
                check_inside(Path(entry.path), root)


def note_left_out(folder: Path, read: Iterable[Path], reading: Reading) -> None:
    """Note the pictures of a data set of which no sample is made.

    Args:
        folder: The data set's.
        read: Files that samples are made of.
        reading: Takes the notes.
    """
    known = {os.path.relpath(path, folder) for path in read}
    for path in pictures_below(folder, (*IMAGE_SUFFIXES, *_NOT_READ)):
        name = os.path.relpath(path, folder)
        if name not in known:
            kind = "of a kind that is not read" if path.suffix.lower() in _NOT_READ else "where none are read"
            reading.note(f"pictures {kind}, left out", name)


def check_inside(path: Path, root: Path) -> None:
    """Refuse a link that leads out of a folder.

    Args:
        path: Whose links are followed.
        root: Of the data set.

    Raises:
        TaskDataError: If one does.
    """
    if not is_inside(path, root):
        raise TaskDataError(
            f"{path} is a link out of {root}, to {os.path.realpath(path)}: files outside of a data set are not read;"
            " copy them into it"
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _is_picture(name: str, suffixes: Sequence[str]) -> bool:
    return not is_hidden(name) and Path(name).suffix.lower() in suffixes
