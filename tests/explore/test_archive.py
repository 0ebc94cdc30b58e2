"""The embedding store: every image and set once, nothing twice, and read by what people have."""

from __future__ import annotations

import dataclasses
import json
import logging

import distributed
import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from a2mae.errors import InputError
from a2mae.explore import archive as room
from a2mae.explore.store import about_begun, open_store
from a2mae.models.checkpoint import load_encoder
from a2mae.models.sources import weights_digest
from a2mae.tasks.datasets.inputs import TaskBatch
from a2mae.tasks.evaluation.features import EncoderFeatures
from a2mae.tasks.parameters import EmbedParameters
from helpers.task_models import STATISTICS
from helpers.task_samples import SENTINEL2

from .conftest import DATES, embed, make_archive


def test_every_image_that_shows_something_and_every_set_has_a_vector(archive, embedded):
    images, sets = (
        embedded.table(level, ["id", "split", "datetime", "sensor"]).to_pandas() for level in ("image", "set")
    )
    seen = archive.images[archive.images["valid_fraction"] > 0]
    assert sorted(images["id"]) == sorted(seen["image_id"]) and len(images) == 16
    assert sorted(sets["id"]) == sorted(set(seen["set_id"])) and len(sets) == 8
    assert set(images["sensor"]) == {SENTINEL2.id} and set(sets["sensor"]) == {SENTINEL2.id}
    assert dict(zip(sets["id"], sets["split"], strict=True))["place-2"] == "test"
    assert sets["datetime"].dt.to_pydatetime().tolist() == [DATES[0]] * 8


def test_a_vector_is_the_encoders_of_the_image(archive, embedded, pretrained):
    bands = ("B04", "B03", "B02")
    pixels, valid = archive.store.read_physical(SENTINEL2.id, [3], list(bands))
    mean, std = (np.array([STATISTICS[SENTINEL2.id][band][i] for band in bands])[:, None, None] for i in (0, 1))
    given = TaskBatch(
        torch.from_numpy(np.where(valid[:, None], (pixels - mean) / std, 0)).float()[:, None],
        torch.tensor([10.0]),
        None,
        torch.tensor([[DATES[1].timestamp() / 86400]]),
        torch.tensor([665.0, 560.0, 490.0]),
        torch.zeros(1, dtype=torch.int64),
    )
    expected = EncoderFeatures(load_encoder(pretrained), pool="mean_std", bands_per_view=3)(given).numpy()[0]
    number = embedded.table("image", ["id"])["id"].to_pylist().index("place-1-1")
    np.testing.assert_allclose(embedded.take("image", [number]).vectors[0], expected, atol=2e-3)


def test_a_set_is_the_mean_of_its_images(embedded):
    ids = embedded.table("image", ["id"])["id"].to_pylist()
    both = embedded.take("image", [ids.index("place-4-0"), ids.index("place-4-1")])
    assert both.rows["id"].to_pylist() == ["place-4-0", "place-4-1"]
    number = embedded.table("set", ["id"])["id"].to_pylist().index("place-4")
    np.testing.assert_allclose(embedded.take("set", [number]).vectors[0], both.vectors.mean(axis=0), atol=2e-3)


@pytest.mark.parametrize("quantise", [False, True])
def test_files_are_geoparquet_and_small(archive, pretrained, tmp_path, embedded, quantise):
    store = embed(archive, pretrained, tmp_path / "store", quantise=quantise)
    first = store.parts()[0]
    assert first.relative_to(store.folder).parts[:2] == ("image", SENTINEL2.id)
    schema = pq.read_schema(first)
    assert str(schema.field("vector").type.value_type) == ("int8" if quantise else "halffloat")
    frame = gpd.read_parquet(first, columns=["id", "geometry"])
    assert frame.crs == "EPSG:4326" and not frame.geometry.is_empty.any()
    assert json.loads((store.folder / "_store.json").read_text())["model"] == weights_digest(pretrained)
    exact, stored = (np.concatenate([block.vectors for block in one.blocks("image")]) for one in (embedded, store))
    np.testing.assert_allclose(stored, exact, atol=0.01 * np.abs(exact).max())


def test_a_second_run_computes_nothing(archive, pretrained, tmp_path, monkeypatch):
    store = embed(archive, pretrained, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in store.parts()}
    monkeypatch.setattr(room, "_vectors", None)
    again = embed(archive, pretrained, tmp_path / "store")
    assert {path: path.stat().st_mtime_ns for path in again.parts()} == before


def test_what_is_new_is_added_what_has_changed_made_anew_what_is_gone_removed(pretrained, tmp_path, caplog):
    whole = make_archive(tmp_path / "whole")
    few = dataclasses.replace(whole, images=whole.images[whole.images["set_id"] < "place-5"].copy())
    store = embed(few, pretrained, tmp_path / "store")
    assert (store.count("image"), store.count("set")) == (10, 5)
    changed = whole.images[whole.images["set_id"] > "place-0"].copy()
    changed.loc[changed["image_id"] == "place-1-0", "shift_x_m"] = 3.0
    with caplog.at_level(logging.INFO):
        store = embed(dataclasses.replace(whole, images=changed), pretrained, tmp_path / "store")
    assert (store.count("image"), store.count("set")) == (16, 8)
    # Three images and two sets are gone: of place-0 all, of place-1 one image and so its set.
    assert "9 images and 5 sets embedded, 10 kept, 5 removed" in caplog.text
    fresh = embed(dataclasses.replace(whole, images=changed), pretrained, tmp_path / "fresh")
    for level in ("image", "set"):
        found = []
        for one in (store, fresh):
            ids, vectors = (
                one.table(level, ["id"])["id"].to_pylist(),
                np.concatenate([b.vectors for b in one.blocks(level)]),
            )
            found.append(vectors[np.argsort(ids)])
        np.testing.assert_allclose(*found, atol=2e-3)


