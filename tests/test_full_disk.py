"""What is written on a full disk, also by a library or a worker: one sentence with its place, and nothing is lost."""

from __future__ import annotations

import pickle
import pkgutil
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.io import DatasetError
from odc.geo.geobox import GeoBox

import a2mae
from a2mae.errors import A2maeError, RejectedError
from a2mae.files import WriteError
from a2mae.models.checkpoint import save_weights
from a2mae.parallel import Crew
from a2mae.pipelines.datasets import (
    CurvesDataset,
    JSONFileDataset,
    OneFileDataset,
    PictureDataset,
    TableDataset,
    TextFileDataset,
    TornFileError,
)
from a2mae.remote.fetch import NoAnswerError
from a2mae.remote.storage import Folder, Parts
from a2mae.simulate.delivery.files import write_mask
from a2mae.simulate.region import Grid
from a2mae.tasks.tiling import StripWriter
from a2mae.training.monitor import MetricsFile

NOISE = np.random.default_rng(0).integers(0, 255, (600, 600), dtype=np.uint8)
TABLE = pd.DataFrame({"a": np.random.default_rng(0).random(20_000)})


@contextmanager
def full_disk(size: int = 20_000) -> Iterator[None]:
    """Let no file grow beyond a size: what a full disk does, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def saved(kind: type[OneFileDataset[object]], value: object):
    def save(path: Path) -> None:
        try:
            kind(filepath=str(path)).save(value)
        except DatasetError as error:  # Kedro's words around ours, which the command line takes off
            raise error.__cause__ or error from None

    return save


def write_strips(path: Path) -> None:
    grid = GeoBox((600, 600), GeoBox.from_bbox((0, 0, 6000, 6000), "EPSG:32632", shape=(600, 600)).affine, "EPSG:32632")
    writer = StripWriter(path, bands=1, dtype="uint8", grid=grid, nodata=255, fingerprint="x")
    writer.write(0, NOISE[None])
    writer.finish()


def write_rows(path: Path) -> None:
    rows = MetricsFile(path, ("step", "loss"), resume_at=0)
    for step in range(3_000):
        rows.append({"step": step, "loss": 0.123456789})


WRITERS = {
    "table": saved(TableDataset, TABLE),
    "json": saved(JSONFileDataset, TABLE.to_dict()),
    "curves": saved(CurvesDataset, TABLE),
    "page": saved(TextFileDataset, "x" * 30_000),
    "picture": saved(PictureDataset, b"x" * 30_000),
    "weights": lambda path: save_weights(torch.nn.Linear(100, 100), path),
    "scene": lambda path: write_mask(path, NOISE, Grid(32632, 0.0, 0.0, 10.0, 600, 600), {}),
    "map": write_strips,
    "metrics": write_rows,
    "part": lambda path: Parts(Folder(str(path.parent)), "x").put(path.name, b"x" * 30_000),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_sentence_with_the_path_and_the_older_file_stays(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    with (
        full_disk(),
        pytest.raises(WriteError, match=r"cannot write .*make room there.*run the same command again") as e,
    ):
        WRITERS[writer](path)
    assert "folder/" in str(e.value) and "\n" not in str(e.value)
    if writer != "metrics":  # which grows in its place
        assert path.read_bytes() == b"old"
    assert not list(tmp_path.rglob("*.part"))
    WRITERS[writer](path)
    assert path.read_bytes() != b"old"


def put_part(folder: str) -> None:
    with full_disk():  # in the worker, which may have been started before
        Parts(Folder(folder), "x").put("part", b"x" * 30_000)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_says_where_its_disk_is_full(tmp_path: Path, workers: int) -> None:
    with (
        Crew(workers) as crew,
        pytest.raises(WriteError, match=f"cannot write {tmp_path}/.*/part: File too"),
    ):
        list(crew.run(put_part, [str(tmp_path / str(number)) for number in range(4)]))


def test_every_error_of_ours_comes_back_from_a_worker() -> None:
    for module in pkgutil.walk_packages(a2mae.__path__, "a2mae."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    kinds, todo = [], [A2maeError]
    while todo:
        kinds.append(todo.pop())
        todo += kinds[-1].__subclasses__()
    assert len(kinds) > 30
    for kind in set(kinds) - {NoAnswerError}:  # which is caught where it is raised
        error = kind("reason", "what was found") if issubclass(kind, RejectedError) else kind("what was found")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.__dict__) == (kind, str(error), error.__dict__)


TORN = {JSONFileDataset: {"a": 1}, TableDataset: TABLE, TextFileDataset: "éé"}


@pytest.mark.parametrize("kind", TORN)
def test_a_torn_file_is_named(tmp_path: Path, kind: type[OneFileDataset[object]]) -> None:
    dataset = kind(filepath=str(tmp_path / "file"))
    dataset.save(TORN[kind])
    whole = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(whole[: len(whole) // 2 + 1])
    with pytest.raises(DatasetError) as error:
        dataset.load()
    told = error.value.__cause__
    assert isinstance(told, TornFileError) and f"{tmp_path / 'file'} cannot be read" in str(told)
