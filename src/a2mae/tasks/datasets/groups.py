"""Groups that samples are of, as events and regions: a table of the user's beside the data, for scores by group."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from a2mae.errors import plural
from a2mae.tasks.datasets.task_data import SAMPLE_COLUMNS, SPLITS, TaskDataError
from a2mae.tasks.datasets.text_tables import read_table

NAME = "name"
_CHIP = re.compile(r"-\d+-\d+$")
_SPLIT = re.compile(rf"^({'|'.join(SPLITS)})/")
_NAMED = 3


def read_groups(path: Path, group: str) -> pd.DataFrame:
    """Read a CSV whose column `name` holds names of images or places, and each further one a group of each.

    Args:
        path: The file.
        group: The parameter that names it, for messages.

    Returns:
        Text, indexed by the name.

    Raises:
        TaskDataError: If it is no such table; the message says what was found and what to change.
    """
    try:
        columns, rows, _ = read_table(path)
    except TaskDataError as error:
        raise TaskDataError(f"{group}: {error}") from error
    table = pd.DataFrame(rows, columns=columns, dtype=str).map(str.strip)
    found = ", ".join(map(repr, table.columns))
    if NAME not in table.columns or len(table.columns) < 2:
        raise TaskDataError(
            f"{group}: {path} has the columns {found or 'none'}; it needs '{NAME}', of images or places, and one or"
            " more of groups, as event or region"
        )
    taken = [name for name in table.columns if name in (*SAMPLE_COLUMNS, "year")]
    if taken:
        raise TaskDataError(f"{group}: {path} has a column {taken[0]!r}, which samples have already: call it otherwise")
    twice = table[NAME][table[NAME].duplicated()]
    if len(twice):
        raise TaskDataError(f"{group}: {path} names {twice.iloc[0]!r} twice: keep one line for each")
    return table.set_index(NAME)


def grouped(samples: pd.DataFrame, groups: pd.DataFrame, group: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Give samples the groups of their image or place.

    Args:
        samples: Columns of `SAMPLE_COLUMNS`.
        groups: From `read_groups`.
        group: The parameter that names them, for messages.

    Returns:
        The samples with a column of text for each kind of group, empty where a sample is of none; and notes.

    Raises:
        TaskDataError: If no sample is in the table; the message shows names of both.
    """
    names = [
        next((name for name in _names(str(sample_id), str(place)) if name in groups.index), None)
        for sample_id, place in zip(samples["sample_id"], samples["place"], strict=True)
    ]
    lacking = [str(samples["sample_id"].iloc[row]) for row, name in enumerate(names) if name is None]
    if len(lacking) == len(samples):
        raise TaskDataError(
            f"{group}: no sample is in the table: it names {', '.join(map(repr, groups.index[:_NAMED]))} …, and samples"
            f" are {', '.join(map(repr, lacking[:_NAMED]))} … of places"
            f" {', '.join(map(repr, samples['place'].unique()[:_NAMED]))} …"
        )
    joined = samples.copy()
    for column in groups.columns:
        joined[column] = ["" if name is None else str(groups.at[name, column]) for name in names]
    some = f"{', '.join(lacking[:_NAMED])}{' …' if len(lacking) > _NAMED else ''}"
    note = (f"in no line of {group}, so in no score by group: {plural(len(lacking), 'sample')}: {some}",)
    return joined, note if lacking else ()


def _names(sample_id: str, place: str) -> Iterator[str]:
    """Names that a sample may go by: its own, its image's, both with and without folders, and its place's."""
    image = _CHIP.sub("", sample_id)
    for name in (sample_id, image):
        yield from (name, _SPLIT.sub("", name), name.rsplit("/", maxsplit=1)[-1])
    yield place
