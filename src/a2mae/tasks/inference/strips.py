"""Compute a raster strip by strip: here, or by many workers that each take a band of rows.

A strip is what a row of windows completes. Every pixel is the same sum whoever computes it, so that a map has the same
bytes on any number of workers; a band costs one row of windows more, those that reach into it from above. Workers leave
each strip as a file beside the raster, and a run that was stopped computes those that are missing.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from a2mae.config import WorkerParameters
from a2mae.errors import InputError, plural
from a2mae.files import whole_file
from a2mae.models.sources import weights_digest
from a2mae.parallel import cores, run_all
from a2mae.tasks.finetune.train import computing
from a2mae.tasks.tiling import StripWriter

logger = logging.getLogger(__name__)

Strip = Mapping[str, npt.NDArray[Any]]
"""Finished rows of every file that is written: `(bands, rows, columns)` by its name."""
_BAND_ROWS = 16
"""Rows of windows of a band on a cluster; a raster with fewer than two of them is computed before workers start."""
_LOCAL_ROWS = 32
"""Likewise for local workers, each of which has one band at least: fewer bands, fewer rows that are computed twice."""
_LEAST_ROWS = 4
"""Of a band however many workers there are: more than a quarter would be computed twice."""


class Drawing(Protocol):
    """A raster that is computed strip by strip."""

    @property
    def name(self) -> str:
        """What it is, for the log."""

    @property
    def first_rows(self) -> list[int]:
        """First row of each row of windows, ascending: where strips begin."""

    def strips(
        self,
        model: Any,  # noqa: ANN401 (as it was loaded)
        device: torch.device,
        first_row: int,
        last_row: int | None,
    ) -> Iterator[tuple[int, Strip]]:
        """Compute the rows from the first to the last one, a strip's first that is not included; None: to the end."""


@dataclass(frozen=True)
class Workers:
    """Who computes the strips of a raster.

    Attributes:
        model: Directory of the model, which every worker reads.
        load: Reads it; a function at module level.
        device: See `device_named`.
        threads: Of each worker; 0: one.
        crew: How many, and where.
    """

    model: Path
    load: Callable[[Path], Any]
    device: str
    threads: int
    crew: WorkerParameters

    def takes(self, drawing: Drawing, device: torch.device) -> bool:
        """Tell whether a raster is large enough to be shared; an accelerator is not, but on a cluster."""
        shared = self.crew.dask_scheduler is not None or device.type == "cpu"
        return shared and len(drawing.first_rows) >= 2 * _BAND_ROWS

    def strips(self, drawing: Drawing, folder: Path) -> Iterator[tuple[int, Strip]]:
        """Let the workers compute what is missing, and yield all strips from top to bottom.

        Args:
            drawing: What is computed.
            folder: Of its strips; what is there is not computed again.
        """
        rows = drawing.first_rows
        files = [_file(folder, row) for row in rows]
        missing = [number for number, file in enumerate(files) if not file.is_file()]
        bands = _bands(missing, 0 if self.crew.dask_scheduler else self.crew.workers or cores())
        logger.info(
            "%s: %s of rows for the workers; %d of %d strips are there",
            drawing.name, plural(len(bands), "band"), len(files) - len(missing), len(files),
        )  # fmt: skip
        piece_of = partial(_Band, self, weights_digest(self.model), drawing, folder)
        pieces = [piece_of(rows[first], None if last == len(rows) else rows[last]) for first, last in bands]
        done = run_all(_compute, pieces, workers=self.crew.workers, dask_scheduler=self.crew.dask_scheduler)
        for _ in tqdm(done, total=len(pieces), desc=drawing.name, unit="band", leave=False, disable=len(pieces) < 2):
            pass
        for row, file in zip(rows, files, strict=True):
            with np.load(file, allow_pickle=False) as found:
                yield row, dict(found)


