"""A build that is killed anywhere, or loses workers, ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from a2mae.stssd.coregister.build import build
from a2mae.stssd.coregister.work import shard_task, survey_task
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store import writer as store_writer
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.tag.statistics import _measure_part

from ..build_runs import RECIPES, digests, start
from ..conftest import World


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """Digests of an uninterrupted build, and its seconds."""
    out = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    process = start(world.folder, out, workers=1)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return digests(out), time.monotonic() - began


def killed_again_and_again(world: World, out: Path, whole: tuple[dict[str, str], float], kills: int, seed: int) -> int:
    """SIGKILL a build at random moments until it has been killed so often or is done; returns how often it was."""
    rng, done, seconds = random.Random(seed), 0, whole[1]
    while done < kills:
        began = time.monotonic()
        process = start(world.folder, out, workers=1 + done % 2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            # From the first steps of the work on (importing is not interesting) to about its end.
            process.wait(timeout=seconds * rng.uniform(0.3, 1.0))
        if process.poll() is not None:
            seconds = min(seconds, time.monotonic() - began)  # the machine was busier when the whole was timed
            process.communicate()
            if digests(out) == whole[0]:
                for name in ("stssd.zarr", "stssd.zarr.work"):  # done before it could be killed: once more
                    shutil.rmtree(out / name, ignore_errors=True)
            continue
        os.kill(process.pid, signal.SIGKILL)  # its workers notice by themselves
        process.communicate()
        done += 1
    process = start(world.folder, out, workers=1)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return done


def assert_nothing_twice_or_missing(out: Path, whole: dict[str, str]) -> None:
    assert digests(out) == whole
    images = pd.read_parquet(out / "images.parquet")
    assert images["image_id"].is_unique
    store = ImageSetStore.open(str(out / "stssd.zarr"))
    store.verify()
    for sensor, rows in images.groupby("sensor"):
        assert set(rows["row"]) == set(range(store.count(str(sensor))))


def test_killed_at_random_moments(world: World, tmp_path: Path, whole: tuple[dict[str, str], float]) -> None:
    assert killed_again_and_again(world, tmp_path, whole, kills=3, seed=0) == 3
    assert_nothing_twice_or_missing(tmp_path, whole[0])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_twenty_random_moments(world: World, tmp_path: Path, whole: tuple[dict[str, str], float]) -> None:
    assert killed_again_and_again(world, tmp_path, whole, kills=20, seed=1) == 20
    assert_nothing_twice_or_missing(tmp_path, whole[0])


def test_orphans_do_not_outlive_their_build(world: World, tmp_path: Path) -> None:
    process = start(world.folder, tmp_path, workers=2)
    group = process.pid
    deadline = time.monotonic() + 200  # seconds on an idle machine
    while len(members(group)) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)  # the build, the server that forks, its tracker, a worker
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not members(group)


def members(group: int) -> list[int]:
    """Processes of a session, by Linux' own account."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_the_server_of_workers_imports_no_tables() -> None:
    modules = {function.__module__ for function in (survey_task, shard_task, _measure_part)}
    code = f"import sys, {', '.join(modules)}; print({{'pandas', 'pyarrow', 'geopandas'}} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout == "set()\n"


def test_dask_cluster_that_loses_a_worker_gives_the_same(
    world: World, tmp_path: Path, whole: tuple[dict[str, str], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(store_writer, "SHARD_BYTES", 2**20)  # one shard each, else there is nothing to lose
    parameters = CoregisterParameters(recipes=RECIPES, workers=1, locations_per_task=1)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        dask = parameters.model_copy(update={"dask_scheduler": cluster.scheduler_address})
        killed: list[int] = []
        victim = next(iter(cluster.workers.values()))

        original = store_writer.StoreWriter.pending

        def pending(self: store_writer.StoreWriter) -> list[store_writer.Shard]:
            if not killed:  # the survey is done, the shards are about to be written
                killed.append(victim.process.pid)
                os.kill(victim.process.pid, signal.SIGKILL)
            return original(self)

        monkeypatch.setattr(store_writer.StoreWriter, "pending", pending)
        url = str(tmp_path / "dask.zarr")
        tables = build(world.scenes, world.locations, world.sensors, dask, url)
        assert killed
    monkeypatch.setattr(store_writer.StoreWriter, "pending", original)
    alone = build(world.scenes, world.locations, world.sensors, parameters, str(tmp_path / "alone.zarr"))
    pd.testing.assert_frame_equal(tables.images, alone.images)
    assert tables.manifest_hash == alone.manifest_hash
    ImageSetStore.open(url).verify()