def test_a_stopped_run_goes_on(archive, pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_PART_ROWS", 6)
    real, calls = room._vectors, []

    def stop(embedder, archive, rows, batch_size):
        calls.append(len(rows))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(embedder, archive, rows, batch_size)

    monkeypatch.setattr(room, "_vectors", stop)
    with pytest.raises(KeyboardInterrupt):
        embed(archive, pretrained, tmp_path / "store")
    store = embed(archive, pretrained, tmp_path / "store")
    assert calls == [6, 6, 6, 4] and store.count("image") == 16
    # Whichever part was missing: the files are those of a run that was not stopped.
    store.parts()[0].unlink()
    assert files(embed(archive, pretrained, tmp_path / "store")) == files(
        embed(archive, pretrained, tmp_path / "whole")
    )


def files(store):
    return {path.relative_to(store.folder).as_posix(): path.read_bytes() for path in store.parts()}


@pytest.mark.parametrize("inputs", [{}, {"images": 2}])
def test_any_number_of_workers_gives_the_same_bytes(archive, pretrained, tmp_path, monkeypatch, inputs):
    monkeypatch.setattr(room, "_PART_ROWS", 6)
    stores = {n: embed(archive, pretrained, tmp_path / f"{n}", workers=n, inputs=inputs, threads=0) for n in (1, 2, 3)}
    assert len(files(stores[1])) > 3
    assert files(stores[1]) == files(stores[2]) == files(stores[3])


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_bytes(archive, pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_PART_ROWS", 6)
    here = embed(archive, pretrained, tmp_path / "here")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        there = embed(archive, pretrained, tmp_path / "there", dask_scheduler=cluster.scheduler_address)
    assert files(there) == files(here)


def test_a_worker_that_finds_another_model_says_so(archive, pretrained, embedded):
    about = dataclasses.replace(embedded.about, model="0" * 64)
    task = room._Task(EmbedParameters(device="cpu"), pretrained, about, archive.store, SENTINEL2.id, archive.images)
    with pytest.raises(InputError, match="is another model on this worker"):
        room._embed_task(("image", task))


def test_vectors_are_added_in_the_precision_of_those_that_are_there(archive, pretrained, tmp_path):
    """A store of another machine, or of before there was a choice, holds vectors of one making."""
    for begun in ("32-true", "bf16-mixed"):
        folder = tmp_path / begun
        embed(archive, pretrained, folder, precision=begun)
        about = json.loads((folder / "_store.json").read_text())
        assert about["precision"] == begun
        for path in sorted(folder.glob("image/**/part-*.parquet")):
            path.unlink()
        assert embed(archive, pretrained, folder, precision="auto").about.precision == begun
    other = embed(archive, pretrained, folder, precision="32-true")
    assert other.about.precision == "32-true" and other.count("image") == 16


def test_another_model_or_way_of_pooling_begins_anew(archive, pretrained, tmp_path):
    embed(archive, pretrained, tmp_path / "store")
    store = embed(archive, pretrained, tmp_path / "store", pool="mean")
    assert store.about.dimensions == 64 and store.count("image") == 16
    assert {len(block.vectors[0]) for block in store.blocks("image")} == {64}


def test_images_that_the_model_does_not_know_are_counted(archive, pretrained, tmp_path, caplog):
    strangers = archive.images.copy()
    strangers.loc[strangers["set_id"] == "place-0", "sensor"] = "naip"
    embed(dataclasses.replace(archive, images=strangers), pretrained, tmp_path / "store")
    assert "images without a vector, their sensor is new to the encoder or lacks a band: 2 of naip" in caplog.text
    none = strangers.assign(sensor="naip")
    with pytest.raises(ValueError, match=r"no image of .* can be embedded: embed.bands are red, green, blue, and of"):
        embed(dataclasses.replace(archive, images=none), pretrained, tmp_path / "none")


def test_a_store_that_cannot_be_searched_says_why(embedded, tmp_path, pretrained):
    with pytest.raises(ValueError, match=r"is no embedding store \(_store.json is absent\): make one \(kedro run"):
        open_store(tmp_path)
    with pytest.raises(ValueError, match=r"are of the model \w{12}, and the model here is 000000000000: they cannot"):
        open_store(embedded.folder, "0" * 64)
    assert open_store(embedded.folder, weights_digest(pretrained)).count("image") == 16
    (tmp_path / "_store.json").write_bytes((embedded.folder / "_store.json").read_bytes())
    with pytest.raises(ValueError, match=r"holds no vector: embed an archive first \(kedro run --pipelines=embed\)"):
        open_store(tmp_path)
    about = json.loads((embedded.folder / "_store.json").read_text())
    for key, value in (
        ("precision", "16-true"), ("dtype", "float8"), ("pool", "max"), ("dimensions", "many"), ("bands", "red"),
        ("colour", "new"),
    ):  # fmt: skip
        (tmp_path / "_store.json").write_text(json.dumps(about | {key: value}))
        with pytest.raises(ValueError, match=rf"cannot be read: '{key}'.*: embed the archive anew$"):
            open_store(tmp_path)
        assert about_begun(tmp_path) is None
    for text in ("[]", "{", "{}", json.dumps({"format_version": 1})):
        (tmp_path / "_store.json").write_text(text)
        with pytest.raises(ValueError, match=r"_store.json cannot be read.*: embed the archive anew"):
            open_store(tmp_path)
