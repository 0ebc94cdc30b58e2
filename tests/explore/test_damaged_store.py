"""A store that is torn, of another model, or anybody's is read right or named; no damage is a hit of no number."""

from __future__ import annotations

import contextlib
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2mae.errors import InputError
from a2mae.explore.parameters import SearchParameters
from a2mae.explore.results import search_archive
from a2mae.explore.store import open_store

MOSTLY = ("id", "sensor", "location_id", "level", "lon", "lat", "geometry", "content", "set_id", "scale", "vector")


@pytest.fixture
def damaged(embedded, tmp_path):
    """A copy of the store, to be damaged."""
    return shutil.copytree(embedded.folder, tmp_path / "store")


def search(folder, archive=None, level="image"):
    options = SearchParameters(level=level, top=5)
    return search_archive(options, open_store(folder), folder.parent / "found", archive=archive)


def part_of(folder):
    return min((folder / "image").rglob("part-*.parquet"))


def rewrite(folder, change):
    table = change(pq.read_table(part_of(folder), partitioning=None))
    pq.write_table(table, part_of(folder))


def with_column(name, values):
    return lambda table: table.set_column(table.schema.get_field_index(name), name, values(table))


def numbers(table, width, number, dtype=np.float16):
    values = np.full(len(table) * width, number, dtype)
    return pa.FixedSizeListArray.from_arrays(pa.array(values), width)


@pytest.mark.parametrize("text", ['"x"', "[]", "null", "5", "{}"])
def test_a_description_that_is_no_object_of_a_store_is_told_what_it_lacks(damaged, text):
    (damaged / "_store.json").write_text(text)
    with pytest.raises(InputError, match=r"_store\.json cannot be read \(no object with format_version\)"):
        open_store(damaged)


@settings(deadline=None, max_examples=60)
@given(
    where=st.floats(0, 1),
    kind=st.sampled_from(["cut", "flip", "zero"]),
    length=st.integers(1, 200),
)
def test_law_whatever_happens_to_a_file_it_is_named_or_gives_numbers(tmp_path_factory, embedded, where, kind, length):
    folder = shutil.copytree(embedded.folder, tmp_path_factory.mktemp("law") / "store")
    path, data = part_of(folder), bytearray(part_of(folder).read_bytes())
    start = int(where * (len(data) - 1))
    if kind == "cut":
        del data[start:]
    else:
        for place in range(start, min(start + length, len(data))):
            data[place] = data[place] ^ 0xFF if kind == "flip" else 0
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        assert np.isfinite(search(folder)["score"]).all()


@settings(deadline=None, max_examples=150)
@given(where=st.floats(0, 1), bit=st.integers(0, 7))
def test_law_one_changed_bit_is_named_or_changes_nothing(tmp_path_factory, embedded, where, bit):
    folder = shutil.copytree(embedded.folder, tmp_path_factory.mktemp("law") / "store")
    data = bytearray(part_of(folder).read_bytes())
    data[int(where * (len(data) - 1))] ^= 1 << bit
    part_of(folder).write_bytes(data)
    with contextlib.suppress(InputError):
        store, whole = open_store(folder), open_store(embedded.folder)
        numbers = np.arange(whole.count("image"))
        found, expected = store.take("image", numbers), whole.take("image", numbers)
        assert found.rows.equals(expected.rows) and np.array_equal(found.vectors, expected.vectors)


def test_a_changed_number_is_named_by_its_file(damaged):
    data = bytearray(part_of(damaged).read_bytes())
    with pq.ParquetFile(part_of(damaged)) as file:
        column = file.metadata.row_group(0).column(file.schema_arrow.names.index("vector"))
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    part_of(damaged).write_bytes(data)
    with pytest.raises(InputError, match=r"part-\w+\.parquet is damaged, .*(?i:crc|checksum).*embed the archive anew"):
        search(damaged)


@pytest.mark.parametrize("name", MOSTLY)
def test_a_column_that_is_absent_empty_or_of_another_type_is_named(damaged, name):
    whole = part_of(damaged).read_bytes()
    for change in (
        lambda table: table.drop([name]),
        with_column(name, lambda table: pa.nulls(len(table), table.schema.field(name).type)),
        with_column(name, lambda table: pa.nulls(len(table), pa.list_(pa.int8()))),
    ):
        part_of(damaged).write_bytes(whole)
        rewrite(damaged, change)
        with pytest.raises(
            InputError, match=rf"part-.*(rows of it have no|absent or of another type).*{name}|{name} is"
        ):
            search(damaged)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_no_hits(damaged, embedded, number):
    rewrite(damaged, with_column("vector", lambda table: numbers(table, embedded.about.dimensions, number)))
    with pytest.raises(InputError, match="vectors of it are not finite; remove the store"):
        search(damaged)


@pytest.mark.parametrize(
    ("name", "value"), [("lon", np.nan), ("lon", 181.0), ("lat", np.inf), ("lat", -91.0), ("geometry", b"xx")]
)
def test_a_place_that_is_none_is_named(damaged, name, value):
    rewrite(damaged, with_column(name, lambda table: pa.array([value] * len(table))))
    with pytest.raises(InputError, match=rf"damaged, or of another store: ({name} is no|a footprint of it cannot)"):
        search(damaged)


@pytest.mark.parametrize("width", [1, 3])
def test_vectors_of_another_length_are_of_another_store(damaged, width):
    rewrite(damaged, with_column("vector", lambda table: numbers(table, width, 1)))
    with pytest.raises(InputError, match=r"vector is absent or of another type than _store\.json says"):
        search(damaged)


@pytest.mark.parametrize(
    "change",
    [
        {"dimensions": 5},
        {"dimensions": 0},
        {"dimensions": -1},
        {"dimensions": 10**9},
        {"dtype": "int8"},
        {"tile_px": 0},
    ],
)
def test_what_the_store_says_of_itself_has_to_fit_its_files(damaged, change):
    about = json.loads((damaged / "_store.json").read_text("utf-8"))
    (damaged / "_store.json").write_text(json.dumps(about | change))
    with pytest.raises(InputError, match=r"_store\.json"):
        search(damaged)


def test_lists_nested_without_end_are_named(damaged):
    (damaged / "_store.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"_store\.json cannot be read"):
        open_store(damaged)


def test_a_folder_or_a_pipe_in_the_place_of_a_file_is_named(damaged):
    (damaged / "image" / "part-0.parquet").mkdir()
    with pytest.raises(InputError, match=r"part-0\.parquet is damaged"):
        search(damaged)
    (damaged / "image" / "part-0.parquet").rmdir()
    os.mkfifo(damaged / "image" / "part-0.parquet")
    with pytest.raises(InputError, match=r"part-0\.parquet is damaged.*no regular file"):
        search(damaged)


@pytest.mark.parametrize("level", ["image", "set"])
def test_a_level_without_a_vector_is_told(damaged, level):
    shutil.rmtree(damaged / level)
    with pytest.raises(InputError, match=f"holds no vector of level '{level}'"):
        search(damaged, level=level)


def test_an_image_that_the_archive_has_no_longer_is_no_hit(damaged, archive):
    rewrite(damaged, with_column("id", lambda table: pa.array([f"gone-{row}" for row in range(len(table))])))
    with pytest.raises(InputError, match=r"has the image 'gone-\d+', which the archive has not: embed the archive"):
        search(damaged, archive)
