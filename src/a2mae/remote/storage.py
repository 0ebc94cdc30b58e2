"""Read and write whole files of a store at a local path or a remote URL, and name what may be wrong with it.

Needs fsspec and Zarr's storage classes only: the training step runs on machines that have little else.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import fsspec

from a2mae.errors import A2maeError
from a2mae.files import json_text, write_bytes

if TYPE_CHECKING:
    from zarr.abc.store import Store

StorageOptions = Mapping[str, object]


class StoreError(A2maeError, RuntimeError):
    """The store cannot be used as it is; the message says why and what to do."""


class StoreMissingError(StoreError):
    """There is no store at this address."""


class StoreTornError(StoreError):
    """The store's build did not finish, or shards are missing or damaged."""


class StoreFullError(StoreError):
    """There is no space to write to."""


class StoreVersionError(StoreError):
    """The store was written in a format that this code does not read."""


class Folder:
    """Small files at a local path or a remote URL, whole objects only, replaced atomically.

    Attributes:
        url: Where the folder is.
    """

    def __init__(self, url: str, storage_options: StorageOptions | None = None) -> None:
        self.url = str(url).rstrip("/")
        self._options = dict(storage_options or {})
        self.fs, self.path = fsspec.core.url_to_fs(self.url, **self._options)
        self.is_local: bool = "file" in (
            self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)
        )

    def key(self, name: str) -> str:
        """The file system's own path of a file below the folder."""
        return f"{self.path}/{name}"

    def read(self, name: str) -> bytes | None:
        """Read a file; None where there is none."""
        try:
            return cast(bytes, self.fs.cat_file(self.key(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Replace a file as a whole: readers see the old or the new bytes, never a part."""
        if not self.is_local:
            self.fs.pipe_file(self.key(name), data)
            return
        with telling_full_disk(self.url):
            write_bytes(Path(self.key(name)), data)

    def write_json(self, name: str, data: Mapping[str, object]) -> None:
        """Replace a JSON file by `json_text`."""
        self.write(name, json_text(data).encode())

    def sizes(self) -> dict[str, int]:
        """List every file below the folder, relative to it, with its size in bytes."""
        self.fs.invalidate_cache()
        found = self.fs.find(self.path, detail=True)
        return {str(key)[len(self.path) + 1 :]: int(info["size"]) for key, info in found.items()}

    def remove(self, name: str) -> None:
        """Remove a file or everything below a sub-folder; absent is fine."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(self.key(name), recursive=True)

    def zarr_store(self, *, read_only: bool) -> Store:
        """The same folder as Zarr sees it."""
        from zarr.storage import FsspecStore, LocalStore  # noqa: PLC0415 (heavy; parameters of stages import this module)

        if self.is_local:
            return LocalStore(self.path, read_only=read_only)
        return FsspecStore.from_url(self.url, storage_options=self._options or None, read_only=read_only)


class Parts:
    """Finished parts of a piece of work: what was stopped goes on where it stopped.

    A part is a file, written whole, whose first line is the fingerprint of what it was made of. It may lie where the
    result lies, also on `s3://`, and be written by any worker.
    """

    def __init__(self, folder: Folder, fingerprint: str) -> None:
        """Open a folder of parts.

        Args:
            folder: Holds nothing else; made with the first part.
            fingerprint: Of everything that the parts are made of besides what their keys say.
        """
        self.folder, self.fingerprint = folder, fingerprint

    def get(self, key: str, *, of_any: bool = False) -> bytes | None:
        """Read a part.

        Args:
            key: Its file's name.
            of_any: Also one that was made of something else.

        Returns:
            Its content; None where there is none, or one that is no longer valid.
        """
        made_of, _, content = (self.folder.read(key) or b"").partition(b"\n")
        return content if made_of and (of_any or made_of.decode() == self.fingerprint) else None

    def keys(self) -> set[str]:
        """List the parts that there are, also those that are no longer valid."""
        return set(self.folder.sizes())

    def put(self, key: str, content: bytes) -> None:
        """Keep a part; an older one of this key goes."""
        self.folder.write(key, self.fingerprint.encode() + b"\n" + content)

    def clear(self) -> None:
        """Remove every part."""
        self.folder.remove("")


@contextlib.contextmanager
def telling_full_disk(url: str) -> Iterator[None]:
    """Turn the operating system's "no space" into an error that says what to do.

    Raises:
        StoreFullError: If what is done inside finds no space.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise StoreFullError(
            f"no space left for {url} ({error.strerror}): make room and run the same command again;"
            " what is written is kept"
        ) from error
