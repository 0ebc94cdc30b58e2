"""Maps and embeddings of large rasters are computed by workers, in bands of rows, to the same bytes."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from a2mae import parallel
from a2mae.errors import InputError
from a2mae.models.checkpoint import load_encoder, read_config, save_pretrained
from a2mae.models.registry import create_model
from a2mae.parallel import WorkerLostError
from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import scenes_to_table
from a2mae.tasks.datasets.inputs import plan_bands
from a2mae.tasks.finetune.finetuned import Finetuned, FinetuneRun, load_task_model, save_task_model
from a2mae.tasks.finetune.model import HeadConfig, TaskModel
from a2mae.tasks.finetune.train import computing
from a2mae.tasks.inference import strips as room
from a2mae.tasks.inference.embed import embed_raster
from a2mae.tasks.inference.files import raster_from_file
from a2mae.tasks.inference.raster_map import map_raster
from a2mae.tasks.inference.scenes import SceneRasters
from a2mae.tasks.inference.sources import EmbeddingSource, MapSource
from a2mae.tasks.inference.strips import Workers, _bands
from a2mae.tasks.parameters import EmbedParameters, MapParameters, TaskParameters
from a2mae.tasks.registry import Task
from a2mae.tasks.tiling import Windows
from helpers.task_samples import SENTINEL2, spec_for

from .conftest import CPU, RGB, STATISTICS

WINDOWS = Windows(32, 8, 4)
FILES = ("map.tif", "confidence.tif", "probabilities.tif")


@pytest.fixture
def pretrained(tmp_path) -> Path:
    torch.manual_seed(0)
    network = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=2, decoder_dim=32)
    return save_pretrained(network, tmp_path / "pretrained", config={"normalization": STATISTICS})


@pytest.fixture
def model(pretrained, plan, tmp_path) -> Path:
    """A segmenter with a new head, on disk."""
    head = HeadConfig(Task.SEGMENT, "conv", 3)
    finetuned = Finetuned(TaskModel(load_encoder(pretrained), head), plan, spec_for(Task.SEGMENT))
    save_task_model(tmp_path / "model", FinetuneRun(finetuned, read_config(pretrained), "pretrained", {}))
    return tmp_path / "model"


def crew(**options) -> TaskParameters:
    return TaskParameters.model_validate({"task": "segment", **options})


def drawn(model, scene, folder, *, load=load_task_model, **options) -> list[bytes]:
    """The files of a map by those workers, or without any."""
    workers = Workers(model, load, "cpu", 0, crew(**options)) if options else None
    with computing("cpu", 1):
        map_raster(
            load_task_model(model), [raster_from_file(scene, SENTINEL2, RGB)], folder / FILES[0], WINDOWS,
            device=CPU, confidence=folder / FILES[1], probabilities=folder / FILES[2], workers=workers,
        )  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)  # nothing unfinished stays
    return [(folder / name).read_bytes() for name in FILES]


@given(missing=st.sets(st.integers(0, 120)), workers=st.sampled_from([0, 1, 2, 3, 64]))
def test_bands_are_the_missing_strips_and_no_others(missing, workers):
    bands = _bands(sorted(missing), workers)
    assert [number for first, last in bands for number in range(first, last)] == sorted(missing)
    assert all(first < last for first, last in bands)


@pytest.mark.parametrize(
    ("rows", "workers", "lengths"),
    [
        (32, 2, [16, 16]),
        (86, 2, [43, 43]),
        (130, 2, [32, 33, 32, 33]),
        (86, 1, [86]),
        (86, 0, [17, 17, 17, 17, 18]),
        (40, 64, [4] * 10),
    ],
)
def test_bands_are_of_one_length_and_as_many_for_each_worker(rows, workers, lengths):
    assert [last - first for first, last in _bands(range(rows), workers)] == lengths


def test_any_number_of_workers_and_none_draw_the_same_bytes(model, scene, tmp_path, monkeypatch, caplog):
    alone = drawn(model, scene, tmp_path / "alone")
    assert drawn(model, scene, tmp_path / "small", workers=2) == alone
    assert "for the workers" not in caplog.text  # too small to be shared
    monkeypatch.setattr(room, "_BAND_ROWS", 1)
    monkeypatch.setattr(room, "_LEAST_ROWS", 1)
    caplog.set_level("INFO")
    for workers, bands in ((1, "1 band"), (2, "2 bands"), (3, "3 bands")):
        caplog.clear()
        assert drawn(model, scene, tmp_path / f"{workers}", workers=workers) == alone
        assert f"segment map: {bands} of rows for the workers; 0 of 4 strips are there" in caplog.text


@pytest.mark.parametrize("quantise", [False, True])
def test_any_number_of_workers_embeds_to_the_same_bytes(pretrained, scene, tmp_path, monkeypatch, quantise):
    monkeypatch.setattr(room, "_BAND_ROWS", 1)
    plan, found = plan_bands(SENTINEL2, RGB, STATISTICS, bands_per_view=3), []
    for options in ({}, {"workers": 1}, {"workers": 2}):
        workers = Workers(pretrained, load_encoder, "cpu", 1, crew(**options)) if options else None
        path = tmp_path / f"{len(found)}" / "embeddings.tif"
        with computing("cpu", 1):
            embed_raster(
                load_encoder(pretrained), plan, raster_from_file(scene, SENTINEL2, RGB), path, WINDOWS,
                device=CPU, quantise=quantise, workers=workers,
            )  # fmt: skip
        found.append(path.read_bytes())
    assert found[0] == found[1] == found[2]


def dies_once(folder: Path) -> Finetuned:
    """The first worker reads the model; the second one waits until a strip is there, and is killed."""
    here = folder.parent
    try:
        (here / "first").touch(exist_ok=False)
        return load_task_model(folder)
    except FileExistsError:
        pass
    try:
        (here / "killed").touch(exist_ok=False)
    except FileExistsError:
        return load_task_model(folder)
    deadline = time.monotonic() + 200
    while not list(here.glob("out/.map.strips/*/0*.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_map_that_loses_a_worker_is_continued_with_what_is_there(model, scene, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(room, "_BAND_ROWS", 1)
    monkeypatch.setattr(room, "_LEAST_ROWS", 1)
    whole = drawn(model, scene, tmp_path / "whole")
    monkeypatch.setattr(parallel, "_PATIENCE_S", 600)  # no piece is done in this process
    out = tmp_path / "out"
    with pytest.raises(WorkerLostError, match=r"a worker process died .*: run the same command again to go on"):
        drawn(model, scene, out, load=dies_once, workers=2)
    there = {path: path.stat().st_mtime_ns for path in out.glob(".map.strips/*/0*.npz")}
    assert 0 < len(there) < 5 and not (out / "map.tif").exists()

    computed = []
    monkeypatch.setattr(room, "run_all", lambda function, work, **how: computed.extend(work) or map(function, work))
    caplog.set_level("INFO")
    assert drawn(model, scene, out, workers=2) == whole
    assert f"{len(there)} of 4 strips are there" in caplog.text
    assert not {one.first_row for one in computed} & {int(path.stem) for path in there}


def test_a_cluster_that_loses_a_worker_draws_the_same_bytes(model, scene, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(room, "_BAND_ROWS", 1)
    whole = drawn(model, scene, tmp_path / "whole")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        there = drawn(model, scene, tmp_path / "out", load=dies_once, dask_scheduler=cluster.scheduler_address)
    assert there == whole and (tmp_path / "killed").exists()


def test_strips_of_another_model_are_not_taken(model, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_BAND_ROWS", 1)
    whole = drawn(model, scene, tmp_path / "whole")
    strange = tmp_path / "out" / ".map.strips" / "0123456789abcdef"
    strange.mkdir(parents=True)
    (strange / "00000000.npz").write_bytes(b"of another map")
    assert drawn(model, scene, tmp_path / "out", workers=1) == whole


def test_a_worker_that_finds_another_model_says_so(model, scene, tmp_path):
    workers = Workers(model, load_task_model, "cpu", 1, crew())
    with pytest.raises(InputError, match="is another model on this worker: give all workers the same one"):
        room._compute(room._Band(workers, "0" * 64, None, tmp_path, 0, None))


def test_the_stages_hand_their_workers_on(model, pretrained, cloudy_scene, tmp_path, monkeypatch):
    """A scene of the scene table: what a worker needs to read it travels with its band."""
    monkeypatch.setattr(room, "_BAND_ROWS", 1)
    bands = []
    monkeypatch.setattr(
        room, "run_all", lambda function, work, **how: bands.append(how) or parallel.run_all(function, work, **how)
    )
    rasters = SceneRasters(scenes_to_table([cloudy_scene]), {}, RemoteAccess(), None)
    asked = MapParameters.model_validate({"tile_px": 32, "overlap_px": 8})
    finetuned = load_task_model(model)
    found = []
    for workers in (None, crew(workers=2)):
        path = tmp_path / f"{len(found)}.tif"
        MapSource(asked, "cpu", 1, finetuned, rasters, workers=workers).write(path)
        found.append(path.read_bytes())
    assert found[0] == found[1]
    unsaved = dataclasses.replace(finetuned, folder=None)
    MapSource(asked, "cpu", 1, unsaved, rasters, workers=crew(workers=2)).write(tmp_path / "unsaved.tif")
    options = EmbedParameters(device="cpu", tile_px=32, overlap_px=8, workers=2)
    EmbeddingSource(options, pretrained, rasters).write(tmp_path / "embedded")
    assert bands == [{"workers": 2, "dask_scheduler": None}] * 2
