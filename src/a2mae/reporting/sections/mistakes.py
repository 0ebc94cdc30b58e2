"""What a task's model takes for what: the confusion counts as shares of what is there, and each class's figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from a2mae.reporting import text
from a2mae.reporting.blocks import Section, Table
from a2mae.reporting.charts import chart
from a2mae.reporting.inputs import ReportInputs

_READABLE = 16
"""Classes whose shares can still be read as numbers in the cells."""
_NAMED = 3
"""Mistakes told in words."""
_SHADES = ((0.0, "rgba(11, 92, 173, 0)"), (1.0, "rgba(60, 130, 205, 0.6)"))
"""From the page's own ground to a blue that text stands out from, in light and dark."""

Counts = NDArray[np.int64]


def mistakes(inputs: ReportInputs, name: str) -> Section | None:
    """The pretrained model's confusion matrix on the test split.

    None where nothing was counted, and where an image has several labels: a label found beside another is no mistake.
    """
    task = next((task for task in inputs.tasks if task.name == name), None)
    if task is None or task.confusion is None or task.confusion.get("multi_label"):
        return None
    names = [str(one) for one in cast("Sequence[str]", task.confusion["class_names"])]
    counts: Counts = np.asarray(task.confusion["pretrained"], np.int64).reshape(len(names), len(names))
    if not counts.sum():
        return None
    told = _told(names, counts, "images" if name == "classify" else "pixels")
    figure = chart(
        f"mistakes-{name.replace('_', '-')}",
        _heatmap(names, counts),
        caption="Rows: what is there. Columns: what the model says. Each row adds up to 100 %.",
        alt=told,
        table=_by_class(names, counts),
        height_px=150 + 34 * min(len(names), 30),
    )
    return Section(f"mistakes-{name.replace('_', '-')}", "What is taken for what", told, (figure,))


def _shares(counts: Counts) -> NDArray[np.float64]:
    """Of each class, by rows; rows of classes that the split does not have are NaN."""
    total = counts.sum(axis=1, keepdims=True).astype(np.float64)
    shares: NDArray[np.float64] = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return shares


def _told(names: Sequence[str], counts: Counts, things: str) -> str:
    """The most frequent mistakes in a sentence."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    shares = _shares(counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_NAMED]
    found = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    if not found:
        return "Nothing was mistaken."
    parts = [f"{names[i]} taken for {names[j]} ({text.percent(shares[i, j])} of its {things})" for i, j in found]
    return f"Most often: {'; '.join(parts)}."


def _heatmap(names: Sequence[str], counts: Counts) -> go.Figure:
    shares = 100 * _shares(counts)
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=list(names),
            y=list(names),
            customdata=counts,
            zmin=0,
            zmax=100,
            colorscale=[list(shade) for shade in _SHADES],
            texttemplate="%{z:.0f}" if len(names) <= _READABLE else None,
            hovertemplate="%{y} taken for %{x}: %{z:.1f} % (%{customdata:,})<extra></extra>",
            xgap=1,
            ygap=1,
            showscale=False,
        )
    )
    figure.update_xaxes(title={"text": "what the model says", "standoff": 12}, showgrid=False, type="category")
    figure.update_yaxes(
        title={"text": "what is there", "standoff": 12}, showgrid=False, autorange="reversed", type="category"
    )
    return figure


def _by_class(names: Sequence[str], counts: Counts) -> Table:
    rows = []
    for i, name in enumerate(names):
        right, there, said = int(counts[i, i]), int(counts[i].sum()), int(counts[:, i].sum())
        others = counts[i].copy()
        others[i] = 0
        rows.append(
            (
                name,
                text.count(there),
                _percent(right, there),
                _percent(right, said),
                _percent(right, there + said - right),
                names[int(others.argmax())] if others.any() else "–",
            )
        )
    columns = ("class", "there", "of it found", "of what is called so right", "overlap (IoU)", "most often taken for")
    return Table("Each class in figures", columns, tuple(rows), numeric=(1, 2, 3, 4), folded=True)


def _percent(part: int, whole: int) -> str:
    return text.percent(part / whole) if whole else "–"
