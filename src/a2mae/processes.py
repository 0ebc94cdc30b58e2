"""How this package's processes live with others: workers end with their parent, threads share the cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Iterator
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any

SPIN_VARIABLE = "GOMP_SPINCOUNT"
SPIN = "5000"


def share_cores() -> None:
    """Let threads that wait for one another give up their core soon; call it before torch is imported.

    GNU OpenMP, which torch computes with, spins for milliseconds. Where another program wants one of the cores, a
    thread that works is then kept waiting by one that only waits, step after step: ten times slower and more
    (benchmarks/threads.py). Whoever has set `GOMP_SPINCOUNT` or `OMP_WAIT_POLICY` knows better.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPIN_VARIABLE, SPIN)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def end_with_parent() -> None:
    """End this worker when its parent is killed: an orphan would write beside the run that goes on.

    Raises:
        RuntimeError: If this process was not started by `multiprocessing`.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("end_with_parent is for worker processes: this one has no parent that it could watch")

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """While a worker is started: it does not import the program that starts it.

    `kedro`, or a script, would be imported again by every worker, which takes half a second. The server of forked ones
    does not preload it, although asked to (mended in Python 3.14).
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Spawned(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: ANN401 (of multiprocessing)
        with _hidden_main():
            return SpawnProcess._Popen(process_obj)


class _ForkServed(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: ANN401 (of multiprocessing)
        with _hidden_main():
            return ForkServerProcess._Popen(process_obj)


class SpawnWithoutMain(SpawnContext):
    """Spawned workers that import the modules of their work alone: it must be named by such, not by the program."""

    Process = _Spawned


class ForkServerWithoutMain(ForkServerContext):
    """Workers forked from a clean server, which import no program either."""

    Process = _ForkServed
