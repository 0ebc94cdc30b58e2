"""The image-set store: what is written is read, a killed build ends with the same bytes, bad stores are named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2mae.remote.storage import Folder, StoreError, StoreMissingError, StoreTornError, StoreVersionError
from a2mae.sensors import UnknownBandError, get_sensor
from a2mae.stssd.store.ledger import Shard
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.store.writer import SensorPlan, StoreWriter

S2 = get_sensor("sentinel-2-l2a")
NAIP = get_sensor("naip")
PLANS = (SensorPlan(S2, 11, 40, 44, rows_per_shard=4), SensorPlan(NAIP, 5, 600, 520, rows_per_shard=2))


def content(shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    plan = next(plan for plan in PLANS if plan.sensor.id == shard.sensor)
    rng = np.random.default_rng([len(shard.sensor), shard.index])
    shape = (shard.stop - shard.start, *plan.shape[1:])
    top = np.iinfo(plan.sensor.encoding.dtype).max
    pixels = rng.integers(1, top, shape).astype(plan.sensor.encoding.dtype)
    return pixels, rng.random((shape[0], *shape[2:])) < 0.8


def build(url: str | Path, fingerprint: str = "one") -> StoreWriter:
    writer = StoreWriter.create(url, PLANS, fingerprint=fingerprint)
    for shard in writer.pending():
        writer.write(shard, *content(shard), note={"first": shard.start} if shard.index == 1 else None)
    writer.finish()
    return writer


def tree(path: Path) -> dict[str, str]:
    return {
        str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in path.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "sets.zarr"
    build(path)
    return path


def test_what_is_written_is_read(built: Path) -> None:
    store = ImageSetStore.open(str(built))
    assert store.sensors == ("naip", "sentinel-2-l2a")
    assert store.sensor("sentinel-2-l2a") == S2
    assert store.count("naip") == 5
    assert store.shape("naip") == (4, 600, 520)
    pixels = np.concatenate([content(Shard(S2.id, i, s, min(s + 4, 11)))[0] for i, s in enumerate((0, 4, 8))])
    valid = np.concatenate([content(Shard(S2.id, i, s, min(s + 4, 11)))[1] for i, s in enumerate((0, 4, 8))])
    rows = np.array([10, 0, 3, 4, 4])
    got, got_valid = store.read(S2.id, rows)
    np.testing.assert_array_equal(got, pixels[rows])
    np.testing.assert_array_equal(got_valid, valid[rows])
    got, _ = store.read(S2.id, rows, bands=["nir", 3, "B02"], window=(5, 25, 7, 44))
    np.testing.assert_array_equal(got, pixels[rows][:, [7, 3, 1], 5:25, 7:44])
    store.verify()


def test_band_chunks_read_the_same(built: Path) -> None:
    store = ImageSetStore.open(built)
    everything, _ = store.read("naip", [3])
    part, part_valid = store.read("naip", [3], bands=["nir", "blue"], window=(500, 580, 400, 520))
    np.testing.assert_array_equal(part, everything[:, [3, 0], 500:580, 400:520])
    assert part_valid.shape == (1, 80, 120)


def test_physical_values_are_finite_and_zero_where_invalid(built: Path) -> None:
    store = ImageSetStore.open(built)
    stored, valid = store.read(S2.id, [1, 2])
    physical, valid_again = store.read_physical(S2.id, [1, 2])
    assert physical.dtype == np.float32
    np.testing.assert_array_equal(valid, valid_again)
    expected = np.where(valid[:, None], stored * 1e-4 - 0.1, 0)
    np.testing.assert_allclose(physical, expected, atol=1e-5)


def test_errors_name_what_is_there(built: Path, tmp_path: Path) -> None:
    store = ImageSetStore.open(built)
    with pytest.raises(KeyError, match=r"has no sensor 'gaofen-1'; it has naip, sentinel-2-l2a"):
        store.read("gaofen-1", [0])
    with pytest.raises(IndexError, match=r"the store has 0\.\.4"):
        store.read("naip", [5])
    with pytest.raises(UnknownBandError):
        store.read("naip", [0], bands=["swir16"])
    with pytest.raises(IndexError, match="bands"):
        store.read("naip", [0], bands=[4])
    with pytest.raises(IndexError, match="window"):
        store.read("naip", [0], window=(0, 601, 0, 10))
    with pytest.raises(StoreMissingError, match="kedro run --pipelines=coregister"):
        ImageSetStore.open(tmp_path / "nothing.zarr")


def test_torn_and_foreign_stores_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sets.zarr"
    writer = StoreWriter.create(path, PLANS, fingerprint="one")
    with pytest.raises(StoreTornError, match="did not finish"):
        ImageSetStore.open(path)
    with pytest.raises(StoreTornError, match="6 shards are not written"):
        writer.finish()
    build(path)
    shard = path / "naip" / "pixels" / "c" / "1" / "0" / "0" / "0"
    data = shard.read_bytes()
    shard.write_bytes(data[:-10])
    with pytest.raises(StoreTornError, match="bytes instead of"):
        ImageSetStore.open(path)
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StoreTornError, match="damaged"):
        ImageSetStore.open(path).verify()
    shard.unlink()
    with pytest.raises(StoreTornError, match="is missing"):
        ImageSetStore.open(path)
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["a2mae"]["format_version"] = 99
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreVersionError, match="99"):
        ImageSetStore.open(path)

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="not an image-set store"):
        StoreWriter.create(other, PLANS, fingerprint="one")
    assert (other / "thesis.tex").exists()


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "s.zarr", PLANS, fingerprint="one")
    shard = writer.shards()[0]
    pixels, valid = content(shard)
    with pytest.raises(ValueError, match="planned"):
        writer.write(shard, pixels[:1], valid)
    with pytest.raises(ValueError, match="planned"):
        writer.write(shard, pixels.astype("int32"), valid)
    with pytest.raises(ValueError, match="planned"):
        writer.write(shard, pixels, valid[:, :3])


def test_another_fingerprint_starts_anew_and_the_same_one_goes_on(tmp_path: Path, built: Path) -> None:
    path = tmp_path / "sets.zarr"
    writer = StoreWriter.create(path, PLANS[:1], fingerprint="old")
    writer.write(writer.shards()[0], *content(writer.shards()[0]))
    assert len(StoreWriter.create(path, PLANS[:1], fingerprint="old").pending()) == 2
    assert len(StoreWriter.create(path, PLANS, fingerprint="one").pending()) == 6
    writer = build(path)
    assert tree(path) == tree(built)
    assert writer.pending() == []
    assert writer.notes() == StoreWriter(built).notes()
    assert [(shard.sensor, note) for shard, note in writer.notes()] == [("naip", {"first": 2}), (S2.id, {"first": 4})]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("cut", [None, 0, 3, 9])
def test_shards_that_were_made_of_the_same_stay(
    tmp_path: Path, finished: bool, cut: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(path: Path, plans: tuple[SensorPlan, ...], changed: int | None, fingerprint: str) -> list[Shard]:
        """Write what is pending; the shard of this index has other pixels."""

        def made_of(shard: Shard) -> str:
            return f"{shard} {shard.index == changed}"

        writer = StoreWriter.create(path, plans, fingerprint=fingerprint, made_of=made_of)
        pending = writer.pending()
        for shard in pending:
            pixels, valid = content(shard)
            note = {"first": shard.start} if shard.index == 0 else None
            writer.write(shard, pixels[:, ::-1] if shard.index == changed else pixels, valid, note, made_of(shard))
        if finished or fingerprint == "other":
            writer.finish()
        return pending

    path, fresh = tmp_path / "sets.zarr", tmp_path / "fresh.zarr"
    assert len(made(path, PLANS, None, "one")) == 6
    # More rows of one sensor, other pixels in a shard of each.
    plans = (dataclasses.replace(PLANS[0], count=13), PLANS[1])
    made(fresh, plans, 1, "other")
    if cut is not None:  # killed while the store is cleared
        left = iter(range(cut))
        remove = Folder.remove

        def dying(folder: Folder, name: str) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            remove(folder, name)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Folder, "remove", dying)
            made(path, plans, 1, "other")
    again = made(path, plans, 1, "other")
    assert {(s.sensor, s.index) for s in again} == {(S2.id, 1), (S2.id, 2), (S2.id, 3), (NAIP.id, 1)}
    assert tree(path) == tree(fresh)
    ImageSetStore.open(str(path)).verify()
    assert not made(path, plans, 1, "other")


@pytest.mark.parametrize("damage", ["empty", "cut", "flip"])
@pytest.mark.parametrize("finished", [True, False])
def test_what_is_torn_is_named_and_made_again_alone(
    tmp_path: Path, built: Path, finished: bool, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of every kind of file that a store has, whatever a power cut or a bad disk leaves of it."""

    def fill(path: Path) -> list[str]:
        writer = StoreWriter.create(path, PLANS, fingerprint="one", made_of=str)
        pending = writer.pending()
        for shard in pending:
            writer.write(shard, *content(shard), {"first": shard.start} if shard.index == 1 else None, str(shard))
        return [key for shard in pending for key in shard.keys]

    whole = tmp_path / "whole.zarr"
    fill(whole)
    start = tmp_path / "start.zarr"
    shutil.copytree(whole, start)
    StoreWriter(whole).finish()
    expected = tree(whole)
    if finished:
        start = whole
    for number, name in enumerate(tree(start)):
        with_sums = finished and number % 2 == 0  # without them, shards are compared by SHA-256
        path = tmp_path / f"{number}.zarr"
        shutil.copytree(start, path)
        if finished:
            shutil.copytree(f"{whole}.work", f"{path}.work")
            if not with_sums:
                (tmp_path / f"{number}.zarr.work/manifest/crc32c.json").unlink()
        data = (path / name).read_bytes()
        half = len(data) // 2
        torn = {"empty": b"", "cut": data[:half], "flip": data[:half] + bytes([data[half] ^ 4]) + data[half + 1 :]}
        (path / name).write_bytes(torn[damage])
        if finished and not name.endswith("zarr.json") and (damage != "flip" or "/c/" in name):
            with pytest.raises(StoreTornError, match=r"pipelines=coregister"):
                store = ImageSetStore.open(path)
                store.read(name.split("/")[0], range(store.count(name.split("/")[0])))
        caplog.clear()
        made = fill(path)
        assert made == [] or name in made or name.startswith("ledger/"), name
        assert len(made) <= 2, f"{name}: more than one shard was written again"
        StoreWriter(path).finish()
        assert tree(path) == expected, name
        assert tree(tmp_path / f"{number}.zarr.work") == tree(tmp_path / "whole.zarr.work"), name
        if "/c/" in name or (name in ("manifest.json", "zarr.json") and damage != "flip"):
            assert name in caplog.text, f"{name} is not named"


