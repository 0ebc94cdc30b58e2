"""The embedding store: a vector per image and per image set, as GeoParquet files that are added to.

`image/<sensor>/part-<digest>.parquet` and `set/part-<digest>.parquet`, each whole or not there, and `_store.json`,
which says whose vectors they are. Vectors are int8 with a scale of their own, or float16; `pyarrow.dataset`, geopandas
and DuckDB read them. A vector belongs to its image's content: where that or the model changes, it is made anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from a2mae.config import ComputePrecision, read_back
from a2mae.errors import InputError
from a2mae.files import check_regular, clear_leftovers, digest_of, whole_file, write_json
from a2mae.tables import geo_schema
from a2mae.tasks.parameters import Pool

Floats = npt.NDArray[np.float32]

ABOUT = "_store.json"
FORMAT_VERSION = 1
LEVELS = ("image", "set")
_LIMIT = 127
_UTC = pa.timestamp("us", tz="UTC")
_KEYS = (
    ("id", pa.string()),  # image_id or set_id
    ("level", pa.string()),  # "image" or "set"
    ("set_id", pa.string()),
    ("location_id", pa.string()),
    ("sensor", pa.string()),  # of a set: its sensors, joined by +
    ("datetime", _UTC),  # of a set: its first image
    ("split", pa.string()),
    ("lon", pa.float64()),  # of the footprint's centre, degrees
    ("lat", pa.float64()),
    ("content", pa.string()),  # digest of what the vector was made of
)


_MAY_BE_NULL = {"datetime", "split"}


@dataclass(frozen=True)
class StoreAbout:
    """Whose vectors a store holds.

    Attributes:
        model: Digest of the model directory.
        dimensions: Length of a vector.
        dtype: `int8` or `float16`.
        pool: How tokens became a vector.
        bands: What the encoder saw, by common name.
        location: Whether it was told where an image lies.
        tile_px: Largest side of an image; larger ones were averaged to it.
        precision: What the encoder computed in.
    """

    model: str
    dimensions: int
    dtype: Literal["int8", "float16"]
    pool: Pool
    bands: tuple[str, ...]
    location: bool
    tile_px: int
    precision: ComputePrecision = "32-true"

    def __post_init__(self) -> None:
        """Check sizes: the file may be anybody's.

        Raises:
            InputError: If there can be no vector or image of them.
        """
        if self.dimensions < 1 or self.tile_px < 1:
            raise InputError(f"dimensions {self.dimensions} and tile_px {self.tile_px}: both are 1 or more")


@dataclass(frozen=True)
class Vectors:
    """Rows of a store: columns but `vector` and `scale` as an Arrow table, and the vectors `(N, D)`."""

    rows: pa.Table
    vectors: Floats


class EmbeddingStore:
    """A folder of vectors of one model.

    Attributes:
        folder: Where it lies.
        about: Whose vectors they are.
    """

    def __init__(self, folder: Path, about: StoreAbout) -> None:
        """Use `open_store` or `begin_store` instead."""
        self.folder, self.about = folder, about

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of every file."""
        kind = pa.int8() if self.about.dtype == "int8" else pa.float16()
        columns = [*_KEYS, ("scale", pa.float32()), ("vector", pa.list_(kind, self.about.dimensions))]
        return geo_schema(columns, "EPSG:4326", ["Polygon", "MultiPolygon"], {"model": self.about.model})

    def parts(self) -> list[Path]:
        """List the files, in order."""
        return sorted(self.folder.glob("*/**/part-*.parquet"))

    def contents(self) -> dict[tuple[str, str], str]:
        """Give the digest of what each vector was made of, by level and id."""
        found: dict[tuple[str, str], str] = {}
        for path in self.parts():
            table = self._read(path, ["level", "id", "content"])
            level, name, content = (table[key].to_pylist() for key in ("level", "id", "content"))
            found |= dict(zip(zip(level, name, strict=True), content, strict=True))
        return found

    def count(self, level: str) -> int:
        """Count the vectors of a level."""
        return sum(count for _, _, count in self._groups(level))

    def blocks(self, level: str, columns: Sequence[str] = (), *, most: int | None = None) -> Iterator[Vectors]:
        """Read the vectors of a level, file by file, row group by row group.

        Args:
            level: `image` or `set`.
            columns: Further columns that are wanted.
            most: Read about so many rows, in row groups evenly chosen; None: all.
        """
        groups = self._groups(level)
        total = sum(count for _, _, count in groups)
        if most is not None and total > most:
            few = max(round(len(groups) * most / total), 1)
            groups = [groups[index] for index in np.linspace(0, len(groups) - 1, few).round().astype(int)]
        for path, group, _ in groups:
            table = self._read(path, [*columns, "scale", "vector"], group)
            yield Vectors(table.select(list(columns)), _decoded(table, path))

    def table(self, level: str, columns: Sequence[str]) -> pa.Table:
        """Read columns of all rows of a level, in the order of `blocks`.

        Raises:
            InputError: If the store has no vector of this level.
        """
        tables = [self._read(path, columns) for path in self._files(level)]
        if not sum(map(len, tables)):
            raise InputError(f"{self.folder} holds no vector of level {level!r}: embed the archive first")
        return pa.concat_tables(tables)

    def take(self, level: str, numbers: Sequence[int] | npt.NDArray[np.int64]) -> Vectors:
        """Read rows with all their columns, in the order asked for.

        Args:
            level: `image` or `set`.
            numbers: Of the rows in the order of `blocks`.
        """
        wanted, first = np.asarray(numbers, np.int64), 0
        tables, vectors, places = [], [], [np.zeros(0, np.int64)]
        for path, group, count in self._groups(level):
            here = np.flatnonzero((wanted >= first) & (wanted < first + count))
            if here.size:
                table = self._read(path, self.schema.names, group).take(wanted[here] - first)
                tables.append(table)
                vectors.append(_decoded(table, path))
                places.append(here)
            first += count
        order = np.argsort(np.concatenate(places))
        rows = pa.concat_tables(tables).take(order) if tables else self.schema.empty_table()
        none = np.zeros((0, self.about.dimensions), np.float32)
        return Vectors(rows.drop(["scale", "vector"]), np.concatenate([none, *vectors])[order])

    def _files(self, level: str) -> list[Path]:
        return [path for path in self.parts() if path.relative_to(self.folder).parts[0] == level]

    def _groups(self, level: str) -> list[tuple[Path, int, int]]:
        """File, number of the row group in it, and its rows."""
        groups = []
        for path in self._files(level):
            with self._opened(path) as file:
                about = file.metadata
                groups += [(path, number, about.row_group(number).num_rows) for number in range(about.num_row_groups)]
        return groups

    @contextmanager
    def _opened(self, path: Path) -> Iterator[pq.ParquetFile]:
        """Open a file whose columns are those that the store says, and whose pages have the checksums they were given.

        Raises:
            InputError: If it is torn, or of another store; also for what Arrow raises inside.
        """
        try:
            check_regular(path)
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                there = {field.name: field.type for field in file.schema_arrow}
                wrong = [field.name for field in self.schema if there.get(field.name) != field.type]
                if wrong:
                    raise _torn(path, f"{wrong[0]} is absent or of another type than {ABOUT} says")
                yield file
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _torn(path, str(error).partition("\n")[0]) from error

    def _read(self, path: Path, columns: Sequence[str], group: int | None = None) -> pa.Table:
        """Read columns of a file, or of one row group of it, and check that every row has what a row needs."""
        with self._opened(path) as file:
            columns = list(columns)
            table = file.read(columns) if group is None else file.read_row_group(group, columns)
        for name in set(columns) - _MAY_BE_NULL:
            if table[name].null_count:
                raise _torn(path, f"rows of it have no {name}")
        for name, most in (("lon", 180), ("lat", 90)):
            values = table[name].to_numpy() if name in columns else np.zeros(0)
            if not (np.abs(values) <= most).all():
                raise _torn(path, f"{name} is no number of degrees in rows of it")
        return table

    def add(self, rows: Mapping[str, Sequence[object]], geometry: Sequence[bytes], vectors: Floats) -> Path:
        """Write one more file, whole.

        Args:
            rows: The columns but `scale`, `vector` and `geometry`; all rows of one level and, of images, one sensor.
            geometry: Footprints as WKB, EPSG:4326.
            vectors: `(N, D)`.

        Returns:
            Its path.
        """
        scale = np.ones(len(vectors), np.float32)
        if self.about.dtype == "int8":
            scale = np.maximum(np.abs(vectors).max(axis=1), np.float32(1e-12)) / np.float32(_LIMIT)
            stored: npt.NDArray[np.generic] = np.round(vectors / scale[:, None]).astype(np.int8)
        else:
            stored = vectors.astype(np.float16)
        arrays = [pa.array(rows[name], kind) for name, kind in _KEYS]
        arrays.append(pa.array(scale))
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(stored.ravel()), self.about.dimensions))
        arrays.append(pa.array(geometry, pa.binary()))
        level, sensor = str(rows["level"][0]), str(rows["sensor"][0])
        place = self.folder / level / sensor if level == "image" else self.folder / level
        path = place / f"part-{digest_of([list(rows['id']), list(rows['content'])])[:16]}.parquet"
        with whole_file(path) as temporary:
            self._write(pa.Table.from_arrays(arrays, schema=self.schema), temporary)
        return path

    def _write(self, table: pa.Table, path: Path) -> None:
        # A dictionary of 256 numbers pays, one of 65,536 costs more than it saves.
        texts = [name for name, kind in _KEYS if kind == pa.string()]
        coded = [*texts, "vector.list.element"] if self.about.dtype == "int8" else texts
        pq.write_table(table, path, row_group_size=65_536, use_dictionary=coded, write_page_checksum=True)

    def keep(self, wanted: Mapping[tuple[str, str], str]) -> int:
        """Leave out the vectors of what is gone or has changed.

        Args:
            wanted: The digest of each content, by level and id.

        Returns:
            How many are gone.
        """
        gone = 0
        for path in self.parts():
            table = self._read(path, self.schema.names)
            names = zip(table["level"].to_pylist(), table["id"].to_pylist(), strict=True)
            stays = [
                wanted.get(key) == content for key, content in zip(names, table["content"].to_pylist(), strict=True)
            ]
            if all(stays):
                continue
            gone += stays.count(False)
            if any(stays):
                with whole_file(path) as temporary:
                    self._write(table.filter(pa.array(stays)).cast(self.schema), temporary)
            else:
                path.unlink()
        return gone


