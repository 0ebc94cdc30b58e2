"""Tasks: predictions beside the truth, and the confusion matrix or, of values, a scatter plot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Gallery, Picture, Section, Strip, Swatch, Table, chart
from a2mae.report.inputs import ReportInputs, TaskOutputs
from a2mae.report.pictures import INVALID_RGB, classes_to_bytes, to_data_uri
from a2mae.report.sections.transitions import from_to
from a2mae.report.sections.values import scatter, value_pictures
from a2mae.tasks.palette import class_colours, hex_colour
from a2mae.tasks.registry import Task

_READABLE = 16
"""Classes up to which numbers are written into the cells."""
IN_LEGEND = 16
"""Classes of a legend, the largest; semantic change has many small ones."""
_NAMED = 3
"""Mistakes that are listed in words."""
_SHADES = ((0.0, "rgba(11, 92, 173, 0)"), (1.0, "rgba(60, 130, 205, 0.6)"))
"""From transparent to a blue on which text can be read, in light and dark."""

Counts = NDArray[np.int64]


def mistakes(inputs: ReportInputs, name: str) -> Section | None:
    """Show the pretrained model's confusion matrix on the test split; of values a scatter plot, of transitions from-to.

    Returns:
        None where nothing was counted, and where an image has several labels: one found beside another is no mistake.
    """
    task = next((task for task in inputs.tasks if task.name == name), None)
    if task is None or task.confusion is None or task.confusion.get("multi_label"):
        return None
    if Task(name).kind.values:
        return scatter(task)
    if Task(name).kind.transitions:
        return from_to(task)
    names = [str(one) for one in cast("Sequence[str]", task.confusion["class_names"])]
    counts: Counts = np.asarray(task.confusion["pretrained"], np.int64).reshape(len(names), len(names))
    if not counts.sum():
        return None
    found = _most_frequent(names, counts, "pixels" if Task(name).kind.per_pixel else "images")
    figure = chart(
        f"mistakes-{name.replace('_', '-')}",
        _heatmap(names, counts),
        caption="Rows: true class. Columns: predicted class. Each row adds up to 100 %.",
        alt=found,
        table=_by_class(names, counts),
        height_px=150 + 34 * min(len(names), 30),
    )
    return Section(f"mistakes-{name.replace('_', '-')}", "Confusion matrix", found, (figure,))


def _shares_of_truth(counts: Counts) -> NDArray[np.float64]:
    """Normalise by rows; rows of classes that the split does not have are NaN."""
    total = counts.sum(axis=1, keepdims=True).astype(np.float64)
    shares: NDArray[np.float64] = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return shares


def _most_frequent(names: Sequence[str], counts: Counts, things: str) -> str:
    """List the most frequent mistakes in a sentence."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    shares = _shares_of_truth(counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_NAMED]
    found = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    if not found:
        return "No mistakes."
    parts = [f"{names[i]} predicted as {names[j]} ({text.percent(shares[i, j])} of its {things})" for i, j in found]
    return f"Most frequent mistakes: {'; '.join(parts)}."


