"""The ledger of a store that is being built: one entry per written shard, made into the manifest at the end.

An entry has the digests of the shard's files, a note, and the fingerprint of what the shard was made of. A store that
is built again from other scenes or parameters keeps the shards whose fingerprints are the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from a2mae.files import json_text
from a2mae.remote.storage import Folder, Parts, StorageOptions, StoreTornError
from a2mae.stssd.store.store import FORMAT_VERSION, MANIFEST, beside

logger = logging.getLogger(__name__)

_LEDGER = "ledger"


@dataclass(frozen=True, order=True)
class Shard:
    """Rows `start` to `stop` (exclusive) of one sensor.

    Attributes:
        sensor: Sensor id.
        index: Number of the shard along the image axis.
        start: First row.
        stop: One past the last row.
    """

    sensor: str
    index: int
    start: int
    stop: int

    @property
    def keys(self) -> tuple[str, str]:
        """Its files below the store, pixels and mask."""
        return f"{self.sensor}/pixels/c/{self.index}/0/0/0", f"{self.sensor}/valid/c/{self.index}/0/0"

    @property
    def name(self) -> str:
        """Name of its entry in the ledger."""
        return f"{_LEDGER}/{self.sensor}/{self.index:06d}.json"


@dataclass(frozen=True)
class Entry:
    """What is known of a written shard.

    Attributes:
        files: Its files by key, each with `sha256` and `bytes`; none if every row is empty.
        note: Facts about its rows.
        fingerprint: Of what it was made of; empty if that is not known.
        sums: CRC-32C of its files by key; none where it was taken back out of a manifest.
    """

    files: Mapping[str, Mapping[str, object]]
    note: Mapping[str, Any]
    fingerprint: str
    sums: Mapping[str, int] = field(default_factory=dict)


class Ledger:
    """The entries of one store."""

    def __init__(self, folder: Folder) -> None:
        """Use the ledger of the store in a folder."""
        self._folder, self._parts = folder, Parts(folder, "")

    def names(self) -> set[str]:
        """List the names of all entries (`Shard.name`)."""
        return {name for name in self._folder.sizes() if self.has(name)}

    @staticmethod
    def has(name: str) -> bool:
        """Tell whether a file of the store belongs to its ledger."""
        return name.startswith(f"{_LEDGER}/")

    def write(self, shard: Shard, entry: Entry) -> None:
        """Write the entry of a shard."""
        self._parts.put(shard.name, json_text(asdict(entry)).encode())

    def entry(self, shard: Shard) -> Entry:
        """Read the entry of a shard.

        Raises:
            StoreTornError: If there is none, or it is torn.
        """
        data = self._parts.get(shard.name)
        if data is None:
            raise StoreTornError(
                f"{self._folder.url}: the ledger entry of {shard} vanished while the store was being built"
            )
        return Entry(**json.loads(data))

    def drop_torn(self, shards: Iterable[Shard]) -> None:
        """Remove the entries that are not as they were written: their shards are written again."""
        names = self.names()
        for shard in shards:
            if shard.name in names and self._parts.get(shard.name) is None:
                self.remove(shard.name)

    def remove(self, name: str) -> None:
        """Remove the entry of a shard."""
        self._folder.remove(name)

    def clear(self) -> None:
        """Remove all entries."""
        self._folder.remove(_LEDGER)


def manifest_of(entries: Mapping[Shard, Entry], sensors: Mapping[str, object]) -> dict[str, object]:
    """Make the manifest of a finished store.

    Args:
        entries: Of all shards.
        sensors: Description and shape by sensor id.
    """
    return {
        "format_version": FORMAT_VERSION,
        "sensors": sensors,
        "shards": {key: value for entry in entries.values() for key, value in entry.files.items()},
        "notes": [{**asdict(shard), "note": entry.note} for shard, entry in entries.items() if entry.note],
        "made_of": {shard.name.removeprefix(f"{_LEDGER}/"): e.fingerprint for shard, e in entries.items()},
    }


def entries_of(manifest: Mapping[str, Any], shards: Iterable[Shard]) -> dict[Shard, Entry]:
    """Take the entries back out of a manifest."""
    notes = {(n["sensor"], n["index"]): n["note"] for n in manifest["notes"]}
    made_of = manifest.get("made_of", {})
    return {
        shard: Entry(
            {key: manifest["shards"][key] for key in shard.keys if key in manifest["shards"]},
            notes.get((shard.sensor, shard.index), {}),
            made_of.get(shard.name.removeprefix(f"{_LEDGER}/"), ""),
        )
        for shard in shards
    }


def reopen(folder: Folder, kept: Mapping[Shard, Entry]) -> None:
    """Write the ledger of a finished store again, with these shards, then remove its manifest."""
    ledger = Ledger(folder)
    for shard, entry in kept.items():
        ledger.write(shard, entry)
    folder.remove(MANIFEST)


def copy_of_manifest(folder: Folder, storage_options: StorageOptions | None) -> Parts:
    """Open what lies beside a store: the copy of its manifest, by the manifest's name."""
    return Parts(beside(folder, storage_options), "")


def restore_manifest(folder: Folder, copy: Parts) -> None:
    """Where a manifest is not what was written, its copy takes its place; without one, all shards are written again.

    Args:
        folder: Of the store.
        copy: As `copy_of_manifest` opened it.
    """
    found, written = folder.read(MANIFEST), copy.get(MANIFEST)
    if found is None or found == written:
        return
    if written is not None:
        logger.warning("%s is not what was written: its copy takes its place", folder.key(MANIFEST))
        folder.write(MANIFEST, written)
        return
    try:
        folder.read_json(MANIFEST)
    except StoreTornError as error:
        logger.warning("%s", error)
        folder.remove(MANIFEST)
