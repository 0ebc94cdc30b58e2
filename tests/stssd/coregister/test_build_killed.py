"""A build that is killed anywhere, or loses workers, ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from a2mae import parallel
from a2mae.parallel import WorkerLostError, run_all
from a2mae.stssd.coregister.build import build
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store import writer as store_writer
from a2mae.stssd.store.store import ImageSetStore

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


def _fail_once(task: tuple[str, int]) -> int:
    folder, number = task
    marker = Path(folder) / str(number)
    if number == 3 and not marker.exists():
        marker.write_text("died here")
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_a_local_worker_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_PATIENCE_S", 600)  # no piece is done in this process
    tasks = [(str(tmp_path), n) for n in range(6)]
    with pytest.raises(WorkerLostError, match=r"a worker process died.*run the same command again"):
        list(run_all(_fail_once, tasks, workers=2))
    assert sorted(run_all(_fail_once, tasks, workers=2)) == [n * n for n in range(6)]


def test_work_after_a_lost_worker_gets_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_PATIENCE_S", 600)
    tasks = [(str(tmp_path), n) for n in range(6)]
    with parallel.Crew(2) as crew:
        with pytest.raises(WorkerLostError):
            list(crew.run(_fail_once, tasks))
        assert sorted(crew.run(_fail_once, tasks)) == [n * n for n in range(6)]


def _process(task: int) -> tuple[int, int]:
    time.sleep(0.05)
    return task, os.getpid()


def test_work_is_done_here_until_the_workers_have_started(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, there = threading.Event(), threading.Event()
    submit = parallel.ProcessPoolExecutor.submit

    def late(pool, function, /, *args):  # type: ignore[no-untyped-def]
        if function is not parallel._nothing:
            return submit(pool, function, *args)
        begun.wait(60)
        future = submit(pool, function, *args)
        future.result()
        there.set()
        return future

    monkeypatch.setattr(parallel.ProcessPoolExecutor, "submit", late)
    done = []
    for result in run_all(_process, range(12), workers=2):
        done.append(result)
        if len(done) == 3:
            begun.set()
            assert there.wait(200)
    assert sorted(number for number, _ in done) == list(range(12))
    assert done[:3] == [(number, os.getpid()) for number in (11, 10, 9)]
    assert {process for _, process in done} - {os.getpid()}


def test_workers_stay_from_one_kind_of_work_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_PATIENCE_S", 600)
    with parallel.Crew(2) as crew:
        first = dict(crew.run(_process, range(8)))
        second = dict(crew.run(_process, range(8)))
    assert set(first) == set(second) == set(range(8))
    assert set(second.values()) <= set(first.values()) and os.getpid() not in first.values()


def test_workers_do_not_import_the_program_that_started_them(tmp_path: Path) -> None:
    # Without `if __name__ == "__main__"`: a program that its workers imported would start workers of its own.
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from a2mae.stssd.coregister import parallel\n"
        "open(sys.argv[1], 'a').write('imported ')\n"
        "parallel._PATIENCE_S = 600\n"
        "print(sorted(parallel.run_all(abs, [-1, -2, -3, -4], workers=2)))\n"
    )
    log = tmp_path / "log"
    told = subprocess.run([sys.executable, program, log], check=True, capture_output=True, text=True)
    assert told.stdout == "[1, 2, 3, 4]\n" and log.read_text() == "imported "


def test_the_server_of_workers_imports_no_tables() -> None:
    code = (
        f"import sys, {', '.join(parallel._PRELOADED)}; print({{'pandas', 'pyarrow', 'geopandas'}} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout == "set()\n"


def test_dask_cluster_that_loses_a_worker_gives_the_same(
    world: World, tmp_path: Path, whole: tuple[dict[str, str], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(store_writer, "SHARD_BYTES", 2**20)  # one shard each, else there is nothing to lose
    parameters = CoregisterParameters(recipes=RECIPES, workers=1, locations_per_task=1)
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster:
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


def test_local_cluster_by_name(tmp_path: Path) -> None:
    tasks = [(str(tmp_path), n) for n in range(3)]
    assert sorted(run_all(_fail_once, tasks, workers=2, dask_scheduler="local")) == [0, 1, 4]
