"""Read and write the shard files of Zarr v3 arrays directly, one `pread` and one decode per chunk.

A training sample is a dozen chunks, and a general reader spends more time on finding each of them (event loop,
selections, the shard's index read again) than on decoding it: `benchmarks/loader.py` has the ratio. The files are plain
Zarr. `open_shards` reads the one layout that `writer.py` creates and returns None for any other, which is then read by
Zarr itself (`ZarrReader`), like stores that are not on a local disk. `encode_shard` makes the bytes of one shard file.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol, cast

import google_crc32c
import numpy as np
import zarr
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from a2mae.errors import InputError
from a2mae.stssd.store.compared import Compared

_ABSENT = 2**64 - 1  # offset of a chunk that holds only fill values
_SHARDS_OPEN = (64, 4096)  # per array, fewest and most: a file descriptor and an index of some kilobytes each
_ARRAYS = 16  # arrays (two per sensor) that share the files which the system lets this process open
_HEADER_BYTES = 16
_LEVEL = 5
_BLOCK_BYTES = 2**20


def compressor(typesize: int) -> BloscCodec:
    """Give the codec of the store's chunks.

    Args:
        typesize: Bytes per value. Stated because Zarr otherwise asks the data for it.
    """
    return BloscCodec(cname="lz4", clevel=_LEVEL, shuffle="bitshuffle", typesize=typesize)


class DamagedShardError(InputError):
    """A shard file whose bytes are not those that were written."""


class ImageReader(Protocol):
    """What reads bands of one image after the other; `dtype` is that of the stored values."""

    dtype: np.dtype[Any]

    def read(self, row: int, bands: Sequence[int], window: tuple[int, int, int, int], out: NDArray[np.generic]) -> None:
        """Read bands of one image.

        Args:
            row: The image.
            bands: Their numbers, in the order wanted; a negative one leaves zeros.
            window: `(y0, y1, x0, x1)`, upper bounds exclusive.
            out: `(len(bands), y1 - y0, x1 - x0)`, C-contiguous, filled.
        """


class ZarrReader:
    """Read through Zarr, from any layout and any storage."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        """Wrap an array `(image, band, y, x)`, or `(image, y, x)` for one band."""
        self._array = array
        self.dtype = np.dtype(array.dtype)

    def read(self, row: int, bands: Sequence[int], window: tuple[int, int, int, int], out: NDArray[np.generic]) -> None:
        """See `ImageReader`."""
        y0, y1, x0, x1 = window
        array = self._array
        if array.ndim == 3:
            out[0] = array[row, y0:y1, x0:x1]
        elif array.chunks[1] == 1 and 2 * len(bands) <= array.shape[1]:
            for k, band in enumerate(bands):  # a chunk holds one band: only those wanted are decoded
                out[k] = array[row, int(band), y0:y1, x0:x1] if band >= 0 else 0
        else:
            out[...] = cast(NDArray[np.generic], array[row, :, y0:y1, x0:x1])[list(bands)]
            out[[k for k, band in enumerate(bands) if band < 0]] = 0


class _ShardFile:
    """An open shard file and the index of its chunks."""

    def __init__(self, path: str, chunks: int, digest: int | str | None, compared: Compared | None) -> None:
        """Open a shard and read the index at its end.

        Args:
            path: The file.
            chunks: How many chunks it has room for.
            digest: What its bytes are compared with: CRC-32C (a number), SHA-256 in hexadecimal; None: they are not.
            compared: Files that need not be compared again; None: no such record.

        Raises:
            FileNotFoundError: If there is no such file.
            DamagedShardError: If its bytes are not those that were written.
        """
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        state = os.fstat(self.descriptor)
        if digest is not None and not (compared is not None and compared.knows(digest, state)):
            with open(self.descriptor, "rb", closefd=False) as stream:
                if digest != (_crc32c(stream) if isinstance(digest, int) else _sha256(stream)):
                    raise DamagedShardError(f"{path} is damaged: its bytes are not those of the manifest")
            if compared is not None:
                compared.add(digest, state)
        size, length = state.st_size, 16 * chunks
        index = os.pread(self.descriptor, length + 4, max(0, size - length - 4))
        if len(index) != length + 4 or google_crc32c.value(index[:-4]) != int.from_bytes(index[-4:], "little"):
            raise DamagedShardError(f"{path} is damaged: its index is not what was written")
        self.index: NDArray[np.uint64] = np.frombuffer(index, "<u8", count=2 * chunks).reshape(chunks, 2)

    def __del__(self) -> None:
        """Close the file when nobody reads from it any more, in whatever thread that is."""
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class ShardedArray:
    """Read an array `(image, band, y, x)` that is sharded along its first axis; `(image, y, x)` is one band."""

    def __init__(
        self, folder: Path, layout: _Layout, digests: Mapping[int, int | str], compared: Compared | None
    ) -> None:
        """Use `open_shards` instead."""
        self._layout, self._digests, self._verified = layout, digests, set[int]()
        self._compared = compared
        self.dtype = layout.fill.dtype
        self._prefix, self._suffix = f"{folder}/c/", "/0" * layout.inner_axes
        self._at_once = _shards_at_once()
        self._open: OrderedDict[int, _ShardFile | None] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, row: int, bands: Sequence[int], window: tuple[int, int, int, int], out: NDArray[np.generic]) -> None:
        """See `ImageReader`.

        Raises:
            DamagedShardError: If a chunk cannot be decoded.
        """
        layout = self._layout
        depth, height, width = layout.chunk
        shard = self._shard(row // layout.rows)
        y0, y1, x0, x1 = window
        for ty in range(y0 // height, -(-y1 // height)):
            for tx in range(x0 // width, -(-x1 // width)):
                top, left = ty * height, tx * width
                first = ((row % layout.rows) * layout.parts[0] * layout.parts[1] + ty) * layout.parts[2] + tx
                stride = layout.parts[1] * layout.parts[2]
                if depth == 1 and window == (top, top + height, left, left + width):
                    for k, band in enumerate(bands):  # nothing to cut or to gather: decoded in place
                        if band >= 0:
                            self._decode(shard, first + band * stride, out[k])
                        else:
                            out[k] = 0
                    continue
                ys, xs = (max(y0, top), min(y1, top + height)), (max(x0, left), min(x1, left + width))
                target = out[:, ys[0] - y0 : ys[1] - y0, xs[0] - x0 : xs[1] - x0]
                chunks: dict[int, NDArray[np.generic]] = {}
                for k, band in enumerate(bands):
                    group, member = divmod(band, depth)
                    if band < 0:
                        target[k] = 0
                        continue
                    if group not in chunks:
                        chunks[group] = np.empty((depth, height, width), self.dtype)
                        self._decode(shard, first + group * stride, chunks[group])
                    target[k] = chunks[group][member, ys[0] - top : ys[1] - top, xs[0] - left : xs[1] - left]

    def _decode(self, shard: _ShardFile | None, number: int, out: NDArray[np.generic]) -> None:
        offset, length = (_ABSENT, 0) if shard is None else shard.index[number].tolist()
        if shard is None or offset == _ABSENT:
            out[...] = self._layout.fill
            return
        data = os.pread(shard.descriptor, length, offset)
        # The decoder writes as much as the header says: looked at first.
        if len(data) != length or length < _HEADER_BYTES or int.from_bytes(data[4:8], "little") != out.nbytes:
            raise DamagedShardError(f"{shard.path} is damaged: chunk {number} is not what was written")
        try:
            blosc.decompress(data, out)
        except (RuntimeError, ValueError) as error:
            raise DamagedShardError(f"{shard.path} is damaged: chunk {number} cannot be decoded ({error})") from error

    def _shard(self, number: int) -> _ShardFile | None:
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
            layout = self._layout
            path = f"{self._prefix}{number}{self._suffix}"
            digest = None if number in self._verified else self._digests.get(number)
            chunks = layout.rows * layout.parts[0] * layout.parts[1] * layout.parts[2]
            try:
                shard = _ShardFile(path, chunks, digest, self._compared)
            except FileNotFoundError as error:
                if number in self._digests:
                    raise DamagedShardError(f"{path} is missing") from error
                shard = None  # holds fill values only: Zarr writes no file then
            self._verified.add(number)
            self._open[number] = shard
            if len(self._open) > self._at_once:
                self._open.popitem(last=False)
            return shard


def _crc32c(stream: BufferedReader) -> int:
    found = 0
    while block := stream.read(_BLOCK_BYTES):
        found = google_crc32c.extend(found, block)
    return found


def _sha256(stream: BufferedReader) -> str:
    return hashlib.file_digest(stream, "sha256").hexdigest()


def _shards_at_once() -> int:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    fewest, most = _SHARDS_OPEN
    return most if allowed == resource.RLIM_INFINITY else min(max(allowed // _ARRAYS, fewest), most)


@dataclass(frozen=True)
class _Layout:
    """How an array is cut into shards and chunks.

    Attributes:
        rows: Images per shard.
        chunk: Bands, rows and columns of a chunk; a chunk holds one image.
        parts: Chunks of one image along the same axes.
        inner_axes: Axes after the images.
        fill: Value of what was never written.
    """

    rows: int
    chunk: tuple[int, int, int]
    parts: tuple[int, int, int]
    inner_axes: int
    fill: np.generic[Any]


def open_shards(
    folder: Path, digests: Mapping[int, int | str], compared: Compared | None = None
) -> ShardedArray | None:
    """Open an array of the store on a local disk.

    Args:
        folder: Holds the array's `zarr.json`.
        digests: CRC-32C (a number) or SHA-256 of each shard file, by its number: a process compares a shard when
            it first reads from it.
        compared: Shards that need not be compared again, and where those that are compared are kept; None: no record.

    Returns:
        None if the array has another layout than the store's own.
    """
    layout = _layout(json.loads((folder / "zarr.json").read_bytes()))
    if layout is None:
        return None
    # A chunk is too small for blosc's own threads, which the main thread would start.
    blosc.use_threads = False
    return ShardedArray(folder, layout, digests, compared)


def encode_shard(images: NDArray[np.generic], metadata: bytes) -> bytes | None:
    """Make the bytes of a shard file.

    Args:
        images: `(n, band, y, x)` or `(n, y, x)`, at most as many as a shard has room for.
        metadata: The array's `zarr.json`.

    Returns:
        None if every value is the fill value: Zarr reads a missing file as that.

    Raises:
        InputError: If the array has another layout than the store's own.
    """
    layout = _layout(json.loads(metadata))
    if layout is None:
        raise InputError("the array's zarr.json is not of the layout that this version of a2mae writes")
    blosc.use_threads = False
    groups, down, across = layout.parts
    index = np.full((layout.rows, groups, down, across, 2), _ABSENT, dtype="<u8")
    chunks: list[bytes] = []
    position = 0
    for n, image in enumerate(images if images.ndim == 4 else images[:, None]):
        for where in np.ndindex(groups, down, across):
            part = image[tuple(slice(k * side, (k + 1) * side) for k, side in zip(where, layout.chunk, strict=True))]
            if part.size == 0 or (part.flat[0] == layout.fill and (part == layout.fill).all()):
                continue
            if part.shape != layout.chunk:
                whole = np.full(layout.chunk, layout.fill)
                whole[tuple(slice(side) for side in part.shape)] = part
                part = whole
            data = blosc.compress(np.ascontiguousarray(part), b"lz4", _LEVEL, blosc.BITSHUFFLE)
            index[n, *where] = position, len(data)
            chunks.append(data)
            position += len(data)
    if not chunks:
        return None
    tail = index.tobytes()
    return b"".join([*chunks, tail, google_crc32c.value(tail).to_bytes(4, "little")])


def _layout(array: dict[str, Any]) -> _Layout | None:
    try:
        (sharding,) = array["codecs"]
        inner = sharding["configuration"]
        names = [codec["name"] for codec in inner["codecs"]]
        known = (
            sharding["name"] == "sharding_indexed"
            and names == ["bytes", "blosc"]
            and inner["codecs"][0].get("configuration", {}).get("endian", "little") == "little"
            and [codec["name"] for codec in inner["index_codecs"]] == ["bytes", "crc32c"]
            and inner["index_location"] == "end"
            and array["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
            and sys.byteorder == "little"
        )
        fill = np.dtype(array["data_type"]).type(array["fill_value"])
        shape, shard, chunk = array["shape"], array["chunk_grid"]["configuration"]["chunk_shape"], inner["chunk_shape"]
    except (KeyError, TypeError, ValueError):
        return None
    covered = all(whole <= part for whole, part in zip(shape[1:], shard[1:], strict=True))
    if not known or not covered or chunk[0] != 1 or len(shape) not in (3, 4):
        return None
    parts = [whole // part for whole, part in zip(shard[1:], chunk[1:], strict=True)]
    if len(shape) == 3:
        chunk, parts = [1, 1, *chunk[1:]], [1, *parts]
    return _Layout(shard[0], tuple(chunk[1:]), tuple(parts), len(shape) - 1, fill)
