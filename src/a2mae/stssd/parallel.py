"""Many independent pieces of work: in this process, in a pool of local processes, or on a Dask cluster."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")


class WorkerLostError(RuntimeError):
    """A worker process died; what was finished is kept."""


def run_all(
    function: Callable[[Work], Result],
    work: Sequence[Work],
    *,
    workers: int,
    dask_scheduler: str | None = None,
) -> Iterator[Result]:
    """Run a function over pieces of work; results come as they are ready, in any order.

    Args:
        function: A function at module level; it must give the same result when run twice.
        work: Picklable pieces.
        workers: Local processes; 1 runs here.
        dask_scheduler: Address of a running cluster, which is used instead ("tcp://…"). Dask runs the work of a lost
            worker again by itself.

    Raises:
        WorkerLostError: If a local worker was killed, for example for memory.
    """
    if not work:
        return
    if dask_scheduler is not None:
        yield from _on_cluster(function, work, dask_scheduler)
        return
    if workers == 1 or len(work) == 1:
        for piece in work:
            yield function(piece)
        return
    # Forked processes inherit locks of GDAL and of the codecs' threads: spawn.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(work)), mp_context=context) as pool:
        futures = [pool.submit(function, piece) for piece in work]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise WorkerLostError(
                "a worker process died (killed, or out of memory); what it had finished is kept:"
                " run the same command again to go on, with fewer coregister.workers if memory was short"
            ) from error
        finally:
            for future in futures:
                future.cancel()


def _on_cluster(function: Callable[[Work], Result], work: Sequence[Work], address: str) -> Iterator[Result]:
    distributed: Any = importlib.import_module("distributed")  # half a second, only where a cluster is used
    with distributed.Client(address, set_as_default=False) as client:
        for future in distributed.as_completed(client.map(function, work, pure=False)):
            yield future.result()
