"""Where to compute, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from a2mae.parallel import cores


@contextmanager
def computing(name: str, threads: int) -> Iterator[torch.device]:
    """The device that a parameter names, and as long as it is used the number of threads that the parameters say.

    That number decides bytes: the sum of two halves is rounded otherwise than one sum. Without a word of ours it would
    be the caller's `OMP_NUM_THREADS`.

    Args:
        name: As torch names devices; `auto` takes an accelerator where there is one.
        threads: Of torch and of the BLAS; 0: as many as there are cores.
    """
    before, count = torch.get_num_threads(), threads or cores()
    with threadpool_limits(count):
        torch.set_num_threads(count)
        try:
            yield _device(name)
        finally:
            torch.set_num_threads(before)


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
