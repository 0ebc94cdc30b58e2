"""Run many independent pieces of work: in this process, in local processes, or on a Dask cluster.

Local workers are forked from a clean server process that has imported what their work needs: a plain fork would inherit
locks of GDAL's and the codecs' threads, and a new interpreter would import for seconds. They do not import the program
that started them, and they end with it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import os
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import Any, Self, TypeVar

from threadpoolctl import ThreadpoolController, threadpool_limits

from a2mae.errors import A2maeError

Work = TypeVar("Work")
Result = TypeVar("Result")

LOCAL_CLUSTER = "local"
"""Name that stands for a Dask cluster of this machine's own processes."""
SPIN_VARIABLE = "GOMP_SPINCOUNT"
SPIN = "5000"
_PATIENCE_S = 0.1  # a worker is there by then if its server has imported everything


class WorkerLostError(A2maeError, RuntimeError):
    """A worker process died; what was finished is kept."""


class Crew:
    """Workers that stay from one kind of work to the next, with the files that they have open; a context manager."""

    def __init__(self, workers: int, dask_scheduler: str | None = None) -> None:
        """Begin; processes are started when there is work for them.

        Args:
            workers: Local processes; 0: one per core. 1 works here. Until the first of more has started, work is done
                here, too.
            dask_scheduler: Address of a running cluster, which is used instead ("tcp://…"), or "local" for one of
                `workers` processes of this machine. Dask runs the work of a lost worker again by itself.
        """
        self._workers, self._address = workers or cores(), dask_scheduler
        self._stack = contextlib.ExitStack()
        self._pool: ProcessPoolExecutor | None = None
        self._client: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, function: Callable[[Work], Result], work: Sequence[Work]) -> Iterator[Result]:
        """Run a function over pieces of work; results come as they are ready, in any order.

        Args:
            function: A function at module level, of a module that workers can import; it must give the same result when
                run twice.
            work: Picklable pieces; the costly ones first, so that workers end together.

        Raises:
            WorkerLostError: If a local worker was killed, for example for memory, or the cluster lost workers on the
                same piece again and again.
        """
        if not work:
            return
        if self._address is not None:
            yield from self._on_cluster(functools.partial(_on_one_thread, function), work)
        elif self._workers == 1 or len(work) == 1:
            yield from _here(function, work)
        else:
            yield from self._in_pool(function, work)

    def _in_pool(self, function: Callable[[Work], Result], work: Sequence[Work]) -> Iterator[Result]:
        left = deque(work)
        futures: list[Future[Result]] = []
        there = threading.Event()
        if is_new := self._pool is None:
            context = _server([function])
            pool = ProcessPoolExecutor(self._workers, mp_context=context, initializer=_begin_worker)
            self._pool = self._stack.enter_context(pool)
        pool = self._pool

        def hand_in() -> None:
            try:
                if is_new:
                    with _hidden_main():
                        first = pool.submit(_nothing)
                    first.result()
            finally:
                there.set()
            with _hidden_main(), contextlib.suppress(IndexError):  # of an empty deque
                while True:
                    futures.append(pool.submit(function, left.popleft()))

        with ThreadPoolExecutor(1) as thread:  # the pool must not be shut down while work is handed in
            try:
                handed_in = thread.submit(hand_in)
                if is_new:
                    yield from _here(function, _while_starting(there, left))
                handed_in.result()
                for future in as_completed(futures):
                    yield future.result()
            except BrokenProcessPool as error:
                self._pool = None  # of no more use: further work gets new workers
                raise WorkerLostError(
                    "a worker process died (killed, or out of memory); what it had finished is kept:"
                    " run the same command again to go on, with fewer workers if memory was short"
                ) from error
            finally:
                left.clear()
                for future in futures:
                    future.cancel()

    def _on_cluster(self, function: Callable[[Work], Result], work: Sequence[Work]) -> Iterator[Result]:
        distributed: Any = importlib.import_module("distributed")  # half a second, only where a cluster is used
        if self._client is None:
            address = self._address
            if address == LOCAL_CLUSTER:
                cluster = distributed.LocalCluster(
                    n_workers=self._workers, threads_per_worker=1, dashboard_address=None
                )
                address = self._stack.enter_context(cluster).scheduler_address
            self._client = self._stack.enter_context(distributed.Client(address, set_as_default=False))
        client = self._client
        try:
            for future in distributed.as_completed(client.map(function, work, pure=False), loop=client.loop):
                yield future.result()
        except distributed.KilledWorker as error:
            raise WorkerLostError(
                f"the cluster lost its workers over the same piece of work again and again ({error}); what was"
                " finished is kept: give them more memory and run the same command again"
            ) from error


def run_all(
    function: Callable[[Work], Result], work: Sequence[Work], *, workers: int, dask_scheduler: str | None = None
) -> Iterator[Result]:
    """`Crew.run` by a crew of its own."""
    with Crew(workers, dask_scheduler) as crew:
        yield from crew.run(function, work)


def warm_up(*functions: Callable[..., object]) -> None:
    """Let the server of local workers import the modules of their work, while this process does something else.

    A server that is running already stays as it is; its workers import by themselves what it lacks.

    Args:
        functions: What a `Crew` will run.
    """
    _server(functions)
    forkserver.ensure_running()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def share_cores() -> None:
    """Let threads that wait for one another give up their core soon; call it before torch is imported.

    GNU OpenMP, which torch computes with, spins for milliseconds. Where another program wants one of the cores, a
    thread that works is then kept waiting by one that only waits, step after step: ten times slower and more
    (benchmarks/threads.py). Whoever has set `GOMP_SPINCOUNT` or `OMP_WAIT_POLICY` knows better.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPIN_VARIABLE, SPIN)


def end_with_parent() -> None:
    """End this worker when its parent is killed: an orphan would write beside the run that goes on.

    Raises:
        RuntimeError: If this process was not started by `multiprocessing`.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("end_with_parent is for worker processes: this one has no parent that it could watch")

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _server(functions: Iterable[Callable[..., object]]) -> multiprocessing.context.ForkServerContext:
    """The server that workers are forked from; it will import the modules of these functions when it starts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted({function.__module__ for function in functions} - {"__main__"}))
    return context


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep workers that are started inside from importing the program again.

    `multiprocessing` has every worker import what it finds as `__main__`: `kedro`, which takes half a second, or a
    user's script, which would run a second time.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _here(function: Callable[[Work], Result], work: Iterable[Work]) -> Iterator[Result]:
    one_thread = ThreadpoolController()
    for piece in work:
        with one_thread.limit(limits=1, user_api="blas"):
            result = function(piece)
        yield result


def _while_starting(there: threading.Event, left: deque[Work]) -> Iterator[Work]:
    """Pieces from the end, for this process to do while the workers' server is importing for a second or two."""
    there.wait(_PATIENCE_S)
    with contextlib.suppress(IndexError):  # of an empty deque
        while not there.is_set():
            yield left.pop()


def _nothing() -> None:
    """A piece of work that shows that a worker is there."""


def _on_one_thread(function: Callable[[Work], Result], piece: Work) -> Result:
    """Matrix products of several threads round otherwise: the same bytes in any worker need one thread each."""
    with threadpool_limits(1, user_api="blas"):
        return function(piece)


def _begin_worker() -> None:
    threadpool_limits(1, user_api="blas")
    end_with_parent()
