"""Read the tables that people write: comma-separated text in UTF-8."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from a2mae.files import check_regular, is_inside
from a2mae.tasks.datasets.task_data import TaskDataError

_OTHER_SIGNS = {";": "';'", "\t": "tabulators", "|": "'|'"}


class Table(NamedTuple):
    """A table that was read.

    Attributes:
        columns: Names, in their order.
        rows: Cells by column.
        lines: Number of the line in the file that each row ends on.
    """

    columns: list[str]
    rows: list[dict[str, str]]
    lines: list[int]


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


def read_table(path: Path, needed: Sequence[tuple[str, ...]] = (), what: str = "") -> Table:
    """Read a table of comma-separated text.

    Args:
        path: The file.
        needed: Columns that it must have: all of one of these.
        what: What is said of them in a message.

    Returns:
        Its columns without spaces around their names, and for every line its cells by column; those that a short line
        lacks are empty, and columns without a name and cells are left out.

    Raises:
        TaskDataError: If it cannot be read, is not in UTF-8, names a column twice or not at all, lacks one, or has a
            line that is no row of it.
    """
    try:
        reader = csv.reader(io.StringIO(utf8_text(path), newline=""), strict=True)
    except OSError as error:
        raise TaskDataError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        columns = [name.strip() for name in next(reader, [])]
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise TaskDataError(
            f"{path}, line {reader.line_num} is no line of comma-separated text ({error}): look for a quotation mark"
            " that is not closed"
        ) from error
    if needed and not any(set(names) <= set(columns) for names in needed):
        signs = [told for sign, told in _OTHER_SIGNS.items() if any(sign in column for column in columns)]
        apart = f"; they are separated by {signs[0]}, save it with commas" if signs else ""
        raise TaskDataError(
            f"{path} has the columns {', '.join(columns) or 'none'}; needed are {' and '.join(needed[0])}{what}{apart}"
        )
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise TaskDataError(f"{path} has two columns {twice[0]!r}: call one of them otherwise")
    for number, cells in lines:
        if len(cells) > len(columns):
            raise TaskDataError(
                f"{path}, line {number} has {len(cells)} cells, and the first line names {len(columns)} columns: quote"
                " text that holds commas"
            )
        nameless = [
            place for place, (name, cell) in enumerate(zip(columns, cells, strict=False), 1) if cell and not name
        ]
        if nameless:
            raise TaskDataError(f"{path}, line {number}: column {nameless[0]} holds text and has no name: give it one")
    empty = [""] * len(columns)
    rows = [dict(zip(columns, [*cells, *empty], strict=False)) for _, cells in lines]
    for row in rows:
        row.pop("", None)
    return Table([name for name in columns if name], rows, [number for number, _ in lines])


def file_inside(folder: Path, name: str) -> Path | None:
    """Find a file that a table names in its folder.

    Args:
        folder: Of the table.
        name: Path in it, as the table has it.

    Returns:
        Its path in the folder, the same however the table writes it; None where there is no such file in the folder,
        also where a link leads out of it.
    """
    found, inside = folder / name, os.path.realpath(folder)
    if os.path.isabs(name) or not os.path.isfile(found) or not is_inside(found, folder):
        return None
    return folder / os.path.relpath(os.path.normpath(os.path.join(inside, name)), inside)
