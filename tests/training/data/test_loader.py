"""Batches by number: the same wherever and by how many they are read."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import make_index, make_spec, write_store

from a2mae.remote.storage import StoreError
from a2mae.training.data.index import INDEX_FILE
from a2mae.training.data.loader import BatchDataset, DataMismatchError, SampleReader, make_loader, next_batch
from a2mae.training.data.prepare import RawBatch, packed, prepare
from a2mae.training.monitor import HeldOut
from a2mae.training.spec import SpecificationError


def prepared(raw: RawBatch, reader: SampleReader) -> list[torch.Tensor]:
    batch = prepare(raw, reader.tables(), reader.spec.sampled_size)
    return [getattr(batch, field.name) for field in dataclasses.fields(batch)]


def test_processes_share_a_batch_in_order(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store)
    reader = SampleReader(tmp_path, spec)
    whole = prepared(BatchDataset(tmp_path, spec)[5], reader)
    parts = [prepared(BatchDataset(tmp_path, spec, rank=r, world_size=2)[5], reader) for r in range(2)]
    for tensor, first, second in zip(whole, *parts, strict=True):
        torch.testing.assert_close(torch.cat([first, second]), tensor)


def test_spawned_workers_and_a_later_start_read_the_same(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store)
    reader, dataset = SampleReader(tmp_path, spec), BatchDataset(tmp_path, spec)
    here = [prepared(raw, reader) for raw in make_loader(dataset, 0, 6, workers=0, pin_memory=False)]
    batches = iter(make_loader(dataset, 2, 6, workers=2, pin_memory=False))
    there = [prepared(next_batch(batches), reader) for _ in range(4)]
    with pytest.raises(StopIteration):
        next_batch(batches)
    assert len(here) == 6
    for expected, found in zip(here[2:], there, strict=True):
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one, other)


def test_a_batch_passes_between_processes_as_one_block(tmp_path: Path, store) -> None:
    """Each tensor of its own costs a file of shared memory, a connection and 0.2 ms in either process."""
    raw = BatchDataset(tmp_path, make_spec(tmp_path, store))[5]
    sent = packed(raw)
    assert sum(isinstance(value, torch.Tensor) for value in vars(sent).values()) == 1
    assert b"torch" in pickle.dumps(sent.layout) and b"_rebuild" not in pickle.dumps(sent.layout), "no tensor in it"
    found = sent.unpacked()
    assert found.fully_valid == raw.fully_valid and len(found.images) == len(raw.images)
    pairs = [(getattr(found, name), getattr(raw, name)) for name in raw._per_sample]
    for one, other in zip(found.images, raw.images, strict=True):
        assert (one.sensor, one.grid, one.origin) == (other.sensor, other.grid, other.origin)
        pairs += [(getattr(one, name), getattr(other, name)) for name in ("pixels", "valid", "bands", "slot")]
    for one, other in pairs:
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_every_set_is_seen_once_per_epoch_also_across_batches(tmp_path: Path, store) -> None:
    reader = SampleReader(tmp_path, make_spec(tmp_path, store))
    keys = reader.keys(0, 18)  # three epochs of six sets in batches of four
    for epoch in range(3):
        assert sorted(position for e, position in keys if e == epoch) == [0, 1, 2, 3, 4, 5]
    assert reader.keys(4, 8) == keys[4:8]


def test_pixels_are_the_stores_own(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store, whole_probability=1.0, image_size=48, images=1)
    reader = SampleReader(tmp_path, spec)
    raw = reader.read(reader.keys(0, 12))
    batch = prepare(raw, reader.tables(), 48)
    fine = [i for i in range(12) if spec.data.sensors[int(batch.sensor_id[i, 0])].id == "sentinel-2-l2a"]
    assert fine
    for i in fine:  # 48 stored pixels, 48 wanted: nothing is resampled
        draw = reader.draw(*reader.keys(i, i + 1)[0])
        image = int(draw.images[0])
        physical, valid = store.read_physical("sentinel-2-l2a", [int(reader.index.row[image])], draw.bands[0].tolist())
        sensor = spec.data.sensors[int(batch.sensor_id[i, 0])]
        mean = torch.tensor([sensor.mean[b] for b in draw.bands[0]])[:, None, None]
        std = torch.tensor([sensor.std[b] for b in draw.bands[0]])[:, None, None]
        expected = (torch.from_numpy(physical[0]) - mean) / std * torch.from_numpy(valid[0])
        torch.testing.assert_close(batch.pixels[i, 0], expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(batch.valid[i, 0], torch.from_numpy(valid[0]))
        assert float(batch.gsd_m[i, 0]) == 10.0
    assert raw.fully_valid == bool(batch.valid.all())


def test_bands_that_an_image_lacks_are_never_read(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store)
    index = make_index()
    full = np.ones((len(index.row), 12), np.bool_)
    poor = full.copy()
    poor[index.sensor == 1] = np.isin(np.arange(12), [1, 3, 7, 8])  # no green: not red, green, blue either
    readers = {}
    for name, bands in {"given": None, "full": full, "poor": poor}.items():
        digest = dataclasses.replace(index, bands=bands).write(tmp_path / INDEX_FILE)
        changed = spec.replace(data=spec.data.replace(index_hash=digest))
        readers[name] = SampleReader(tmp_path, changed)
    keys = readers["given"].keys(0, 30)
    one, other = (prepared(readers[name].read(keys), readers[name]) for name in ("given", "full"))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)
    for group in readers["poor"].read(keys).images:
        assert group.sensor == 0 or set(group.bands.unique().tolist()) <= {1, 3, 7, 8}
    image = int(np.flatnonzero(index.sensor == 1)[0])
    assert readers["full"].fixed_bands(image).tolist() == [3, 2, 1]
    assert readers["poor"].fixed_bands(image).tolist() == [1, 3, 7]
    assert HeldOut(readers["poor"], readers["poor"].tables(), sets=4, images=8).batch().pixels.isfinite().all()


def test_a_slice_of_a_batch_is_those_samples(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store)
    reader = SampleReader(tmp_path, spec)
    raw = BatchDataset(tmp_path, spec)[0]
    whole = prepared(raw, reader)
    for tensor, part in zip(whole, prepared(raw[1:3], reader), strict=True):
        torch.testing.assert_close(part, tensor[1:3])


def test_the_dataset_is_pickled_as_paths(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store)
    dataset = BatchDataset(tmp_path, spec)
    dataset[0]
    assert len(pickle.dumps(dataset)) < 10_000


def test_a_changed_store_or_index_is_refused(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store)
    wrong = spec.replace(data=spec.data.replace(store_hash="0" * 64))
    with pytest.raises(DataMismatchError, match="has changed since this run was specified"):
        SampleReader(tmp_path, wrong)
    make_index(train_places=3).write(tmp_path / INDEX_FILE)
    with pytest.raises(DataMismatchError, match="is not the index of this specification"):
        SampleReader(tmp_path, spec)


def test_a_missing_or_torn_store_is_an_error_that_says_so(tmp_path: Path) -> None:
    copy = write_store(tmp_path / "stssd.zarr")
    spec = make_spec(tmp_path / "run", copy)
    (tmp_path / "stssd.zarr" / "manifest.json").unlink()
    with pytest.raises(StoreError, match="did not finish"):
        SampleReader(tmp_path / "run", spec)
    shutil.rmtree(tmp_path / "stssd.zarr")
    with pytest.raises(StoreError, match="no image-set store"):
        SampleReader(tmp_path / "run", spec)


def test_nothing_to_train_on_is_an_error(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store)
    digest = make_index(train_places=0).write(tmp_path / INDEX_FILE)
    empty = spec.replace(data=spec.data.replace(index_hash=digest))
    with pytest.raises(DataMismatchError, match="no image set is left to train on"):
        SampleReader(tmp_path, empty)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path, store) -> None:
    with pytest.raises(SpecificationError, match=r"\(4\) must be divisible by the number of processes \(3\)"):
        BatchDataset(tmp_path, make_spec(tmp_path, store), world_size=3)


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    copy = write_store(tmp_path / "stssd.zarr")
    spec = make_spec(tmp_path / "run", copy)
    path = tmp_path / "stssd.zarr" / "zarr.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(StoreError, match="has format version 99, this code reads 1"):
        SampleReader(tmp_path / "run", spec)
