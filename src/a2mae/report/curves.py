"""Curves as pictures: of a training, and of kNN over GSD.

The training's curves as a picture: for who compares two runs side by side, with no script and no network.

kNN over GSD as a picture for a document: a panel per data set and reading, a line per model, with intervals.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from a2mae.tasks.metrics.scores import READINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

_PANELS = (
    ("loss", {"loss": "training", "held_out_loss": "held out", "training_sets_loss": "fixed training sets"}),
    ("effective rank", {"effective_rank": "of the features"}),
    ("learning rate", {"lr": ""}),
)


def draw_curves(curves: pd.DataFrame) -> bytes:
    """Loss, effective rank and learning rate over the steps.

    Args:
        curves: One row per log interval, with `step`; a measure that was not taken in a row is NaN there.

    Returns:
        A PNG; the same table gives the same bytes.
    """
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axis, (name, columns) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for column, label in columns.items():
            if column in curves:
                known = curves.dropna(subset=[column])
                axis.plot(known["step"], known[column], marker="o", markersize=3, label=label)
        axis.set(xlabel="step", ylabel=name)
        if len(columns) > 1:
            axis.legend()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)  # draws without a window, whatever the user's backend
    # Without the library's version in it, an update of matplotlib alone changes no byte outside the picture.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


UNTRAINED = ("random", "pixels", "histogram")
_COLOURS = [colormaps["tab10"](number) for number in range(10) if number != 7]
"""Its grey is left to what nothing was trained for."""


def draw_scale_curves(scores: pd.DataFrame, order: Sequence[str]) -> bytes | None:
    """Accuracy of kNN over GSD: means over seeds, bars from the mean lower to the mean upper end of the intervals.

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
        colour = str(0.3 + 0.2 * UNTRAINED.index(model)) if grey else _COLOURS[at]
        axis.errorbar(
            gsd, value, bars, label=model, marker=("o", "s", "^", "D")[number % 4], markersize=4, elinewidth=0.8,
            linewidth=1.2, linestyle="--" if grey else "-:"[turn % 2], color=colour,
        )  # fmt: skip
    ticks = sorted(rows["gsd_m"].unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
