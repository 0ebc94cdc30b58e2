"""Curves as pictures: of a training, and of kNN over GSD.

The training's curves as a picture: for who compares two runs side by side, with no script and no network.

kNN over GSD as a picture for a document: a panel per data set and reading, a line per model, with intervals.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

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
