"""The index of image sets: which rows of the store belong together, as flat NumPy arrays.

The tables of the data set are Parquet, which training does not read. The pretrain node cuts what a sample needs into
these arrays, one `.npz` whose members are memory-mapped: loader processes share one copy of it in the page cache, so a
million sets cost no worker memory of its own.
"""

from __future__ import annotations

import os
import struct
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from a2mae.errors import InputError
from a2mae.files import file_digest, whole_file

INDEX_FILE = "index.npz"
TRAIN, HELD_OUT = 0, 1
"""Values of `SetIndex.split`."""


class SetIndexError(InputError):
    """An index that is torn or contradicts itself."""


@dataclass(frozen=True)
class SetIndex:
    """S sets with N images in all; the images of set s are `offsets[s]:offsets[s + 1]`.

    Attributes:
        set_id: `(S,)` bytes, ASCII names of the sets.
        location: `(S,)` int64, equal for sets of one place.
        split: `(S,)` uint8, `TRAIN` or `HELD_OUT`.
        offsets: `(S + 1,)` int64.
        row: `(N,)` int64, row of the sensor's array in the store.
        sensor: `(N,)` int16, position in the run's list of sensors.
        gsd_m: `(N,)` float64, metres per stored pixel.
        day: `(N,)` float32, days since 1970-01-01 UTC.
        lonlat_deg: `(N, 2)` float64, footprint centre.
        geosot: `(N, 8)` uint32, GeoSOT-2D codes of the footprint's corners.
        is_anchor: `(N,)` bool, the anchor tagged in the image table.
        bands: `(N, B)` bool, which bands of its sensor an image has; None where every image has all of them, and then
            not in the file either.
    """

    set_id: NDArray[np.bytes_]
    location: NDArray[np.int64]
    split: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    row: NDArray[np.int64]
    sensor: NDArray[np.int16]
    gsd_m: NDArray[np.float64]
    day: NDArray[np.float32]
    lonlat_deg: NDArray[np.float64]
    geosot: NDArray[np.uint32]
    is_anchor: NDArray[np.bool_]
    bands: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Check that the arrays fit one another."""
        sets, images = len(self.set_id), len(self.row)
        shapes = {
            "location": (sets,),
            "split": (sets,),
            "offsets": (sets + 1,),
            "sensor": (images,),
            "gsd_m": (images,),
            "day": (images,),
            "lonlat_deg": (images, 2),
            "geosot": (images, 8),
            "is_anchor": (images,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise SetIndexError(f"index array {name!r} must have shape {shape}, found {getattr(self, name).shape}")
        if self.bands is not None and (self.bands.ndim != 2 or len(self.bands) != images):
            raise SetIndexError(f"index array 'bands' must have shape ({images}, bands), found {self.bands.shape}")
        if self.offsets[0] != 0 or self.offsets[-1] != images or (np.diff(self.offsets) < 1).any():
            raise SetIndexError("index array 'offsets' must rise from 0 to the number of images, at least one per set")

    def __len__(self) -> int:
        """Number of sets."""
        return len(self.set_id)

    def images_of(self, position: int) -> slice:
        """Give the images of one set."""
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))

    def sets_of(self, split: int) -> NDArray[np.int64]:
        """List the positions of a split's sets, ascending."""
        return np.flatnonzero(self.split == split).astype(np.int64)

    def name(self, position: int) -> str:
        """Give a set's id."""
        return bytes(self.set_id[position]).decode("ascii")

    def write(self, path: Path) -> str:
        """Write the index atomically, uncompressed so that it can be memory-mapped.

        Returns:
            The file's SHA-256.
        """
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **{name: array for name, array in arrays.items() if array is not None})
        return file_digest(path)

    @classmethod
    def open(cls, path: Path) -> SetIndex:
        """Memory-map an index.

        Raises:
            SetIndexError: If the file is absent, torn or not an index.
        """
        try:
            return cls(**_map_members(path, {f.name for f in fields(cls)}, optional={"bands"}))
        except (OSError, zipfile.BadZipFile, ValueError, struct.error) as error:
            raise SetIndexError(
                f"cannot read the index of sets {path}: {error}; run the pretrain stage again"
            ) from error


def build_index(
    *,
    set_id: NDArray[np.bytes_],
    location: NDArray[np.int64],
    split: NDArray[np.uint8],
    image_set: NDArray[np.int64],
    row: NDArray[np.int64],
    sensor: NDArray[np.int16],
    gsd_m: NDArray[np.float64],
    day: NDArray[np.float32],
    lonlat_deg: NDArray[np.float64],
    geosot: NDArray[np.uint32],
    is_anchor: NDArray[np.bool_],
    bands: NDArray[np.bool_] | None = None,
) -> SetIndex:
    """Build an index of images that come in any order.

    Args:
        set_id: `(S,)`; sets without images do not enter the index.
        location: `(S,)`.
        split: `(S,)`.
        image_set: `(N,)` position in `set_id` of each image's set.
        row: `(N,)`; the others are per image as in `SetIndex`.
        sensor: `(N,)`.
        gsd_m: `(N,)`.
        day: `(N,)`.
        lonlat_deg: `(N, 2)`.
        geosot: `(N, 8)`.
        is_anchor: `(N,)`.
        bands: `(N, B)`; not stored where no band is missing.
    """
    # Within a set by sensor, day and row, so that the index does not depend on the order of the tables.
    order = np.lexsort((row, day, sensor, image_set))
    counts = np.bincount(image_set, minlength=len(set_id))
    kept = counts > 0
    return SetIndex(
        set_id=np.ascontiguousarray(set_id[kept]),
        location=np.ascontiguousarray(location[kept]),
        split=np.ascontiguousarray(split[kept]),
        offsets=np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64),
        row=row[order],
        sensor=sensor[order],
        gsd_m=gsd_m[order],
        day=day[order],
        lonlat_deg=lonlat_deg[order],
        geosot=geosot[order],
        is_anchor=is_anchor[order],
        bands=None if bands is None or bands.all() else bands[order],
    )


def _map_members(path: Path, names: set[str], *, optional: set[str]) -> dict[str, Any]:
    """Memory-map the arrays of an uncompressed `.npz`, which NumPy reads into memory instead.

    A member is a zip header of 30 bytes, its name, an extra field, and then a plain `.npy` file.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if set(members) | optional != names:
            raise InputError(f"it holds {', '.join(sorted(members))} instead of {', '.join(sorted(names))}")
        for name, info in members.items():
            if info.compress_type != zipfile.ZIP_STORED:
                raise InputError(f"member {name!r} is compressed and cannot be memory-mapped")
            file.seek(info.header_offset + 26)
            name_length, extra_length = struct.unpack("<HH", file.read(4))
            file.seek(name_length + extra_length, os.SEEK_CUR)
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise InputError(f"member {name!r} has .npy version {version}, expected (1, 0)")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype.hasobject or fortran:
                raise InputError(f"member {name!r} is not a plain C-ordered array")
            if int(np.prod(shape)) == 0:
                arrays[name] = np.empty(shape, dtype)
            else:
                arrays[name] = np.memmap(file, dtype, mode="r", offset=file.tell(), shape=shape)
    return arrays