def test_a_manifest_without_its_copy_has_all_shards_written_again(tmp_path: Path, built: Path) -> None:
    path = tmp_path / "sets.zarr"
    build(path)
    shutil.rmtree(tmp_path / "sets.zarr.work")
    (path / "manifest.json").write_bytes(b"")
    with pytest.raises(StoreTornError, match=r"manifest\.json is torn"):
        ImageSetStore.open(path)
    build(path)
    assert tree(path) == tree(built)


def test_an_empty_row_takes_no_space_and_reads_as_nodata(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    writer = StoreWriter.create(path, [SensorPlan(S2, 2, 8, 8)], fingerprint="x")
    (shard,) = writer.shards()
    writer.write(shard, np.zeros((2, 12, 8, 8), "uint16"), np.zeros((2, 8, 8), bool))
    writer.finish()
    pixels, valid = ImageSetStore.open(path).read(S2.id, [0, 1])
    assert not pixels.any() and not valid.any()


def _die_after(path: str, writes: int) -> None:
    writer = StoreWriter.create(path, PLANS, fingerprint="one")
    original, done = os.replace, 0

    def replace(source: str, target: str) -> None:
        nonlocal done
        done += 1
        if done > writes:
            os.kill(os.getpid(), signal.SIGKILL)
        original(source, target)

    os.replace = replace  # every file becomes visible through os.replace: die before the n-th
    for shard in writer.pending():
        writer.write(shard, *content(shard), note={"first": shard.start} if shard.index == 1 else None)
    writer.finish()


@pytest.mark.parametrize("writes", [0, 1, 5, 11])
def test_killed_build_ends_byte_identical(tmp_path: Path, built: Path, writes: int) -> None:
    path = tmp_path / "sets.zarr"
    process = multiprocessing.get_context("spawn").Process(target=_die_after, args=(str(path), writes))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    build(path)
    assert tree(path) == tree(built)
    assert ImageSetStore.open(path).manifest_hash == ImageSetStore.open(built).manifest_hash


def _read_in_child(store: ImageSetStore, queue: multiprocessing.Queue) -> None:
    queue.put(int(store.read(S2.id, [1, 7])[0].sum()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reads_in_worker_processes_after_the_parent_has_read(built: Path, method: str) -> None:
    store = ImageSetStore.open(built)
    expected = int(store.read(S2.id, [1, 7])[0].sum())  # starts the decoder's threads, which a fork loses
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_read_in_child, args=(store, queue))
    process.start()
    assert queue.get(timeout=60) == expected
    process.join(10)
    assert pickle.loads(pickle.dumps(store)).manifest_hash == store.manifest_hash


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 10), max_size=6), st.permutations(range(12)), st.integers(1, 12))
def test_any_rows_and_bands(built: Path, rows: list[int], order: list[int], count: int) -> None:
    store = ImageSetStore.open(built)
    everything, everything_valid = store.read(S2.id, range(11))
    got, valid = store.read(S2.id, rows, bands=order[:count])
    np.testing.assert_array_equal(got, everything[rows][:, order[:count]])
    np.testing.assert_array_equal(valid, everything_valid[rows])


def test_a_store_on_s3_is_written_continued_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "not-a-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"endpoint_url": f"http://{host}:{port}"}
        S3FileSystem(**options).mkdir("bucket")
        url, plans = "s3://bucket/deep/sets.zarr", PLANS[:1]
        writer = StoreWriter.create(url, plans, fingerprint="one", storage_options=options)
        writer.write(writer.shards()[0], *content(writer.shards()[0]))
        with pytest.raises(StoreTornError, match="did not finish"):
            ImageSetStore.open(url, options)
        writer = StoreWriter.create(url, plans, fingerprint="one", storage_options=options)
        assert len(writer.pending()) == 2
        for shard in writer.pending():
            writer.write(shard, *content(shard))
        writer.finish()
        store = ImageSetStore.open(url, options)
        store.verify()
        np.testing.assert_array_equal(store.read(S2.id, [9, 8])[0], content(writer.shards()[2])[0][[1, 0]])
        assert "endpoint" not in repr(store)
    finally:
        server.stop()
