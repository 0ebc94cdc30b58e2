"""A shard that was compared with its digest is not read for that again, unless anything has been written to it."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest

from a2mae.remote.storage import StoreTornError
from a2mae.stssd.store import compared as module
from a2mae.stssd.store import shards
from a2mae.stssd.store.compared import Compared
from a2mae.stssd.store.store import COMPARED, COPY, ImageSetStore
from stssd.store.test_store import build


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose files have settled."""
    build(tmp_path / "sets.zarr")
    monkeypatch.setattr(module, "_SETTLED_NS", 0)
    return tmp_path / "sets.zarr"


def read_all(path: Path) -> list[np.ndarray]:
    found = ImageSetStore.open(path)  # as a new process does: nothing is remembered but on disk
    return [part for sensor in found.sensors for part in found.read(sensor, range(found.count(sensor)))]


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read to be compared."""
    seen: list[str] = []
    crc = shards._crc32c
    monkeypatch.setattr(
        shards, "_crc32c", lambda stream: seen.append(os.readlink(f"/proc/self/fd/{stream.name}")) or crc(stream)
    )
    return seen


def test_each_shard_is_compared_once_over_all_processes(store: Path, digests: list[str]) -> None:
    first = read_all(store)
    assert len(digests) == len(set(digests)) == 12  # two arrays of 3 shards each, of two sensors
    again = read_all(store)
    assert len(digests) == 12
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))


@pytest.mark.parametrize("times", ["new", "put back"])
def test_a_flip_after_that_is_found(store: Path, times: str) -> None:
    read_all(store)
    shard = store / "naip/pixels/c/1/0/0/0"
    state, data = shard.stat(), bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    with shard.open("r+b") as file:
        file.write(data)  # in place: size and inode stay
    if times == "put back":
        os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(StoreTornError, match="naip/pixels/c/1/0/0/0 is damaged"):
        read_all(store)


def test_a_record_that_is_torn_or_foreign_only_costs_time(store: Path, digests: list[str]) -> None:
    read_all(store)
    record = store.with_name("sets.zarr.work") / COPY / COMPARED
    whole = record.read_bytes()
    for content, again in ((whole[: len(whole) // 2], True), (b"\xff\x00 nonsense", True), (whole + b"\n123", False)):
        record.write_bytes(content)
        digests.clear()
        read_all(store)
        assert bool(digests) is again


def test_another_digest_is_another_file(store: Path) -> None:
    """What was compared by one manifest is compared again by another's."""
    record = Compared(store.with_name("record"))
    state = (store / "manifest.json").stat()
    record.add(7, state)
    assert record.knows(7, state) and not record.knows(8, state)
    assert Compared(store.with_name("record")).knows(7, state)


def test_a_file_that_may_change_within_a_tick_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"one")
    record = Compared(tmp_path / "record")
    record.add(1, (tmp_path / "new").stat())
    assert not (tmp_path / "record").exists()
    os.utime(tmp_path / "new", ns=(0, time.time_ns() - 10**12))  # its entry changed just now all the same
    record.add(1, (tmp_path / "new").stat())
    assert not record.knows(1, (tmp_path / "new").stat())


def test_where_nothing_can_be_written_every_process_compares(
    store: Path, digests: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    record = store.with_name("sets.zarr.work") / COPY / COMPARED
    record.mkdir()  # a folder where the file would be
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            read_all(store)
    assert len(digests) == 24
    assert sum("every process compares the shards again" in line for line in caplog.messages) == 2
    caplog.clear()
    (store.parent / "file").write_text("where a folder would be")
    with caplog.at_level(logging.INFO):
        other = Compared(store.parent / "file" / "record")
        for digest in (1, 2):
            other.add(digest, (store / "manifest.json").stat())
    assert sum("every process compares the shards again" in line for line in caplog.messages) == 1
