"""The direct reader gives what Zarr gives, bit by bit, and refuses what is damaged."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, ZstdCodec

from a2mae.stssd.store import shards
from a2mae.stssd.store.shards import DamagedShardError, ShardedArray, ZarrReader, encode_shard, open_shards

SHAPE = (5, 6, 20, 36)


def write(folder: Path, chunk: tuple[int, ...], *, codec: object = None, ndim: int = 4) -> zarr.Array:
    shape = SHAPE if ndim == 4 else (SHAPE[0], *SHAPE[2:])
    grid = [-(-side // step) * step for side, step in zip(shape[1:], chunk[1:], strict=True)]
    values = np.random.default_rng(0).integers(1, 60000, shape).astype(np.uint16)
    values[3] = 7  # all fill: its chunks are not written
    array = zarr.create_array(
        folder,
        shape=shape,
        dtype="uint16",
        chunks=chunk,
        shards=(2, *grid),
        compressors=codec or BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2),
        fill_value=7,
    )
    array[:] = values
    return array


@pytest.fixture(scope="module", params=[(1, 1, 20, 36), (1, 6, 20, 36), (1, 4, 8, 16), (1, 1, 16, 16)])
def both(request, tmp_path_factory) -> tuple[ShardedArray, zarr.Array]:
    folder = tmp_path_factory.mktemp("array")
    array = write(folder, request.param)
    direct = open_shards(folder, {})
    assert isinstance(direct, ShardedArray) and direct.dtype == np.uint16
    return direct, array


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_window_and_bands_are_those_of_zarr(both, data: st.DataObject) -> None:
    direct, array = both
    y0, x0 = data.draw(st.integers(0, 19)), data.draw(st.integers(0, 35))
    window = (y0, data.draw(st.integers(y0 + 1, 20)), x0, data.draw(st.integers(x0 + 1, 36)))
    row = data.draw(st.integers(0, 4))
    bands = data.draw(st.lists(st.integers(-1, 5), min_size=1, max_size=7))
    shape = (len(bands), window[1] - window[0], window[3] - window[2])
    found, through_zarr = np.full(shape, 3, np.uint16), np.full(shape, 3, np.uint16)
    direct.read(row, bands, window, found)
    ZarrReader(array).read(row, bands, window, through_zarr)
    whole = array[row]
    expected = [whole[band] if band >= 0 else np.zeros_like(whole[0]) for band in bands]
    np.testing.assert_array_equal(found, np.stack(expected)[:, window[0] : window[1], window[2] : window[3]])
    np.testing.assert_array_equal(through_zarr, found)


def test_an_array_without_bands_is_one_band(tmp_path: Path) -> None:
    array = write(tmp_path, (1, 8, 16), ndim=3)
    direct = open_shards(tmp_path, {})
    assert direct is not None
    out = np.empty((1, 20, 36), np.uint16)
    direct.read(4, (0,), (0, 20, 0, 36), out)
    np.testing.assert_array_equal(out[0], array[4])


def test_another_layout_is_left_to_zarr(tmp_path: Path) -> None:
    write(tmp_path, (1, 1, 20, 36), codec=ZstdCodec())
    assert open_shards(tmp_path, {}) is None


def test_few_shards_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_SHARDS_OPEN", (1, 1))
    array = write(tmp_path, (1, 1, 20, 36))
    direct = open_shards(tmp_path, {})
    assert direct is not None
    out = np.empty((1, 20, 36), np.uint16)
    for row in (0, 4, 2, 0, 4):
        direct.read(row, (2,), (0, 20, 0, 36), out)
        np.testing.assert_array_equal(out[0], array[row, 2])
        assert len(direct._open) == 1


def test_shards_leave_files_for_others_to_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        found = []
        for allowed in (256, 2048):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            found.append(shards._shards_at_once())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == [64, 128]


@pytest.mark.parametrize("damage", ["index", "cut", "header", "chunk"])
def test_a_damaged_shard_is_refused_not_read_past(tmp_path: Path, damage: str) -> None:
    write(tmp_path, (1, 1, 20, 36))
    path = tmp_path / "c" / "0" / "0" / "0" / "0"
    data = bytearray(path.read_bytes())
    if damage == "index":
        data[-8] ^= 1
    elif damage == "cut":
        del data[:100]
    elif damage == "header":
        data[4:8] = (2**20).to_bytes(4, "little")  # promises more than there is room for
    else:
        data[12:16] = (5).to_bytes(4, "little")
    path.write_bytes(data)
    direct = open_shards(tmp_path, {})
    assert direct is not None
    with pytest.raises(DamagedShardError, match="is damaged"):
        direct.read(0, range(6), (0, 20, 0, 36), np.empty((6, 20, 36), np.uint16))


@pytest.mark.parametrize("chunk", [(1, 1, 20, 36), (1, 6, 20, 36), (1, 4, 8, 16), (1, 1, 16, 16)])
def test_zarr_reads_what_was_encoded_directly(tmp_path: Path, chunk: tuple[int, ...]) -> None:
    array = write(tmp_path, chunk)
    expected = array[:]
    by_zarr = {file: file.read_bytes() for file in (tmp_path / "c").rglob("*") if file.is_file()}
    assert len(by_zarr) == 3
    for file, data in by_zarr.items():
        number = int(file.relative_to(tmp_path / "c").parts[0])
        encoded = encode_shard(expected[2 * number : 2 * number + 2], (tmp_path / "zarr.json").read_bytes())
        assert encoded is not None and len(encoded) == len(data)  # the same chunks in an order of its own
        file.write_bytes(encoded)
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], expected)
    direct = open_shards(tmp_path, {})
    assert direct is not None
    found = np.zeros(SHAPE[1:], np.uint16)
    for row in range(SHAPE[0]):
        direct.read(row, range(SHAPE[1]), (0, SHAPE[2], 0, SHAPE[3]), found)
        assert np.array_equal(found, expected[row])
    empty = np.full((2, *SHAPE[1:]), 7, np.uint16)
    assert encode_shard(empty, (tmp_path / "zarr.json").read_bytes()) is None


def test_another_layout_is_not_encoded(tmp_path: Path) -> None:
    write(tmp_path, (1, 1, 20, 36), codec=ZstdCodec())
    with pytest.raises(ValueError, match="layout"):
        encode_shard(np.zeros((2, *SHAPE[1:]), np.uint16), (tmp_path / "zarr.json").read_bytes())