def _heatmap(names: Sequence[str], counts: Counts) -> go.Figure:
    shares = 100 * _shares_of_truth(counts)
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
            hovertemplate="%{y} predicted as %{x}: %{z:.1f} % (%{customdata:,})<extra></extra>",
            xgap=1,
            ygap=1,
            showscale=False,
        )
    )
    figure.update_xaxes(title={"text": "predicted class", "standoff": 12}, showgrid=False, type="category")
    figure.update_yaxes(
        title={"text": "true class", "standoff": 12}, showgrid=False, autorange="reversed", type="category"
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
    columns = ("class", "true", "recall", "precision", "IoU", "most often predicted as")
    return Table("Recall, precision and IoU by class", columns, tuple(rows), numeric=(1, 2, 3, 4), folded=True)


def _percent(part: int, whole: int) -> str:
    return text.percent(part / whole) if whole else "–"


IGNORE = 255
"""Label of pixels that are not scored."""

Arrays = dict[str, NDArray[np.generic]]


def task_pictures(inputs: ReportInputs, name: str) -> Section | None:
    """Show samples of a task's test split with truth and prediction; None where it has no pictures."""
    task = next((task for task in inputs.tasks if task.name == name), None)
    if task is None or task.pictures is None or not task.pictures.exists():
        return None
    with np.load(task.pictures, allow_pickle=False) as file:
        arrays: Arrays = {name: file[name] for name in file.files}
    number = min(len(arrays["truth"]), inputs.limits.examples)
    if not number:
        return None
    if "quantity" in arrays:
        return value_pictures(task, arrays, number, inputs.limits.picture_px, _origin(task))
    draw = {1: _labels, 2: _several_labels}.get(arrays["truth"].ndim, _maps)
    return draw(task, arrays, number, inputs.limits.picture_px)


def title_of(task: str) -> str:
    """Name a task for readers; an unknown task keeps its own name."""
    return Task(task).kind.title if task in tuple(Task) else task


def _names(arrays: Arrays) -> list[str]:
    return [str(name) for name in arrays["class_names"]]


def _labels(task: TaskOutputs, arrays: Arrays, number: int, px: int) -> Section:
    names = _names(arrays)
    pictures = []
    right = 0
    for i in range(number):
        truth, prediction = names[int(arrays["truth"][i])], names[int(arrays["prediction"][i])]
        right += truth == prediction
        verdict = "correct" if truth == prediction else f"predicted {prediction}"
        pictures.append(
            Picture(
                to_data_uri(np.asarray(arrays["image"][i], np.uint8), max_px=px),
                f"A test image of {truth}; the model {'is right' if truth == prediction else f'predicts {prediction}'}",
                (truth, verdict),
                badge="✓" if truth == prediction else "✗",
            )
        )
    return Section(
        f"task-{task.name.replace('_', '-')}",
        "Examples of the test split",
        f"{plural(number, 'test image')} with the true class and the prediction of the pretrained model:"
        f" {right} correct.",
        (Gallery(_origin(task), (Strip("", tuple(pictures)),)),),
    )


def _several_labels(task: TaskOutputs, arrays: Arrays, number: int, px: int) -> Section:
    """Show images with any number of classes."""
    names = _names(arrays)
    pictures = []
    right = 0
    for i in range(number):
        truth, prediction = (np.asarray(arrays[key][i], bool) for key in ("truth", "prediction"))
        same = bool((truth == prediction).all())
        right += same
        there, found = _listed(truth, names), _listed(prediction, names)
        pictures.append(
            Picture(
                to_data_uri(np.asarray(arrays["image"][i], np.uint8), max_px=px),
                f"A test image of {there}; the model {'is right' if same else f'predicts {found}'}",
                (f"true: {there}", f"predicted: {found}"),
                badge="✓" if same else "✗",
            )
        )
    return Section(
        f"task-{task.name.replace('_', '-')}",
        "Examples of the test split",
        f"{plural(number, 'test image')} with all true classes and all that the pretrained model predicts:"
        f" {right} correct in every class.",
        (Gallery(_origin(task), (Strip("", tuple(pictures)),)),),
    )


def _listed(there: NDArray[np.bool_], names: list[str]) -> str:
    return ", ".join(names[int(i)] for i in np.flatnonzero(there)) or "none"


def _maps(task: TaskOutputs, arrays: Arrays, number: int, px: int) -> Section:
    names = _names(arrays)
    own = arrays.get("class_colours", np.empty((0, 3), np.uint8))  # absent: an earlier version's
    colours = np.array(class_colours([(int(r), int(g), int(b)) for r, g, b in own], len(names)), np.uint8)
    strips = []
    seen: Counter[int] = Counter()
    for i in range(number):
        truth = np.asarray(arrays["truth"][i], np.uint8)
        prediction = np.asarray(arrays["prediction"][i], np.uint8)
        for classes in (truth, prediction):
            seen.update(dict(zip(*(part.tolist() for part in np.unique(classes, return_counts=True)), strict=True)))
        scored = truth != IGNORE
        agreement = float((truth == prediction)[scored].mean()) if scored.any() else float("nan")
        pictures = [
            Picture(
                to_data_uri(np.asarray(arrays[key][i], np.uint8), max_px=px), f"Test image {i + 1}, {words}", (words,)
            )
            for key, words in (("image", "image"), ("image_before", "before"), ("image_after", "after"))
            if key in arrays
        ]
        pictures.append(
            Picture(
                to_data_uri(classes_to_bytes(truth, IGNORE, colours), max_px=px, exact=True),
                f"Test image {i + 1}, truth: {_shares(truth, names)}",
                ("truth",),
            )
        )
        pictures.append(
            Picture(
                to_data_uri(classes_to_bytes(prediction, IGNORE, colours), max_px=px, exact=True),
                f"Test image {i + 1}, prediction: {_shares(prediction, names)}",
                ("prediction",),
            )
        )
        strips.append(Strip(f"Test image {i + 1}", tuple(pictures), f"{text.percent(agreement)} of the pixels agree"))
    order = [value for value, _ in seen.most_common() if value != IGNORE]
    shown = order[:IN_LEGEND]
    legend = [
        Swatch(hex_colour((int(red), int(green), int(blue))), names[i])
        for i, (red, green, blue) in enumerate(colours)
        if i in shown or len(names) <= 3
    ]
    if IGNORE in seen:
        legend.append(Swatch(hex_colour(INVALID_RGB), "not scored"))
    return Section(
        f"task-{task.name.replace('_', '-')}",
        "Examples of the test split",
        f"{plural(number, 'test image')} with the truth and the prediction of the pretrained model."
        + (f" The legend has the {IN_LEGEND} largest of {len(order)}." if len(order) > IN_LEGEND else ""),
        (Gallery(_origin(task), tuple(strips), tuple(legend)),),
    )


def _origin(task: TaskOutputs) -> str:
    if task.metrics.get("data") == "simulated":
        return "From the test split; its locations were in no training."
    return "From the test split, which was not trained on; whether pretraining saw its locations is not known."


def _shares(classes: NDArray[np.uint8], names: list[str]) -> str:
    values, counts = np.unique(classes[classes != IGNORE], return_counts=True)
    order = np.argsort(-counts)[:4]
    total = max(int(counts.sum()), 1)
    parts = [f"{names[int(values[i])]} {text.percent(counts[i] / total, 0)}" for i in order]
    return ", ".join(parts) or "nothing scored"
