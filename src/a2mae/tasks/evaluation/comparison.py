"""Pretraining methods on the same data, size, tokens and steps, within a budget of hours.

Parameters of the comparison of pretraining methods.

The comparison of pretraining methods: units of work in a fixed order, within a budget of hours, continued any time.

A unit is one judgement of one contender with one seed, or its pretraining. What a unit found is kept (`units.py`), so a
second start does only what is missing, and a changed option makes its own units anew.

The comparison as Markdown, made from its scores alone, and put into its place in a document.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from a2mae.files import write_bytes, write_json
from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.evaluation.evaluate import Units
from a2mae.tasks.evaluation.judges import Contender, Judge
from a2mae.tasks.metrics.scores import READINGS, score_table

logger = logging.getLogger(__name__)


class Budget:
    """Hours that may be spent, over every start; what was spent stands in a file."""

    def __init__(self, path: Path, hours: float) -> None:
        self._path = path
        self._seconds = hours * 3600
        self.spent_s: float = json.loads(path.read_text())["spent_s"] if path.is_file() else 0.0

    @property
    def exhausted(self) -> bool:
        """Nothing is left."""
        return self.spent_s >= self._seconds

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time inside, also that of work which failed or was stopped."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.spent_s += time.monotonic() - started
            write_json(self._path, {"spent_s": round(self.spent_s, 1)})


@dataclass(frozen=True)
class Comparison:
    """What was found so far.

    Attributes:
        table: Scores in the form of the score table.
        done: Judgements made.
        planned: Judgements in all.
        other_code: How many of those made stem from code that is not this one.
        spent_h: Hours, over every start.
    """

    table: pd.DataFrame
    done: int
    planned: int
    other_code: int
    spent_h: float


def run_comparison(
    kept: Units,
    contenders: Sequence[Contender],
    judges: Sequence[Judge],
    train: Callable[[Contender], Path],
    budget: Budget,
) -> Comparison:
    """Do what is missing until all is done or the budget is spent.

    Args:
        kept: Judgements made before, and room for more.
        contenders: In the order of work; the first must be `trained`.
        judges: In the order of work.
        train: Pretrains a contender, or finds it pretrained, and returns its model directory.
        budget: Checked before every unit; a unit once begun is finished.
    """
    units = [(contender, judge) for contender in contenders for judge in judges if judge.judges(contender)]
    architecture: Path | None = None
    models: dict[Contender, Path] = {}
    for number, (contender, judge) in enumerate(units, start=1):
        if kept.path(_decided_by(contender, judge)).is_file():
            continue
        if budget.exhausted:
            logger.warning(
                "the budget is spent (%.2f h): %d of %d judgements are made; raise compare.budget_h to go on",
                budget.spent_s / 3600,
                sum(kept.path(_decided_by(*unit)).is_file() for unit in units),
                len(units),
            )
            break
        with budget.spending():
            if contender.kind == "trained" and contender not in models:
                models[contender] = train(contender)
            if contender.kind != "trained":
                architecture = architecture or train(contenders[0])
            model = models.get(contender) or architecture
            assert model is not None
            logger.info("%d of %d: %s, seed %d, %s", number, len(units), contender.name, contender.seed, judge.name)
            rows = [{**row, "model": contender.name, "seed": contender.seed} for row in judge.score(contender, model)]
            kept.keep(_decided_by(contender, judge), rows)
    found = [one for one in (kept.found(_decided_by(*unit)) for unit in units) if one is not None]
    other = sum(one.code != kept.code for one in found)
    if other:
        logger.warning(
            "%d of %d judgements were made by other code; delete %s to make all anew", other, len(found), kept.folder
        )
    table = score_table(list(chain.from_iterable(one.rows for one in found)))
    return Comparison(table, len(found), len(units), other, budget.spent_s / 3600)


def _decided_by(contender: Contender, judge: Judge) -> list[object]:
    return [contender.name, contender.kind, contender.seed, contender.settings, judge.settings]


def steps_within(
    budget_s: float, seconds_per_step: Mapping[str, float], runs: Mapping[str, int], start_s: float
) -> int:
    """Steps that every run may take so that all of them together keep a budget.

    Args:
        budget_s: For all runs, seconds.
        seconds_per_step: By method.
        runs: How many runs of each method.
        start_s: What every run costs besides its steps, seconds.
    """
    left = budget_s - start_s * sum(runs.values())
    return max(int(left / sum(runs[method] * seconds_per_step[method] for method in runs)), 0)


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
