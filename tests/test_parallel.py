"""Work is done by workers that end with their parent, do not import it, and are named when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from a2mae import parallel
from a2mae.parallel import SPIN, SPIN_VARIABLE, WorkerLostError, end_with_parent, run_all, share_cores

PROGRAM = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from a2mae.parallel import end_with_parent

def stay(_):
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        list(pool.map(stay, [0]))
"""


def test_a_worker_ends_with_its_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with subprocess.Popen([sys.executable, str(tmp_path / "program.py")], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_a_process_without_a_parent_is_refused() -> None:
    with pytest.raises(RuntimeError, match="worker processes"):
        end_with_parent()


def test_threads_share_cores_unless_the_user_knows_better(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    for chosen, found in ((None, SPIN), ("77", "77")):
        monkeypatch.delenv(SPIN_VARIABLE, raising=False)
        if chosen:
            monkeypatch.setenv(SPIN_VARIABLE, chosen)
        share_cores()
        assert os.environ[SPIN_VARIABLE] == found
    monkeypatch.delenv(SPIN_VARIABLE)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    share_cores()
    assert SPIN_VARIABLE not in os.environ


@pytest.mark.parametrize(
    "door", ["import a2mae.settings", "from a2mae.training.__main__ import main; main(['absent'])"]
)
def test_every_door_says_so_before_torch_is_there(door):
    program = f"import os, sys\n{door}\nassert 'torch' not in sys.modules\nprint(os.environ['{SPIN_VARIABLE}'])"
    own = {k: v for k, v in os.environ.items() if k not in (SPIN_VARIABLE, "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", program], env=own, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == SPIN


@pytest.mark.parametrize("started", ["", "parallel.warm_up(abs)\n"], ids=["cold", "warm"])
def test_workers_do_not_import_the_program_that_started_them(tmp_path: Path, started: str) -> None:
    # Without `if __name__ == "__main__"`: a program that its workers imported would start workers of its own.
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "from a2mae import parallel\n"
        "open(sys.argv[1], 'a').write('imported ')\n"
        "parallel._PATIENCE_S = 600\n"
        f"{started}"
        "print(sorted(parallel.run_all(abs, [-1, -2, -3], workers=2)))\n"
        "assert sys.modules['__main__'].__file__ == __file__\n"
    )
    log = tmp_path / "log"
    command = [sys.executable, tmp_path / "program.py", log]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    assert told.stdout == "[1, 2, 3]\n" and log.read_text() == "imported "


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


def _wait_for_the_other(task: tuple[str, int]) -> int:
    folder, number = task
    (Path(folder) / str(number)).touch()
    deadline = time.monotonic() + 60
    while not (Path(folder) / str(1 - number)).exists():
        assert time.monotonic() < deadline, "the other piece was not begun"
        time.sleep(0.02)
    return os.getpid()


def test_a_long_piece_here_does_not_keep_the_workers_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = parallel.ProcessPoolExecutor.submit

    def late(pool, function, /, *args):  # type: ignore[no-untyped-def]
        while function is parallel._nothing and not (tmp_path / "1").exists():
            time.sleep(0.02)  # this process has begun a piece
        return submit(pool, function, *args)

    monkeypatch.setattr(parallel.ProcessPoolExecutor, "submit", late)
    done = list(run_all(_wait_for_the_other, [(str(tmp_path), number) for number in range(2)], workers=2))
    assert len(set(done)) == 2 and os.getpid() in done


def test_workers_stay_from_one_kind_of_work_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_PATIENCE_S", 600)
    with parallel.Crew(2) as crew:
        first = dict(crew.run(_process, range(8)))
        second = dict(crew.run(_process, range(8)))
    assert set(first) == set(second) == set(range(8))
    assert set(second.values()) <= set(first.values()) and os.getpid() not in first.values()


def test_local_cluster_by_name(tmp_path: Path) -> None:
    tasks = [(str(tmp_path), n) for n in range(3)]
    assert sorted(run_all(_fail_once, tasks, workers=2, dask_scheduler="local")) == [0, 1, 4]


def _who(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.parametrize("count", [1, 3])
def test_no_number_of_workers_is_one_per_core(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))
    found = set(run_all(_who, [0.3] * 12, workers=0)) - {os.getpid()}  # it works, too, until the first is there
    assert len(found) == (0 if count == 1 else count)


def test_a_local_cluster_has_the_workers_that_were_asked_for() -> None:
    assert len(set(run_all(_who, [0.5] * 24, workers=3, dask_scheduler="local")) - {os.getpid()}) == 3
