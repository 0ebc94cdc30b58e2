"""Estimated values: a scatter plot against the truth, and test samples with their residuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Gallery, Picture, Section, Strip, Table, chart
from a2mae.report.inputs import TaskOutputs
from a2mae.report.pictures import Ramp, to_data_uri

Values = NDArray[np.float64]
_PARTS = 5
"""Ranges of true values that errors are told for, with equally many labels each."""


def scatter(task: TaskOutputs) -> Section | None:
    """Draw what the pretrained model estimated over what is true, for labels of the test split.

    Args:
        task: With pairs of values (`a2mae.tasks.evaluation.both_starts.value_pairs`).

    Returns:
        None where there are no pairs.
    """
    assert task.confusion is not None
    truth, estimated = (np.asarray(task.confusion[key], np.float64) for key in ("truth", "prediction"))
    if not truth.size:
        return None
    name, units = str(task.confusion["quantity"]), str(task.confusion["units"])
    labels = int(str(task.confusion["labels"]))
    drawn = "" if labels == truth.size else f" {text.count(truth.size)} of {text.count(labels)} are drawn, by chance."
    figure = go.Figure()
    ends = [float(min(truth.min(), estimated.min())), float(max(truth.max(), estimated.max()))]
    figure.add_scatter(
        x=truth, y=estimated, mode="markers", marker={"size": 5, "opacity": 0.5}, name="label", showlegend=False
    )
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"dash": "dot"}, name="estimate equals truth", hoverinfo="skip"
    )
    of = f"{name}, {units}" if units else name
    figure.update_layout(xaxis={"title": f"true {of}"}, yaxis={"title": f"estimated {of}"})
    found = _found(cast("Mapping[str, float]", task.metrics["pretrained"]), units)
    plot = chart(
        f"scatter-{task.name.replace('_', '-')}",
        figure,
        caption=f"Each point is a label of the test split.{drawn}",
        alt=found,
        table=_by_range(truth, estimated, of),
        height_px=460,
    )
    return Section(f"scatter-{task.name.replace('_', '-')}", "Estimated and true values", found, (plot,))


def _found(scores: Mapping[str, float], units: str) -> str:
    return (
        f"R² {scores['r2']:.3f}; the usual error (RMSE) is {text.value(scores['rmse'])} {units}".rstrip()
        + f", the mean error (bias) {scores['bias']:+.3g} {units}".rstrip()
        + "."
    )


def _by_range(truth: Values, estimated: Values, of: str) -> Table:
    """Errors by ranges of the truth: estimates that keep to the middle show here."""
    error = estimated - truth
    edges = np.unique(np.quantile(truth, np.linspace(0, 1, _PARTS + 1)))
    part = np.clip(np.searchsorted(edges, truth, side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for index in np.unique(part):
        here = part == index
        rows.append(
            (
                f"{truth[here].min():.4g} to {truth[here].max():.4g}",
                text.count(int(here.sum())),
                f"{estimated[here].mean():.4g}",
                f"{error[here].mean():+.3g}",
                f"{np.sqrt((error[here] ** 2).mean()):.3g}",
            )
        )
    columns = (f"true {of}", "labels", "mean estimate", "bias", "RMSE")
    return Table("Errors by ranges of the truth", columns, tuple(rows), numeric=(1, 2, 3, 4), folded=True)


def value_pictures(
    task: TaskOutputs, arrays: Mapping[str, NDArray[np.generic]], number: int, px: int, origin: str
) -> Section:
    """Show samples of the test split with true and estimated values.

    Args:
        task: Whose they are.
        arrays: Of its pictures.
        number: How many.
        px: Longest side of a picture.
        origin: Where the samples are from, as a sentence.
    """
    name, units = (str(one) for one in arrays["quantity"])
    truth, estimated = (np.asarray(arrays[key][:number], np.float64) for key in ("truth", "prediction"))
    images = [np.asarray(image, np.uint8) for image in arrays["image"][:number]]
    lead = f"{plural(number, 'test image')} with the true {name} and the estimate of the pretrained model."
    if truth.ndim == 1:
        gallery = Gallery(origin, (Strip("", tuple(_of_images(images, truth, estimated, units, px))),))
    else:
        lead += " The residual is the estimate less the truth."
        gallery = _of_pixels(images, truth, estimated, (name, units), (px, origin))
    return Section(f"task-{task.name.replace('_', '-')}", "Examples of the test split", lead, (gallery,))


def _of_images(
    images: Sequence[NDArray[np.uint8]], truth: Values, estimated: Values, units: str, px: int
) -> list[Picture]:
    pictures = []
    for image, there, found in zip(images, truth, estimated, strict=True):
        lines = (f"true {text.number(there, 2, units)}", f"estimated {text.number(found, 2, units)}")
        pictures.append(Picture(to_data_uri(image, max_px=px), f"A test image: {', '.join(lines)}", lines))
    return pictures


def _of_pixels(
    images: Sequence[NDArray[np.uint8]],
    truth: Values,
    estimated: Values,
    quantity: tuple[str, str],
    shown: tuple[int, str],
) -> Gallery:
    (name, units), (px, origin) = quantity, shown
    residual = estimated - truth
    ramp = Ramp.of(truth)
    errors = Ramp.around_zero(residual)
    strips = []
    for index, image in enumerate(images):
        rmse = float(np.sqrt(np.nanmean(residual[index] ** 2))) if np.isfinite(residual[index]).any() else float("nan")
        drawn = (
            ("image", image, False),
            ("truth", ramp.colours(truth[index]), True),
            ("estimate", ramp.colours(estimated[index]), True),
            ("residual", errors.colours(residual[index]), True),
        )
        told = {"truth": truth[index], "estimate": estimated[index], "residual": residual[index]}
        pictures = tuple(
            Picture(
                to_data_uri(pixels, max_px=px, exact=exact),
                f"Test image {index + 1}, {words}"
                + (f": {name} {_range(told[words])} {units}".rstrip() if words in told else ""),
                (words,),
            )
            for words, pixels, exact in drawn
        )
        strips.append(Strip(f"Test image {index + 1}", pictures, f"RMSE {text.number(rmse, 2, units)}"))
    legend = (*ramp.legend(units), *errors.legend(units, "residual "))
    return Gallery(origin, tuple(strips), legend)


def _range(values: Values) -> str:
    known = values[np.isfinite(values)]
    return f"{known.min():.3g} to {known.max():.3g}" if known.size else "nowhere known"
