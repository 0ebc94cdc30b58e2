"""Write the image-set store shard by shard, with any number of workers, going on after a kill.

A shard is a run of consecutive rows of one sensor. A worker writes all of it, then a ledger entry with its digests. A
build that was killed goes on with the shards that have no entry; when all have one, `finish` writes the manifest and
removes the ledger. The bytes depend neither on kills nor on the number of workers nor on what the store held before: a
store that is built again from other scenes keeps the shards whose input is the same.

Whoever goes on with a store looks at it first: what a power cut or a bad disk has torn is named and made again, alone.
The manifest has a copy in the work folder beside the store (`<url>.work`), because all shards hang on it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray

from a2mae.errors import InputError
from a2mae.files import PART, file_digest, json_text
from a2mae.remote.storage import Folder, Parts, StorageOptions, StoreError, StoreMissingError, StoreTornError
from a2mae.sensors import Sensor, sensor_from_dict
from a2mae.stssd.store.ledger import (
    Entry,
    Ledger,
    Shard,
    copy_of_manifest,
    entries_of,
    manifest_of,
    reopen,
    restore_manifest,
)
from a2mae.stssd.store.shards import compressor, encode_shard
from a2mae.stssd.store.store import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    SUMS,
    check_version,
    manifest_hash,
    read_attributes,
    read_sums,
)

logger = logging.getLogger(__name__)

_PARTS = ("pixels", "valid")
SHARD_BYTES = 32 * 2**20
"""Uncompressed size of a shard: large enough for few files, small enough for a worker's memory."""
MAX_ROWS_PER_SHARD = 256
_BAND_CHUNK_BYTES = 32 * 2**10  # planes at least this large get a chunk per band: three of twelve bands are read alone
_CHUNK_SIDE = 512  # larger grids are cut, so that a 224-pixel crop of a 1,920-pixel image reads a part


