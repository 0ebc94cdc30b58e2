"""How this package's processes live with others: workers end with their parent, threads share the cores."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait

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
