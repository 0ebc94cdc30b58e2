"""Read the tables that people write: comma-separated text in UTF-8."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from a2mae.files import check_regular
from a2mae.tasks.datasets.task_data import TaskDataError


def utf8_text(path: Path) -> str:
    """Read a table that must be in UTF-8, with or without a byte-order mark.

    Raises:
        TaskDataError: If it is not; what it is in is said.
        OSError: If it cannot be read.
    """
    check_regular(path)
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "an ANSI code page, as Excel's plain CSV is"
        raise TaskDataError(f"{path} is not in UTF-8 but in {found} ({error}): save it as CSV UTF-8") from error
    if "\0" in text:
        raise TaskDataError(f"{path} is not in UTF-8 but in UTF-16: save it as CSV UTF-8")
    return text


def read_table(
    path: Path, needed: Sequence[tuple[str, ...]] = (), what: str = ""
) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table of comma-separated text.

    Args:
        path: The file.
        needed: Columns that it must have: all of one of these.
        what: What is said of them in a message.

    Returns:
        Its columns, and for every line its cells by column; those that a short line lacks are empty.

    Raises:
        TaskDataError: If it is not in UTF-8, names a column twice, lacks one, or has a line that is no row of it.
        OSError: If it cannot be read.
    """
    reader = csv.reader(io.StringIO(utf8_text(path), newline=""), strict=True)
    try:
        columns = next(reader, [])
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise TaskDataError(
            f"{path}, line {reader.line_num} is no line of comma-separated text ({error}): look for a quotation mark"
            " that is not closed"
        ) from error
    if needed and not any(set(names) <= set(columns) for names in needed):
        apart = "; they are separated by ';', save it with commas" if any(";" in column for column in columns) else ""
        raise TaskDataError(
            f"{path} has the columns {', '.join(columns) or 'none'}; needed are {' and '.join(needed[0])}{what}{apart}"
        )
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise TaskDataError(f"{path} has two columns {twice[0]!r}: call one of them otherwise")
    for number, cells in lines:
        if len(cells) > len(columns):
            raise TaskDataError(
                f"{path}, line {number} has {len(cells)} cells, and the first line names {len(columns)} columns: quote"
                " text that holds commas"
            )
    empty = [""] * len(columns)
    return columns, [dict(zip(columns, [*cells, *empty], strict=False)) for _, cells in lines]