@dataclass(frozen=True)
class SensorPlan:
    """What the store will hold of one sensor.

    Attributes:
        sensor: Its description, which is kept in the store.
        count: Number of rows.
        height: Rows of the grid, pixels.
        width: Columns of the grid, pixels.
        rows_per_shard: Images per shard; chosen from their size if None.
    """

    sensor: Sensor
    count: int
    height: int
    width: int
    rows_per_shard: int | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(image, band, y, x)`."""
        return self.count, len(self.sensor.bands), self.height, self.width

    @property
    def layout(self) -> tuple[object, ...]:
        """What decides the bytes of a shard besides its rows."""
        return self.sensor, self.height, self.width, self.shard_rows

    @property
    def shard_rows(self) -> int:
        """Images per shard."""
        if self.rows_per_shard is not None:
            return self.rows_per_shard
        image_bytes = int(np.prod(self.shape[1:])) * np.dtype(self.sensor.encoding.dtype).itemsize
        return int(np.clip(SHARD_BYTES // image_bytes, 1, MAX_ROWS_PER_SHARD))


class StoreWriter:
    """Writes the shards of one store; every worker process opens its own on the same URL."""

    def __init__(self, url: str | os.PathLike[str], storage_options: StorageOptions | None = None) -> None:
        """Open a store that `create` has begun.

        Raises:
            StoreMissingError: If there is none.
        """
        self._folder = Folder(os.fspath(url), storage_options)
        attributes = read_attributes(self._folder)
        if attributes is None:
            raise StoreMissingError(f"no store has been begun at {self._folder.url}")
        check_version(attributes, self._folder.url)
        self.fingerprint = str(attributes["fingerprint"])
        self._ledger = Ledger(self._folder)
        self._copy = copy_of_manifest(self._folder, storage_options)
        self._plans = {plan.sensor.id: plan for plan in map(_read_plan, cast(list[Any], attributes["plan"]))}

    @classmethod
    def create(
        cls,
        url: str | os.PathLike[str],
        plans: Sequence[SensorPlan],
        *,
        fingerprint: str,
        made_of: Callable[[Shard], str] = lambda shard: "",
        again: Callable[[Mapping[str, object]], bool] = lambda note: False,
        storage_options: StorageOptions | None = None,
    ) -> StoreWriter:
        """Begin a store, or go on with one of the same fingerprint; one of another fingerprint keeps what is the same.

        Args:
            url: Local folder or fsspec URL.
            plans: One per sensor.
            fingerprint: Hash of everything that decides the content: tables, parameters, version of the build.
            made_of: Gives the fingerprint of what decides the pixels of a shard; "" if only the whole has one.
            again: Tells from the note of a written shard whether it is to be written again.
            storage_options: For fsspec; never logged.

        Raises:
            StoreError: If the folder holds something that is not an image-set store: it is left alone.
        """
        folder = Folder(os.fspath(url), storage_options)
        described = _attributes(plans, fingerprint)
        attributes: Mapping[str, object] | None
        try:
            attributes = read_attributes(folder)
        except StoreTornError as error:
            logger.warning("%s", error)
            attributes = {**described, "fingerprint": None}  # its shards know what they are made of
        if attributes is None or attributes["fingerprint"] is None:
            if any(not _is_ours(name) for name in folder.sizes()):
                raise StoreError(
                    f"{folder.url} exists and is not an image-set store: choose another place or remove it"
                )
        if attributes is None or attributes.get("format_version") != FORMAT_VERSION:
            _clear(folder)
            attributes = None
        restore_manifest(folder, copy_of_manifest(folder, storage_options))
        if attributes is None or json_text(attributes) != json_text(described):
            if attributes is not None:
                same = attributes["fingerprint"] == fingerprint  # but torn
                before = plans if same else list(map(_read_plan, cast(list[Any], attributes["plan"])))
                _keep(folder, before, plans, made_of)
            folder.write_json("zarr.json", {"attributes": {"a2mae": described}, "node_type": "group", "zarr_format": 3})
        writer = cls(url, storage_options)
        writer._ledger.drop_torn(writer.shards())
        writer._create_arrays()
        writer._reopen(again)
        return writer

    def shards(self) -> list[Shard]:
        """List all shards of the store, in order."""
        return _shards(self._plans.values())

    def pending(self) -> list[Shard]:
        """List the shards that are not written yet."""
        if self._folder.read(MANIFEST) is not None:
            return []
        written = self._ledger.names()
        return [shard for shard in self.shards() if shard.name not in written]

    def write(
        self,
        shard: Shard,
        pixels: NDArray[np.generic],
        valid: NDArray[np.bool_],
        note: Mapping[str, object] | None = None,
        made_of: str = "",
    ) -> None:
        """Write one shard as a whole; writing it twice is the same as once.

        Args:
            shard: One of `shards()`.
            pixels: `(stop - start, C, H, W)` stored integers; a row of nodata alone takes no space.
            valid: `(stop - start, H, W)` bool.
            note: JSON-ready facts about these rows, kept in the manifest (see `notes`).
            made_of: Its fingerprint, as `create` was given it.

        Raises:
            InputError: If a shape or type is not the planned one.
        """
        plan = self._plans[shard.sensor]
        expected = (shard.stop - shard.start, *plan.shape[1:])
        if pixels.shape != expected or pixels.dtype != np.dtype(plan.sensor.encoding.dtype):
            raise InputError(
                f"{shard}: pixels {pixels.shape} {pixels.dtype} given, {expected} {plan.sensor.encoding.dtype} planned"
            )
        if valid.shape != (expected[0], *expected[2:]) or valid.dtype != np.bool_:
            raise InputError(
                f"{shard}: valid {valid.shape} {valid.dtype} given, {(expected[0], *expected[2:])} bool planned"
            )
        written: dict[str, Mapping[str, object]] = {}
        sums: dict[str, int] = {}
        for key, name, data in zip(shard.keys, _PARTS, (pixels, valid), strict=True):
            encoded = encode_shard(data, self._metadata(f"{shard.sensor}/{name}"))
            if encoded is None:  # every row is empty
                self._folder.remove(key)  # left by a killed worker
                continue
            self._folder.write(key, encoded)
            written[key] = {"sha256": hashlib.sha256(encoded).hexdigest(), "bytes": len(encoded)}
            sums[key] = google_crc32c.value(encoded)
        self._ledger.write(shard, Entry(written, dict(note or {}), made_of, sums))

    def _metadata(self, array: str) -> bytes:
        data = self._folder.read(f"{array}/zarr.json")
        if data is None:
            raise StoreTornError(f"{self._folder.url}/{array}/zarr.json vanished while the store was being built")
        return data

    def finish(self) -> str:
        """Write the manifest and remove the ledger; a finished store is left as it is.

        Returns:
            The manifest hash.

        Raises:
            StoreTornError: If shards are missing.
        """
        pending = self.pending()
        if pending:
            raise StoreTornError(
                f"{self._folder.url}: {len(pending)} shards are not written, the first is {pending[0]}"
            )
        manifest = self._folder.read_json(MANIFEST)
        if manifest is None:
            sensors = {
                name: {"sensor": plan.sensor.to_dict(), "shape": list(plan.shape)} for name, plan in self._plans.items()
            }
            entries = {shard: self._ledger.entry(shard) for shard in self.shards()}
            manifest = manifest_of(entries, sensors)
            self._remove_partial_files()
            self._write_sums(entries, manifest_hash(manifest))
            self._copy.put(MANIFEST, json_text(manifest).encode())
            self._folder.write_json(MANIFEST, manifest)
        elif not read_sums(Parts(self._copy.folder, manifest_hash(manifest))):
            self._write_sums(self._entries(), manifest_hash(manifest))
        self._ledger.clear()
        return manifest_hash(manifest)

    def _write_sums(self, entries: Mapping[Shard, Entry], content: str) -> None:
        """Keep what readers compare shards with; an earlier build knows it of what it wrote, else the file does."""
        before = read_sums(self._copy)
        found = {
            key: entry.sums.get(key) or before.get(key) or google_crc32c.value(self._folder.read(key) or b"")
            for entry in entries.values()
            for key in entry.files
        }
        Parts(self._copy.folder, content).put(SUMS, json_text(found).encode())

    def notes(self) -> list[tuple[Shard, Mapping[str, Any]]]:
        """List the notes of all written shards that have one, in order."""
        return [(shard, entry.note) for shard, entry in self._entries().items() if entry.note]

    def _entries(self) -> dict[Shard, Entry]:
        manifest = self._folder.read_json(MANIFEST)
        if manifest is not None:
            return entries_of(manifest, self.shards())
        pending = set(self.pending())
        return {shard: self._ledger.entry(shard) for shard in self.shards() if shard not in pending}

    def _reopen(self, again: Callable[[Mapping[str, object]], bool]) -> None:
        """Remove the entries of shards that are to be written again; a finished store gets its ledger back first.

        The files of every other shard are compared with their digests, on `s3://` with their sizes alone.
        """
        entries = self._entries()
        anew = {shard for shard, entry in entries.items() if entry.note and again(entry.note)}
        sizes = self._folder.sizes()
        for shard in entries.keys() - anew:
            for key, known in entries[shard].files.items():
                if sizes.get(key) != known["bytes"] or not self._is_whole(key, str(known["sha256"])):
                    logger.warning("%s is not what was written: it is made again", self._folder.key(key))
                    anew.add(shard)
        if not anew:
            return
        if self._folder.read(MANIFEST) is not None:
            reopen(self._folder, {shard: entry for shard, entry in entries.items() if shard not in anew})
        for shard in anew:
            self._ledger.remove(shard.name)

    def _is_whole(self, key: str, sha256: str) -> bool:
        return not self._folder.is_local or file_digest(Path(self._folder.key(key))) == sha256

    def _create_arrays(self) -> None:
        """Write the descriptions of groups and arrays that are not there as they should be."""
        described: dict[str, Any] = {}
        memory = zarr.storage.MemoryStore(described)
        for name, plan in self._plans.items():
            _, bands, height, width = plan.shape
            plane = height * width * np.dtype(plan.sensor.encoding.dtype).itemsize
            tile = (min(height, _CHUNK_SIDE), min(width, _CHUNK_SIDE))
            grid = tuple(-(-side // t) * t for side, t in zip((height, width), tile, strict=True))
            band_chunk = 1 if plane >= _BAND_CHUNK_BYTES else bands
            encoding = plan.sensor.encoding
            zarr.create_array(
                memory,
                name=f"{name}/pixels",
                shape=plan.shape,
                dtype=encoding.dtype,
                chunks=(1, band_chunk, *tile),
                shards=(plan.shard_rows, bands, *grid),
                compressors=compressor(np.dtype(encoding.dtype).itemsize),
                fill_value=encoding.nodata,
                dimension_names=("image", "band", "y", "x"),
                attributes={
                    "scale_factor": encoding.scale,
                    "add_offset": encoding.offset,
                    "units": encoding.units.value,
                    "gsd_m": plan.sensor.gsd_m,
                    "bands": list(plan.sensor.band_names),
                },
            )
            zarr.create_array(
                memory,
                name=f"{name}/valid",
                shape=(plan.count, height, width),
                dtype="bool",
                chunks=(1, *tile),
                shards=(plan.shard_rows, *grid),
                compressors=compressor(1),
                fill_value=False,
                dimension_names=("image", "y", "x"),
            )
            group = {"attributes": {"sensor": plan.sensor.to_dict()}, "node_type": "group", "zarr_format": 3}
            files = {f"{name}/zarr.json": json_text(group).encode()}
            files |= {f"{name}/{part}/zarr.json": described[f"{name}/{part}/zarr.json"].to_bytes() for part in _PARTS}
            for key, content in files.items():
                if self._folder.read(key) != content:
                    self._folder.write(key, content)

    def _remove_partial_files(self) -> None:
        """Remove temporary files of killed workers, so that the folder is the same as without the kill."""
        for name in self._folder.sizes():
            if name.endswith(PART):
                self._folder.remove(name)


def _shards(plans: Iterable[SensorPlan]) -> list[Shard]:
    return [
        Shard(plan.sensor.id, index, start, min(start + plan.shard_rows, plan.count))
        for plan in sorted(plans, key=lambda plan: plan.sensor.id)
        for index, start in enumerate(range(0, plan.count, plan.shard_rows))
    ]


def _attributes(plans: Sequence[SensorPlan], fingerprint: str) -> dict[str, object]:
    """The store's own attributes."""
    entries = [
        {
            "sensor": plan.sensor.to_dict(),
            "grid": [plan.count, plan.height, plan.width],
            "rows_per_shard": plan.shard_rows,
        }
        for plan in sorted(plans, key=lambda plan: plan.sensor.id)
    ]
    return {"format": FORMAT, "format_version": FORMAT_VERSION, "fingerprint": fingerprint, "plan": entries}


