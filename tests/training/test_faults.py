"""What may go wrong under a training: it says so, ends, and what was trained so far is not lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from training_runs import make_spec

from a2mae.training.checkpoints import Checkpoints, CheckpointWriteError
from a2mae.training.data.loader import LoaderDiedError
from a2mae.training.launch import StopRequest
from a2mae.training.loop import train
from a2mae.training.monitor import read_metrics

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}


class At(StopRequest):
    """Does something once, between two steps, and asks nobody to stop."""

    def __init__(self, step: int, do: Callable[[], None]) -> None:
        super().__init__()
        self._left, self._do = step, do

    @property
    def requested(self) -> bool:
        self._left -= 1
        if self._left == 0:
            self._do()
        return False


@pytest.mark.parametrize("seen_in_s", [0.0, 5.0], ids=["while-reading", "between-two-batches"])
def test_a_killed_loader_process_is_told_and_the_run_goes_on(tmp_path: Path, store, seen_in_s: float) -> None:
    spec = make_spec(tmp_path, store, workers=1, steps=200, checkpoint_interval=2)

    def kill_loader() -> None:
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGKILL)
        time.sleep(seen_in_s)  # torch's signal handler raises from here, or from wherever the step is

    with pytest.raises(LoaderDiedError, match=r"'hardware.workers'.*it goes on from its newest checkpoint"):
        train(tmp_path, spec, At(4, kill_loader))
    found = Checkpoints(tmp_path / "checkpoints", keep=2).latest()
    assert found is not None and found.step >= 2


SMALL = """
import sys
from a2mae.training.data import loader
from a2mae.training.__main__ import main
loader.LOOK_S = 5
sys.exit(main([sys.argv[1]]))
"""


def test_little_shared_memory_is_named_and_nothing_hangs_or_stays(tmp_path: Path, store, child_environment) -> None:
    """In a name space of its own, where the machine lets us make one, as a container has it."""
    make_spec(tmp_path, store, workers=1, steps=6, warmup_steps=0)
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    command = [sys.executable, "-c", SMALL, str(tmp_path)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
        env=child_environment,
        check=False,
        capture_output=True,
        timeout=200,
    )
    error = json.loads((tmp_path / "error.json").read_text())
    assert done.returncode == 1 and error["type"] == "LoaderDiedError"
    assert "/dev/shm, which has 0 MB free: make it larger" in error["message"]
    assert "'hardware.workers': 0" in error["message"]


def test_loader_processes_end_with_the_training_that_was_killed(tmp_path: Path, store, child_environment) -> None:
    make_spec(tmp_path, store, workers=2, steps=100_000, checkpoint_interval=0)
    command = [sys.executable, "-m", "a2mae.training", str(tmp_path)]
    with subprocess.Popen(
        command, env=child_environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as training:
        try:
            deadline = time.monotonic() + 300
            while not read_metrics(tmp_path / "metrics.csv"):  # a row: its loaders have given batches
                assert training.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            children = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
            assert len(children) >= 2
        finally:
            training.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a loader process outlived its training"
        time.sleep(0.05)


def test_a_full_disk_while_checkpointing_ends_the_run_and_the_checkpoint_before_stays(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store, checkpoint_interval=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(CheckpointWriteError, match=r"cannot write the checkpoint of step 4.*Make room there"):
            train(tmp_path, spec, At(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = Checkpoints(tmp_path / "checkpoints", keep=2).latest()
    assert found is not None and found.step == 2
    assert train(tmp_path, spec, StopRequest())


def test_a_port_in_use_is_named(tmp_path: Path, store, child_environment) -> None:
    make_spec(tmp_path, store, strategy="ddp")
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "a2mae.training", str(tmp_path)],
            env={**child_environment, **LOOPBACK, "MASTER_PORT": port},
            capture_output=True,
            check=False,
            timeout=600,
        )
    error = json.loads((tmp_path / "error.json").read_text())
    assert done.returncode == 1 and error["type"] == "PortInUseError"
    assert f"port {port} of this machine is in use" in error["message"] and "MASTER_PORT" in error["message"]


ONE_FAILS = """
import os, sys
from a2mae.training.data import loader
from a2mae.training.__main__ import main
read = loader.BatchDataset.__getitem__
def fail(self, step):
    if step == 3 and os.environ.get("LOCAL_RANK") == "1":
        raise OSError("the disk of this rank is gone")
    return read(self, step)
loader.BatchDataset.__getitem__ = fail
sys.exit(main())
"""


def test_when_one_rank_fails_the_others_end_and_its_reason_is_told(tmp_path: Path, store, child_environment) -> None:
    run_dir = tmp_path / "run"
    make_spec(run_dir, store, steps=100_000, devices=2, strategy="ddp", checkpoint_interval=0)
    (tmp_path / "program.py").write_text(ONE_FAILS)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(run_dir)],
        env={**child_environment, **LOOPBACK},
        capture_output=True,
        check=False,
        timeout=600,
    )
    # Within a minute of the failure, which comes after two programs have started.
    failed = (run_dir / "error.json").stat().st_mtime
    assert done.returncode != 0 and time.time() - failed < 60
    error = json.loads((run_dir / "error.json").read_text())
    assert error == {"message": "the disk of this rank is gone", "rank": 1, "type": "OSError"}