def draw(
    drawing: Drawing,
    model: object,
    writers: dict[str, StripWriter],
    path: Path,
    fingerprint: str,
    *,
    device: torch.device,
    workers: Workers | None,
) -> None:
    """Compute a raster and write its files; what was begun is continued.

    Args:
        drawing: What is computed.
        model: For it, where it is computed here.
        writers: Of the files, by the names that strips have; the first one is finished when all others are.
        path: Of the first file; unfinished strips lie beside it.
        fingerprint: Hash of all that decides the content; strips of another one are removed.
        device: Where the model runs.
        workers: Compute it where it is large enough to be shared.
    """
    # The files may have stopped at different rows: go on where all are whole; rows written twice are the same.
    first_row = min(writer.first_row for writer in writers.values())
    folder = path.with_name(f".{path.stem}.strips")
    kept = folder / fingerprint[:16]
    for other in set(folder.glob("*")) - {kept}:
        shutil.rmtree(other)
    if workers is not None and workers.takes(drawing, device):
        strips = workers.strips(drawing, kept)
    else:
        strips = drawing.strips(model, device, first_row, None)
    for row, found in strips:
        skipped = max(first_row - row, 0)
        for name, writer in writers.items():
            rest = found[name][..., skipped:, :]
            if rest.shape[-2]:
                writer.write(row + skipped, rest)
    for writer in reversed(writers.values()):
        writer.finish()
    shutil.rmtree(folder, ignore_errors=True)


def _bands(missing: Sequence[int], workers: int) -> list[tuple[int, int]]:
    """Cut runs of missing strips into bands of about one length, as many for each worker.

    Args:
        missing: Numbers of strips, ascending.
        workers: Local ones; 0: a cluster, of which nobody knows.

    Returns:
        First and last strip of each, the last one not included.
    """
    ends = [0, *(at for at in range(1, len(missing)) if missing[at] != missing[at - 1] + 1), len(missing)]
    runs = [(missing[start], missing[end - 1] + 1) for start, end in pairwise(ends) if end > start]
    bands: list[tuple[int, int]] = []
    for first, last in runs:
        rows = last - first
        count = max(rows // _BAND_ROWS, 1) if workers == 0 else 1
        if workers > 1:
            each = max(rows // (_LOCAL_ROWS * workers), 1)
            count = min(each * workers, math.ceil(rows / _LEAST_ROWS))
        cuts = [first + rows * number // count for number in range(count + 1)]
        bands += pairwise(cuts)
    return bands


@dataclass(frozen=True)
class _Band:
    """Strips that one worker computes: those between two rows."""

    workers: Workers
    digest: str
    drawing: Drawing
    folder: Path
    first_row: int
    last_row: int | None


def _compute(band: _Band) -> None:
    """Write the strips of a band, in whatever process; a strip that is written twice is the same."""
    workers = band.workers
    # One thread in each worker, if nothing else is said: a sum of two halves is rounded otherwise than one sum.
    with computing(workers.device, workers.threads or 1) as device:
        model = _loaded(workers.load, workers.model, band.digest)
        rows = [row for row in band.drawing.first_rows if row >= band.first_row and row < (band.last_row or math.inf)]
        missing = [row for row in rows if not _file(band.folder, row).is_file()]  # another worker may have been lost
        for row, found in band.drawing.strips(model, device, missing[0], band.last_row) if missing else ():
            with whole_file(_file(band.folder, row)) as unfinished, unfinished.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **found)


def _file(folder: Path, row: int) -> Path:
    return folder / f"{row:08d}.npz"


@lru_cache(maxsize=1)
def _loaded(load: Callable[[Path], Any], folder: Path, digest: str) -> Any:  # noqa: ANN401 (as `load` gives it)
    """Read a model once in every process.

    Raises:
        InputError: If a worker finds another model under this name than the process that hands out the work.
    """
    if weights_digest(folder) != digest:
        raise InputError(f"{folder} is another model on this worker: give all workers the same one")
    return load(folder)
