"""The images of many places: which are asked for, and who looks at them.

Which windows of which images become samples is found place by place, so any number of workers finds the same.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from a2mae.config import WorkerParameters
from a2mae.parallel import WorkerLostError, run_all
from a2mae.tasks.datasets.store_samples import StoreImages
from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.parameters import TaskParameters

logger = logging.getLogger(__name__)

Images = TypeVar("Images", bound=StoreImages)
Found = TypeVar("Found")

_PLACES = 16
"""Places of a piece of work, at least."""
_MOST_PIECES = 512
"""Every piece is sought in the whole table."""
_WORTH_SHARING = 20_000
"""Images: fewer are cut by one process in the twelve seconds in which workers start and cut them."""


def by_places(
    images: Images, work_of: Callable[[Images], Callable[[], Found]], crew: WorkerParameters | None, name: str
) -> Iterator[Found]:
    """Do something with the images of every place, and yield what comes of it by the places' order.

    Args:
        images: What is cut from.
        work_of: Gives what to do with those of some places: a function without arguments that workers can be sent, as a
            `functools.partial` of one at module level.
        crew: Who does it; None: this process does all at once.
        name: What is cut, for the log.

    Raises:
        WorkerLostError: If a worker died.
    """
    places = sorted(images.table["location_id"].unique())
    size = max(_PLACES, math.ceil(len(places) / _MOST_PIECES))
    pieces = [places[start : start + size] for start in range(0, len(places), size)]
    shared = crew is not None and len(images.table) >= _WORTH_SHARING and len(pieces) > 1
    if crew is None or not shared or (crew.workers == 1 and crew.dask_scheduler is None):
        yield work_of(images)()
        return
    work = [(number, work_of(images.at(some))) for number, some in enumerate(pieces)]
    logger.info("%s: %d places are cut by the workers, in %d pieces", name, len(places), len(pieces))
    done = run_all(_numbered, work, workers=crew.workers, dask_scheduler=crew.dask_scheduler)
    try:
        found = dict(tqdm(done, total=len(work), desc=name, unit="piece", leave=False))
    except WorkerLostError as error:
        raise WorkerLostError(
            f"{name}: a worker died while samples were cut (killed, or out of memory), and nothing is kept before all"
            " are: run the same command again, with fewer workers or more memory"
        ) from error
    yield from (found[number] for number in range(len(work)))


def _numbered(work: tuple[int, Callable[[], Found]]) -> tuple[int, Found]:
    number, function = work
    return number, function()


def labelled_images(options: TaskParameters, images: StoreImages) -> pd.DataFrame:
    """Return the images of the days that `data.archive` asks for, once each; for pairs those that lie on a reference.

    Args:
        options: The task's parameters.
        images: Of the archive.

    Raises:
        TaskDataError: If there is none; the message says which days there are.
    """
    table = images.once() if options.task.kind.dates == 1 else images.registered()
    asked, key = options.data.archive, f"{options.task}.data.archive"
    if not len(table):
        raise TaskDataError(f"{key}.sensors: the image sets have no image of {', '.join(asked.sensors)} in any split")
    days = table["datetime"].dt.date
    kept = table[(days >= (asked.start or days.min())) & (days <= (asked.end or days.max()))]
    if not len(kept):
        raise TaskDataError(
            f"{key}.start and end: no image of {', '.join(asked.sensors)} from {asked.start or 'the first'} to"
            f" {asked.end or 'the last'}; the image sets have {len(table)}, from {days.min()} to {days.max()}"
        )
    return pd.DataFrame(kept)


def on_task_grid(valid: npt.NDArray[np.bool_], grid_px: int) -> npt.NDArray[np.bool_]:
    """Bring a valid mask of any side to the task's grid, nearest pixel."""
    at = (np.arange(grid_px) + 0.5) * valid.shape[-1] / grid_px
    index = at.astype(np.int64)
    return valid[np.ix_(index, index)]
