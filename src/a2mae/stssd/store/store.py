"""Read the image-set store: one sharded Zarr v3 array per sensor.

Layout below the store's URL (a local folder or `s3://…`):

    zarr.json                     group; attributes "a2mae": format, format version, plan fingerprint
    <sensor id>/zarr.json         group; attributes "sensor": the whole Sensor description
    <sensor id>/pixels            (image, band, y, x), the sensor's stored integers
    <sensor id>/valid             (image, y, x) bool: seen, and neither cloud nor shadow
    manifest.json                 sha256 of every shard; written last, so its presence says "complete"

It needs NumPy, Zarr and fsspec alone, since training runs on machines that have little else.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray

from a2mae.remote.storage import (
    MEND,
    Folder,
    Parts,
    StorageOptions,
    StoreError,
    StoreMissingError,
    StoreTornError,
    StoreVersionError,
)
from a2mae.sensors import Sensor, sensor_from_dict
from a2mae.stssd.store.compared import Compared
from a2mae.stssd.store.shards import DamagedShardError, ImageReader, ZarrReader, open_shards

FORMAT = "a2mae-image-sets"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
COPY, SUMS, COMPARED = "manifest", "crc32c.json", "compared.txt"
"""Folder beside a store with what is not part of it; in it the checksums that readers compare shards with, and the
record of those that were compared (`compared.py`)."""

Window = tuple[int, int, int, int]
"""`(y0, y1, x0, x1)` in pixels of the sensor's grid, upper bounds exclusive."""