def _keep(
    folder: Folder, before: Sequence[SensorPlan], plans: Sequence[SensorPlan], made_of: Callable[[Shard], str]
) -> None:
    """Keep of a store only the shards that the new one has too; if it is killed, it is done again."""
    ledger, manifest = Ledger(folder), folder.read_json(MANIFEST)
    ledger.drop_torn(_shards(before))
    if manifest is not None:
        entries = entries_of(manifest, _shards(before))
    else:
        names = ledger.names()
        entries = {shard: ledger.entry(shard) for shard in _shards(before) if shard.name in names}
    layouts = {plan.layout for plan in before}
    wanted = {shard: made_of(shard) for shard in _shards([plan for plan in plans if plan.layout in layouts])}
    kept = {s: entry for s, entry in entries.items() if entry.fingerprint and wanted.get(s) == entry.fingerprint}
    if not kept:
        _clear(folder)
        return
    if manifest is not None:
        reopen(folder, kept)
    staying = {"zarr.json"} | {key for shard in kept for key in (shard.name, *shard.keys)}
    for name in sorted(folder.sizes().keys() - staying, key=lambda name: not ledger.has(name)):
        folder.remove(name)  # entries first; the arrays' descriptions too, since their lengths differ


def _read_plan(entry: Mapping[str, Any]) -> SensorPlan:
    count, height, width = entry["grid"]
    return SensorPlan(sensor_from_dict(entry["sensor"]), count, height, width, rows_per_shard=entry["rows_per_shard"])


def _is_ours(name: str) -> bool:
    """Tell whether a file may be left of a store whose removal was cut short (its `zarr.json` goes last)."""
    return name.endswith((PART, ".json")) or "/c/" in name


def _clear(folder: Folder) -> None:
    names = sorted({name.split("/")[0] for name in folder.sizes()})
    for name in [MANIFEST, *[n for n in names if n not in (MANIFEST, "zarr.json")], "zarr.json"]:
        folder.remove(name)
