"""What a comparison found, for a document: tables between two marks, and kNN over GSD as a picture."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from a2mae.files import write_bytes
from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.metrics.scores import READINGS
from benchmarks.compare.comparison import Comparison

COLUMNS = (
    ("classify", "knn", "knn_both_coarse", "kNN"),
    ("classify", "knn_standardised", "knn_both_coarse", "kNN, standardised"),
    ("classify", "linear_probe", "top1", "linear probe"),
    ("classify", "finetuned", "top1", "finetuned"),
    ("segment", "finetuned", "miou", "segmentation mIoU"),
    ("segment", "frozen", "miou", "segmentation mIoU, frozen"),
    ("segment", "frozen_rcf", "miou", "segmentation mIoU, frozen, with rcf"),
    ("detect_change", "finetuned", "f1", "change F1"),
    ("detect_change", "frozen", "f1", "change F1, frozen"),
    ("detect_change", "frozen_rcf", "f1", "change F1, frozen, with rcf"),
)
"""Task, mode, metric and heading of the main table; kNN at the native GSD."""


def comparison_markdown(
    found: Comparison, order: Sequence[str], facts: Sequence[str], *, curves: str | None = None
) -> str:
    """Write the tables with what they rest on.

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
        scores = part[part["over"] == ""]
        columns = [column for column in COLUMNS if len(_cells(scores, *column[:3]))]
        lines += ["", f"**{data}**", ""]
        lines += _table(scores, order, [(name, _cells(scores, *key)) for *key, name in columns])
        for over in order:
            gains = part[part["over"] == over]
            if len(gains):
                cells = [(name, _cells(gains, task, f"{mode}_gain", metric)) for task, mode, metric, name in columns]
                lines += ["", f"Over {over}, paired over places:", "", *_table(gains, order, cells)]
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
    sign = "+" if rows["over"].any() else ""
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]{spread}"


def marks(name: str) -> tuple[str, str]:
    """Give the lines between which a document holds the tables of a comparison."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def write_between_marks(document: Path, text: str, name: str) -> None:
    """Replace what stands between the two marks of a document.

    Args:
        document: A Markdown file.
        text: The tables.
        name: Of the marks.

    Raises:
        TaskDataError: If the document or its marks are absent.
    """
    begin, end = marks(name)
    old = document.read_text(encoding="utf-8") if document.is_file() else ""
    if old.count(begin) != 1 or old.count(end) != 1:
        raise TaskDataError(f"{document} must hold the line {begin!r} and after it {end!r}, once each")
    pattern = re.escape(begin) + ".*" + re.escape(end)
    write_bytes(document, re.sub(pattern, lambda _: f"{begin}\n{text}{end}", old, flags=re.DOTALL).encode())


UNTRAINED = ("random", "random_rcf", "rcf", "statistics", "histogram", "pixels")
_COLOURS = [colormaps["tab10"](number) for number in range(10) if number != 7]
"""Its grey is left to what nothing was trained for."""


def draw_scale_curves(scores: pd.DataFrame, order: Sequence[str]) -> bytes | None:
    """Draw kNN accuracy over GSD: means over seeds, bars from the mean lower to the mean upper end of the intervals.

    Args:
        scores: Rows in the form of the score table.
        order: Model names in the order of the legend; what nothing was trained for is drawn in grey.

    Returns:
        An SVG, the same bytes for the same table; None where no data set was scored at two GSDs or more.
    """
    knn = scores[(scores["mode"] == "knn") & scores["metric"].isin(READINGS)]
    data_sets = [str(data) for data, rows in knn.groupby("data", sort=True) if rows["gsd_m"].nunique() > 1]
    if not data_sets:
        return None
    figure = Figure(figsize=(10, 3.6 * len(data_sets)), layout="constrained")
    panels = figure.subplots(len(data_sets), len(READINGS), squeeze=False, sharey="row")
    known = [model for model in order if model in set(knn["model"])]
    for row, data in zip(panels, data_sets, strict=True):
        for axis, (metric, words) in zip(row, READINGS.items(), strict=True):
            _draw(axis, knn[(knn["data"] == data) & (knn["metric"] == metric)], known)
            axis.set(title=f"{data}: {words}", xlabel="GSD, metres per pixel")
        row[0].set_ylabel("kNN accuracy")
    handles = {str(line.get_label()): line for axis in panels.flat for line in axis.get_legend_handles_labels()[0]}
    shown = [model for model in known if model in handles]
    figure.legend([handles[model] for model in shown], shown, loc="outside lower center", ncols=4, frameon=False)
    buffer = io.BytesIO()
    FigureCanvasSVG(figure)
    with rc_context({"svg.hashsalt": "a2mae", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _draw(axis: Axes, rows: pd.DataFrame, order: Sequence[str]) -> None:
    means = rows.groupby(["model", "gsd_m"])[["value", "low", "high"]].mean()
    found = set(rows["model"])
    trained = [model for model in order if model not in UNTRAINED]
    for number, model in enumerate(order):
        if model not in found:
            continue
        one = means.loc[model].sort_index()
        gsd = one.index.to_numpy(float) * (1 + 0.012 * (number - len(order) / 2))  # beside each other, not on top
        value = one["value"].to_numpy()
        bars = np.stack([value - one["low"].to_numpy(), one["high"].to_numpy() - value]).clip(0)
        grey = model in UNTRAINED
        turn, at = (0, 0) if grey else divmod(trained.index(model), len(_COLOURS))
        colour = str(0.2 + 0.12 * UNTRAINED.index(model)) if grey else _COLOURS[at]
        axis.errorbar(
            gsd, value, bars, label=model, marker=("o", "s", "^", "D")[number % 4], markersize=4, elinewidth=0.8,
            linewidth=1.2, linestyle="--" if grey else "-:"[turn % 2], color=colour,
        )  # fmt: skip
    ticks = sorted(rows["gsd_m"].unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
