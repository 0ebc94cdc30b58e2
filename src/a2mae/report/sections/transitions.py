"""Semantic change: the from-to matrix of the test split, true and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from a2mae.report import text
from a2mae.report.blocks import Section, Table, chart
from a2mae.report.inputs import TaskOutputs

_SHADES = ((0.0, "rgba(11, 92, 173, 0)"), (1.0, "rgba(60, 130, 205, 0.6)"))
_READABLE = 12
"""Classes up to which numbers are written into the cells."""


def from_to(task: TaskOutputs) -> Section | None:
    """Show from which class to which ground of the test split changed, and what the pretrained model says of it.

    Args:
        task: With counts of transitions (`a2mae.tasks.transitions`), truth by rows.

    Returns:
        None where nothing has changed and nothing was found to.
    """
    assert task.confusion is not None
    classes = [str(name) for name in cast("Sequence[str]", task.confusion["classes"])]
    names = [str(name) for name in cast("Sequence[str]", task.confusion["class_names"])]
    counts = np.asarray(task.confusion["pretrained"], np.int64).reshape(len(names), len(names))
    there, said, right = counts.sum(axis=1), counts.sum(axis=0), np.diagonal(counts)
    changed = int(there[1:].sum())
    if not changed + said[1:].sum():
        return None
    found = (
        f"{text.percent(changed / max(int(there.sum()), 1))} of the ground has changed its class, the model says"
        f" {text.percent(int(said[1:].sum()) / max(int(there.sum()), 1))}. It finds"
        f" {text.percent(int(right[1:].sum()) / max(changed, 1))} of what changed with both classes right, and"
        f" {text.percent(int(counts[1:, 1:].sum()) / max(changed, 1))} whatever the classes."
    )
    side = len(classes)
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True)
    for column, (of, total) in enumerate((("true", there), ("predicted", said)), start=1):
        pixels = total[1:].reshape(side, side)
        shares = 100 * pixels / max(int(pixels.sum()), 1)
        figure.add_heatmap(
            z=np.where(np.eye(side, dtype=bool), np.nan, shares),
            x=classes,
            y=classes,
            customdata=pixels,
            zmin=0,
            zmax=float(max(np.nanmax(shares), 1)),
            colorscale=[list(shade) for shade in _SHADES],
            text=[[f"{share:.0f}" if share >= 0.5 else "" for share in row] for row in shares],
            texttemplate="%{text}" if side <= _READABLE else None,
            hovertemplate="%{y} → %{x}: %{z:.1f} % of what changed (%{customdata:,} pixels)<extra></extra>",
            xgap=1,
            ygap=1,
            showscale=False,
            row=1,
            col=column,
        )
        figure.update_xaxes(title={"text": f"class after, {of}", "standoff": 12}, col=column)
    figure.update_xaxes(showgrid=False, type="category")
    figure.update_yaxes(showgrid=False, autorange="reversed", type="category")
    figure.update_yaxes(title={"text": "class before", "standoff": 12}, col=1)
    key = task.name.replace("_", "-")
    plot = chart(
        f"from-to-{key}",
        figure,
        caption="From the class of the row to the class of the column: percent of the ground that has changed.",
        alt=found,
        table=_by_transition(names, counts),
        height_px=230 + 34 * min(side, 30),
    )
    return Section(f"mistakes-{key}", "From-to matrix", found, (plot,))


def _by_transition(names: Sequence[str], counts: NDArray[np.int64]) -> Table:
    rows = []
    for index in np.argsort(-counts.sum(axis=1), kind="stable"):
        there, said = int(counts[index].sum()), int(counts[:, index].sum())
        if not there + said:
            continue
        right, others = int(counts[index, index]), counts[index].copy()
        others[index] = 0
        rows.append(
            (
                names[index],
                text.count(there),
                text.count(said),
                text.percent(right / there) if there else "–",
                text.percent(right / said) if said else "–",
                names[int(others.argmax())] if others.any() else "–",
            )
        )
    columns = ("transition", "true pixels", "predicted pixels", "recall", "precision", "most often predicted as")
    return Table("Recall and precision by transition", columns, tuple(rows), numeric=(1, 2, 3, 4), folded=True)