class ImageSetStore:
    """A finished image-set store, for reading; picklable, and safe in forked and spawned workers.

    Attributes:
        url: Where the store is.
        manifest_hash: SHA-256 over format, sensors and shard digests: the same for the same bytes.
    """

    def __init__(
        self,
        url: str,
        sensors: Mapping[str, Sensor],
        manifest: Mapping[str, object],
        storage_options: StorageOptions | None,
    ) -> None:
        """Use `ImageSetStore.open` instead."""
        self.url = url
        self.manifest_hash = manifest_hash(manifest)
        self._manifest = manifest
        self._sensors = dict(sensors)
        self._options = storage_options
        self._arrays: dict[str, tuple[ImageReader, ImageReader]] = {}
        self._process = os.getpid()

    @classmethod
    def open(cls, url: str | os.PathLike[str], storage_options: StorageOptions | None = None) -> ImageSetStore:
        """Open a finished store.

        Args:
            url: Local folder or fsspec URL.
            storage_options: For fsspec, for example an S3 endpoint; never logged.

        Raises:
            StoreMissingError: If nothing is there.
            StoreTornError: If the build did not finish or a shard is missing or cut short.
            StoreVersionError: If the format version is another one.
        """
        folder = Folder(os.fspath(url), storage_options)
        attributes = read_attributes(folder)
        if attributes is None:
            raise StoreMissingError(
                f"no image-set store at {folder.url}; build one with: kedro run --pipelines=coregister"
            )
        check_version(attributes, folder.url)
        manifest = folder.read_json(MANIFEST)
        if manifest is None:
            raise StoreTornError(
                f"the build of {folder.url} did not finish ({MANIFEST} is absent);"
                " run it again to continue: kedro run --pipelines=coregister"
            )
        _check_shards(folder, manifest)
        sensors = {name: sensor_from_dict(entry["sensor"]) for name, entry in manifest["sensors"].items()}
        return cls(folder.url, sensors, manifest, storage_options)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (ImageSetStore, (self.url, self._sensors, self._manifest, self._options))

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {self.count(name)}" for name in self.sensors)
        return f"ImageSetStore({self.url!r}, {counts})"

    @property
    def sensors(self) -> tuple[str, ...]:
        """Ids of the sensors that have images here, sorted."""
        return tuple(sorted(self._sensors))

    def sensor(self, sensor: str) -> Sensor:
        """Give the full description of a sensor.

        Raises:
            KeyError: If the store has no such sensor; the message lists those it has.
        """
        try:
            return self._sensors[sensor]
        except KeyError:
            raise KeyError(f"{self.url} has no sensor {sensor!r}; it has {', '.join(self.sensors)}") from None

    def count(self, sensor: str) -> int:
        """Count the rows of a sensor's array; rows that the image table does not name are empty."""
        return int(self._entry(sensor)["shape"][0])

    def shape(self, sensor: str) -> tuple[int, int, int]:
        """Give the shape `(C, H, W)` of one image of a sensor."""
        _, bands, height, width = self._entry(sensor)["shape"]
        return bands, height, width

    def read(
        self,
        sensor: str,
        rows: NDArray[np.int64] | Sequence[int],
        bands: Sequence[int | str] | None = None,
        window: Window | None = None,
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read images as stored.

        Args:
            sensor: Sensor id.
            rows: `(N,)` row numbers, any order, repeats allowed.
            bands: Band numbers or names, in the order wanted; all if None.
            window: Part of the grid; all if None.

        Returns:
            Pixels `(N, C, H, W)` in the sensor's integers, and `(N, H, W)` bool: True where usable.

        Raises:
            KeyError: If the sensor is not in the store.
            UnknownBandError: If a band name is not the sensor's.
            IndexError: If a row, band or window lies outside.
        """
        description = self.sensor(sensor)
        chosen = range(len(description.bands)) if bands is None or len(bands) == 0 else bands
        picked = [b if isinstance(b, (int, np.integer)) else description.band_index(b) for b in chosen]
        if any(band < 0 for band in picked):
            raise IndexError(f"{sensor}: bands {picked} asked for, the store has 0..{len(description.bands) - 1}")
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        return self.read_each(sensor, index, np.tile(np.asarray(picked, np.int64), (index.size, 1)), window)

    def read_each(
        self, sensor: str, rows: NDArray[np.int64], bands: NDArray[np.int64], window: Window | None = None
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read images as stored, each with bands of its own; result and errors as of `read`.

        Args:
            sensor: Sensor id.
            rows: `(N,)` row numbers.
            bands: `(N, C)` band numbers of each image; a negative one gives zeros.
            window: Part of the grid; all if None.
        """
        count, (all_bands, height, width) = self.count(sensor), self.shape(sensor)
        if rows.size and (rows.min() < 0 or rows.max() >= count):
            raise IndexError(f"{sensor}: rows {rows.min()}..{rows.max()} asked for, the store has 0..{count - 1}")
        if bands.size and bands.max() >= all_bands:
            raise IndexError(f"{sensor}: bands {bands.max()} asked for, the store has 0..{all_bands - 1}")
        y0, y1, x0, x1 = area = window or (0, height, 0, width)
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            raise IndexError(f"{sensor}: window {window} does not lie in {height} x {width} pixels")
        stored, stored_valid = self._open_arrays(sensor)
        pixels = np.empty((rows.size, bands.shape[1], y1 - y0, x1 - x0), dtype=stored.dtype)
        valid = np.empty((rows.size, 1, y1 - y0, x1 - x0), dtype=np.bool_)
        try:
            for k, row in enumerate(rows.tolist()):
                wanted = bands[k].tolist()
                stored.read(row, wanted, area, pixels[k])
                stored_valid.read(row, (0,), area, valid[k])
        except DamagedShardError as error:
            raise StoreTornError(f"{error}; {MEND}") from error
        return pixels, valid[:, 0]

    def read_physical(
        self,
        sensor: str,
        rows: NDArray[np.int64] | Sequence[int],
        bands: Sequence[int | str] | None = None,
        window: Window | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read images in the sensor's units (reflectance, dB, …); arguments and errors as of `read`.

        Returns:
            `(N, C, H, W)` float32 without NaN, 0 where invalid, and `(N, H, W)` bool.
        """
        pixels, valid = self.read(sensor, rows, bands, window)
        encoding = self.sensor(sensor).encoding
        physical = pixels.astype(np.float32) * np.float32(encoding.scale) + np.float32(encoding.offset)
        physical *= valid[:, None]
        return physical, valid

    def verify(self) -> None:
        """Compare the digest of every shard with the manifest.

        Raises:
            StoreTornError: Naming the first shard whose bytes are not those that were written.
        """
        folder = Folder(self.url, self._options)
        for key, entry in shard_entries(self._manifest).items():
            data = folder.read(key)
            if data is None or hashlib.sha256(data).hexdigest() != entry["sha256"]:
                raise StoreTornError(f"{self.url}/{key} is damaged: its bytes are not those of the manifest; {MEND}")

    def _entry(self, sensor: str) -> dict[str, list[int]]:
        self.sensor(sensor)
        return cast(dict[str, dict[str, dict[str, list[int]]]], self._manifest)["sensors"][sensor]

    def _open_arrays(self, sensor: str) -> tuple[ImageReader, ImageReader]:
        if self._process != os.getpid():  # forked: a child opens its own files
            self._arrays, self._process = {}, os.getpid()
        if sensor not in self._arrays:
            pixels, valid = (self._open_array(f"{sensor}/{name}") for name in ("pixels", "valid"))
            self._arrays[sensor] = (pixels, valid)
        return self._arrays[sensor]

    def _open_array(self, name: str) -> ImageReader:
        folder = Folder(self.url, self._options)
        folder.read_json(f"{name}/zarr.json")  # torn: said here
        digests = {
            int(key[len(name) :].split("/")[2]): known
            for key, known in self._sums.items()
            if key.startswith(f"{name}/c/")
        }
        shards = open_shards(Path(folder.key(name)), digests, self._compared) if folder.is_local else None
        if shards is not None:
            return shards
        group = zarr.open_group(folder.zarr_store(read_only=True), mode="r")
        return ZarrReader(cast("zarr.Array[Any]", group[name]))

    @functools.cached_property
    def _compared(self) -> Compared:
        return Compared(Path(beside(Folder(self.url, self._options), self._options).key(COMPARED)))

    @functools.cached_property
    def _sums(self) -> dict[str, int | str]:
        """What shards are compared with: their CRC-32C, or where that record is not beside the store, their SHA-256."""
        folder = Folder(self.url, self._options)
        known = read_sums(Parts(beside(folder, self._options), self.manifest_hash)) if folder.is_local else {}
        entries = shard_entries(self._manifest)
        return {key: known.get(key, entry["sha256"]) for key, entry in entries.items()}


def beside(folder: Folder, storage_options: StorageOptions | None) -> Folder:
    """Find the folder beside a store that has the copy of its manifest and the checksums of its shards."""
    return Folder(f"{folder.url}.work/{COPY}", storage_options)


def read_sums(parts: Parts) -> dict[str, int]:
    """Read the checksums of shards by key; none where there are none of this store (`Parts.fingerprint`)."""
    found = parts.get(SUMS, of_any=not parts.fingerprint)
    return {} if found is None else dict(json.loads(found))


def read_attributes(folder: Folder) -> dict[str, object] | None:
    """Read the store's own attributes; None if there is no store.

    Raises:
        StoreTornError: If it is not JSON.
        StoreError: If something else is there.
    """
    document = folder.read_json("zarr.json")
    if document is None:
        return None
    try:
        attributes = document["attributes"]["a2mae"]
    except (KeyError, TypeError):
        attributes = {}
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        raise StoreError(
            f"{folder.url} holds a Zarr group that is not an image-set store (attribute a2mae.format is not {FORMAT!r})"
        )
    return attributes


def check_version(attributes: Mapping[str, object], url: str) -> None:
    """Check that a store has the format version that this code reads.

    Raises:
        StoreVersionError: If it has another one.
    """
    found = attributes.get("format_version")
    if found != FORMAT_VERSION:
        raise StoreVersionError(
            f"{url} has format version {found}, this code reads {FORMAT_VERSION};"
            " rebuild it (kedro run --pipelines=coregister) or use the a2mae that wrote it"
        )


def manifest_hash(manifest: Mapping[str, object]) -> str:
    """Hash what a reader can see: format version, sensors, shapes and shard digests."""
    content = {
        "format_version": manifest["format_version"],
        "sensors": manifest["sensors"],
        "shards": {key: entry["sha256"] for key, entry in shard_entries(manifest).items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def shard_entries(manifest: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """Give the shard files by their key below the store, each with `sha256` and `bytes`."""
    return cast(dict[str, dict[str, str]], manifest["shards"])


def _check_shards(folder: Folder, manifest: Mapping[str, object]) -> None:
    sizes = folder.sizes()
    for key, entry in shard_entries(manifest).items():
        if sizes.get(key) != int(entry["bytes"]):
            found = f"has {sizes[key]} bytes instead of {entry['bytes']}" if key in sizes else "is missing"
            raise StoreTornError(f"{folder.url}/{key} {found}; {MEND}")