def geometries(rows: pa.Table, folder: Path) -> npt.NDArray[np.object_]:
    """Read the footprints of rows of a store.

    Args:
        rows: With their column `geometry`.
        folder: Of the store, for the message.

    Raises:
        InputError: If one is none.
    """
    try:
        found: npt.NDArray[np.object_] = shapely.from_wkb(rows["geometry"].to_numpy())
    except shapely.errors.GEOSException as error:
        raise _torn(folder, f"a footprint of it cannot be read: {error}") from error
    return found


def _torn(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} is damaged, or of another store: {why}; remove the store and embed the archive anew (kedro run"
        " --pipelines=embed)"
    )


def _decoded(table: pa.Table, path: Path) -> Floats:
    """Turn the stored vectors of a file into floats `(N, D)`."""
    column = table["vector"].combine_chunks()
    stored = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)
    vectors: Floats = stored.astype(np.float32)
    if stored.dtype == np.int8:
        vectors *= table["scale"].to_numpy()[:, None]
    if not np.isfinite(vectors).all():
        raise _torn(path, "vectors of it are not finite")
    return vectors


def begin_store(folder: Path, about: StoreAbout) -> EmbeddingStore:
    """Open a store to add to it; vectors of another model, or made otherwise, are removed.

    Args:
        folder: Where.
        about: Whose vectors are to be added.
    """
    clear_leftovers(folder)
    same = about_begun(folder) == about
    store = EmbeddingStore(folder, about)
    if not same:
        for path in store.parts():
            path.unlink()
        write_json(folder / ABOUT, {"format_version": FORMAT_VERSION, **asdict(about)})
    return store


