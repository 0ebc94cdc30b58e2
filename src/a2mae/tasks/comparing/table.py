"""The comparison as Markdown, made from its scores alone, and put into its place in a document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from a2mae.files import write_bytes
from a2mae.tasks.comparing.comparison import Comparison
from a2mae.tasks.samples.task_data import TaskDataError
from a2mae.tasks.scoring.scores import READINGS

BEGIN, END = "<!-- comparison: begin -->", "<!-- comparison: end -->"
COLUMNS = (
    ("classify", "knn", "knn_both_coarse", "kNN"),
    ("classify", "knn_standardised", "knn_both_coarse", "kNN, standardised"),
    ("classify", "linear_probe", "top1", "linear probe"),
    ("classify", "finetuned", "top1", "finetuned"),
    ("segment", "finetuned", "miou", "segmentation mIoU"),
    ("detect_change", "finetuned", "f1", "change F1"),
)
"""Task, mode, metric and heading of the main table; kNN at the native GSD."""


def comparison_markdown(
    found: Comparison, order: Sequence[str], facts: Sequence[str], *, curves: str | None = None
) -> str:
    """The tables with what they rest on.

    Args:
        found: The comparison.
        order: Model names in the order of rows.
        facts: Sentences said above the tables: budget, steps, data.
        curves: Path of the picture of kNN over GSD, from the document's folder.
    """
    lines = [*facts, f"{found.done} of {found.planned} judgements were made in {found.spent_h:.2f} h."]
    if found.other_code:
        lines.append(f"{found.other_code} of them were made by an earlier version of the code.")
    lines += [
        "",
        "A cell is the mean over seeds, in brackets the mean 95 % bootstrap interval over test places (images where"
        " places are not known), then the standard deviation between seeds where there are several.",
    ]
    if curves is not None:
        lines += ["", f"![kNN accuracy over GSD, a line per model; the tables below hold the numbers]({curves})"]
    for data in sorted(found.table["data"].unique()):
        part = found.table[found.table["data"] == data]
        columns = [column for column in COLUMNS if len(_cells(part, *column[:3]))]
        lines += ["", f"**{data}**", ""]
        lines += _table(part, order, [(name, _cells(part, *key)) for *key, name in columns])
        knn = part[part["mode"] == "knn"]
        for metric, words in READINGS.items():
            one = knn[knn["metric"] == metric]
            scales = sorted(one["gsd_m"].unique())
            if len(scales) > 1:
                lines += ["", f"kNN over GSD, {words}:", ""]
                lines += _table(one, order, [(f"{gsd:g} m", one[one["gsd_m"] == gsd]) for gsd in scales])
    return "\n".join(lines) + "\n"


def _cells(part: pd.DataFrame, task: str, mode: str, metric: str) -> pd.DataFrame:
    rows = part[(part["task"] == task) & (part["mode"] == mode) & (part["metric"] == metric)]
    return rows[np.isclose(rows["gsd_m"], rows["native_gsd_m"])]


def _table(part: pd.DataFrame, order: Sequence[str], columns: Sequence[tuple[str, pd.DataFrame]]) -> Iterator[str]:
    yield "| | seeds | " + " | ".join(name for name, _ in columns) + " |"
    yield "|---|---|" + "---|" * len(columns)
    for model in order:
        rows = part[part["model"] == model]
        if len(rows):
            cells = [_cell(cells[cells["model"] == model]) for _, cells in columns]
            yield f"| {model} | {rows['seed'].nunique()} | " + " | ".join(cells) + " |"


def _cell(rows: pd.DataFrame) -> str:
    if not len(rows):
        return "–"
    value, low, high = (rows[name].mean() for name in ("value", "low", "high"))
    spread = f" ± {rows['value'].std(ddof=1):.3f}" if len(rows) > 1 else ""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]{spread}"


def write_between_marks(document: Path, text: str) -> None:
    """Replace what stands between the two marks of a document.

    Raises:
        TaskDataError: If the document or its marks are absent.
    """
    old = document.read_text(encoding="utf-8") if document.is_file() else ""
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        raise TaskDataError(f"{document} must hold the line {BEGIN!r} and after it {END!r}, once each")
    pattern = re.escape(BEGIN) + ".*" + re.escape(END)
    write_bytes(document, re.sub(pattern, lambda _: f"{BEGIN}\n{text}{END}", old, flags=re.DOTALL).encode())
