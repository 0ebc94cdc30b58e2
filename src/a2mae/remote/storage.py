"""Read and write whole files of a store at a local path or a remote URL, and name what may be wrong with it.

Needs fsspec and Zarr's storage classes only: the training step runs on machines that have little else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import fsspec

from a2mae.errors import A2maeError
from a2mae.files import json_text, write_bytes

if TYPE_CHECKING:
    from zarr.abc.store import Store

logger = logging.getLogger(__name__)

MEND = "run it again, it makes what is torn anew and keeps the rest: kedro run --pipelines=coregister"
"""What helps where a store is torn: the end of a sentence."""
StorageOptions = Mapping[str, object]


class StoreError(A2maeError, RuntimeError):
    """The store cannot be used as it is; the message says why and what to do."""


class StoreMissingError(StoreError):
    """There is no store at this address."""


class StoreTornError(StoreError):
    """The store's build did not finish, or shards are missing or damaged."""


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

    def read_json(self, name: str) -> Any:  # noqa: ANN401 (whatever JSON holds)
        """Read a JSON file; None where there is none.

        Raises:
            StoreTornError: If it is not JSON, as after a power cut.
        """
        data = self.read(name)
        try:
            return None if data is None else json.loads(data)
        except ValueError as error:
            raise StoreTornError(f"{self.key(name)} is torn: it is not JSON ({error}); {MEND}") from error

    def write(self, name: str, data: bytes) -> None:
        """Replace a file as a whole: readers see the old or the new bytes, never a part."""
        if not self.is_local:
            self.fs.pipe_file(self.key(name), data)
            return
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

    A part is a file, written whole, whose first line is the fingerprint of what it was made of and the digest of what
    follows. It may lie where the result lies, also on `s3://`, and be written by any worker.
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
            Its content; None where there is none, or one that is no longer valid. One that is not as it was written is
            named in the log.
        """
        data = self.folder.read(key)
        if data is None:
            return None
        head, _, content = data.partition(b"\n")
        made_of, known, digest = head.rpartition(b" ")
        if head and not known:
            return None  # of an earlier version, without a digest
        if digest.decode(errors="replace") != hashlib.sha256(content).hexdigest():
            logger.warning("%s is not what was written: it is made again", self.folder.key(key))
            return None
        return content if of_any or made_of.decode() == self.fingerprint else None

    def keys(self) -> set[str]:
        """List the parts that there are, also those that are no longer valid."""
        return set(self.folder.sizes())

    def put(self, key: str, content: bytes) -> None:
        """Keep a part; an older one of this key goes."""
        digest = hashlib.sha256(content).hexdigest()
        self.folder.write(key, f"{self.fingerprint} {digest}\n".encode() + content)

    def clear(self) -> None:
        """Remove every part."""
        self.folder.remove("")