def about_begun(folder: Path) -> StoreAbout | None:
    """Tell what the vectors are whose store lies in a folder; None where there is none that is read."""
    try:
        return _read_about(folder)
    except InputError:
        return None


def open_store(folder: Path, model: str | None = None) -> EmbeddingStore:
    """Open a store to search it.

    Args:
        folder: Where.
        model: Digest of the model that queries are embedded by; None: any.

    Raises:
        InputError: If there is none, it holds no vector, or its vectors are another model's.
    """
    store = EmbeddingStore(folder, _read_about(folder))
    if model is not None and store.about.model != model:
        raise InputError(
            f"the vectors of {folder} are of the model {store.about.model[:12]}, and the model here is {model[:12]}:"
            " they cannot be compared; embed the archive anew (kedro run --pipelines=embed)"
        )
    if not store.parts():
        raise InputError(f"{folder} holds no vector: embed an archive first (kedro run --pipelines=embed)")
    return store


def _read_about(folder: Path) -> StoreAbout:
    path = folder / ABOUT
    if not path.is_file():
        raise InputError(f"{folder} is no embedding store ({ABOUT} is absent): make one (kedro run --pipelines=embed)")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}): embed the archive anew") from error
    if not isinstance(found, dict) or "format_version" not in found:
        raise InputError(f"{path} cannot be read (no object with format_version): embed the archive anew")
    version = found.pop("format_version")
    if version != FORMAT_VERSION:
        raise InputError(f"{folder} has another format version than {FORMAT_VERSION}: embed the archive anew")
    try:
        return read_back(StoreAbout, found, f"{path} cannot be read")
    except InputError as error:
        raise InputError(f"{error}: embed the archive anew") from error
