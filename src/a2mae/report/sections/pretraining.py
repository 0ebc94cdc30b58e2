"""The pretraining: curves of the run, and reconstructions of hidden patches."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
from plotly.subplots import make_subplots

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Chart, Gallery, Picture, Section, Strip, Swatch, Table, chart
from a2mae.report.inputs import ReportInputs, records
from a2mae.report.pictures import (
    HIDDEN_RGB,
    INVALID_RGB,
    blank_hidden,
    draw_hidden,
    fill_hidden,
    to_data_uri,
    unit_to_bytes,
)
from a2mae.tasks.palette import hex_colour

Arrays = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]

CURVES_FILE = "run/metrics.csv"
RECONSTRUCTIONS_FILE = "run/reconstructions.npz"

_BESIDE = {"loss": {"held_out_loss": "held-out loss", "training_sets_loss": "fixed training sets (none held out)"}}
_PANELS = (
    ("loss", "loss"),
    ("lr", "learning rate"),
    ("effective_rank", "effective rank"),
    ("feature_std", "feature deviation"),
    ("same_place_accuracy", "same-location kNN"),
)


def _read_curves(inputs: ReportInputs) -> pd.DataFrame | None:
    if inputs.model_dir is None or not (inputs.model_dir / CURVES_FILE).exists():
        return None
    table = pd.read_csv(inputs.model_dir / CURVES_FILE)
    return table if len(table) else None


def first_and_last(inputs: ReportInputs, column: str) -> tuple[float, float] | None:
    """Return the first and last value of a curve; None without pretraining or without such values."""
    table = _read_curves(inputs)
    if table is None:
        return None
    first, last = _first_last(table, column)
    return None if first is None or last is None else (first, last)


def steps_taken(inputs: ReportInputs) -> int | None:
    """Count the steps of the training; None where there was none."""
    table = _read_curves(inputs)
    return None if table is None else int(table["step"].max())


def curves(inputs: ReportInputs) -> Section | None:
    """Draw loss, learning rate, effective rank and feature deviation over the steps."""
    table = _read_curves(inputs)
    if table is None:
        return None
    first, last = _first_last(table, "loss")
    rank_first, rank_last = _first_last(table, "effective_rank")
    return Section(
        "curves",
        "Curves of the training",
        f"{text.count(table['step'].max())} steps; the loss went from {text.number(first, 4)} to"
        f" {text.number(last, 4)}. The effective rank ({text.number(rank_first, 1)} → {text.number(rank_last, 1)}) and"
        " the feature standard deviation fall towards zero when the features collapse, even while the loss looks fine.",
        (_curves_chart(table, f"Loss from {text.number(first, 4)} to {text.number(last, 4)}."),),
    )


def _curves_chart(table: pd.DataFrame, alt: str) -> Chart:
    shown = [(column, title) for column, title in _PANELS if column in table.columns and table[column].notna().any()]
    figure = make_subplots(rows=len(shown), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for row, (column, title) in enumerate(shown, start=1):
        for curve, words in {column: title, **_BESIDE.get(column, {})}.items():
            if curve in table.columns:
                measured = table[table[curve].notna()]
                figure.add_scatter(
                    x=measured["step"], y=measured[curve], mode="lines+markers", name=words, row=row, col=1
                )
        figure.update_yaxes(title_text=title, row=row, col=1)
    figure.update_xaxes(title_text="step", row=len(shown), col=1)
    columns = [
        name for name in ("step", "epoch", *(c for c, _ in shown), "grad_norm", "samples_per_s") if name in table
    ]
    thinned = table.iloc[np.unique(np.linspace(0, len(table) - 1, min(len(table), 50)).astype(int))]
    numbers = Table(
        "The numbers" + (f" (50 of {text.count(len(table))} rows)" if len(table) > 50 else ""),
        tuple(columns),
        tuple(tuple(_cell(row[name]) for name in columns) for row in records(thinned)),
        numeric=tuple(range(len(columns))),
        folded=True,
    )
    return chart(
        "curves",
        figure,
        caption="One point per log interval.",
        alt=alt,
        table=numbers,
        height_px=140 * len(shown) + 80,
    )


def _cell(value: float) -> str:
    return text.ABSENT if value is None or np.isnan(value) else f"{value:.5g}"


def _first_last(table: pd.DataFrame, column: str) -> tuple[float | None, float | None]:
    if column not in table.columns:
        return None, None
    measured = table[column].dropna()
    return (float(measured.iloc[0]), float(measured.iloc[-1])) if len(measured) else (None, None)


def reconstructions(inputs: ReportInputs) -> Section | None:
    """Show the images of sets with their hidden patches marked, what the model saw, and what it predicted."""
    if inputs.model_dir is None or not (inputs.model_dir / RECONSTRUCTIONS_FILE).exists():
        return None
    with np.load(inputs.model_dir / RECONSTRUCTIONS_FILE, allow_pickle=False) as arrays:
        data = {name: arrays[name] for name in arrays.files}
    number = min(len(data["set_id"]), inputs.limits.reconstructions)
    if number == 0:
        return None
    strips = tuple(strip for index in range(number) for strip in _set_strips(data, index, inputs.limits.picture_px))
    hidden_share = float(data["hidden"][:number].mean())
    return Section(
        "reconstructions",
        "Reconstructions",
        f"{_whose_samples(inputs)}, drawn as in training: {text.percent(hidden_share, 0)} of the patches were hidden."
        " Left to right: the image with its hidden patches tinted, what the model saw, what it predicted (beside the"
        f" visible patches), and the original image. {masking_seen(data)}",
        (
            Gallery(
                "The three bands are those drawn for the sample, in display scale.",
                strips,
                (
                    Swatch(hex_colour(HIDDEN_RGB), "hidden from the model"),
                    Swatch(hex_colour(INVALID_RGB), "hidden, or invalid"),
                ),
            ),
        ),
    )


def nothing_held_out(metrics: Mapping[str, object]) -> bool:
    """Tell whether a training had no locations to hold out, so that training sets were measured instead.

    Args:
        metrics: Contents of the model directory's `metrics.json`.
    """
    return metrics.get("held_out_sets") == 0


def reconstruction_errors(inputs: ReportInputs) -> tuple[float, float] | None:
    """Measure on the held-out samples how far hidden pixels are from what the model predicts, and from a plain mean.

    Args:
        inputs: The chain's outputs.

    Returns:
        Mean square over the hidden, valid pixels, in display scale: of the model, and of each image's mean over its
        visible pixels, band by band. None where nothing was held out or kept.
    """
    path = None if inputs.model_dir is None else inputs.model_dir / RECONSTRUCTIONS_FILE
    if path is None or not path.exists() or _whose_samples(inputs) != _HELD_OUT:
        return None
    with np.load(path, allow_pickle=False) as arrays:
        pixels, predicted = arrays["pixels"], arrays["prediction"]
        hidden = np.repeat(np.repeat(arrays["hidden"], int(arrays["patch_size"]), 2), int(arrays["patch_size"]), 3)
        scored, seen = hidden & arrays["valid"], ~hidden & arrays["valid"]
    usable = seen.any((2, 3)) & scored.any((2, 3))
    if not usable.any():
        return None
    pixels, predicted, scored, seen = (array[usable] for array in (pixels, predicted, scored, seen))
    mean = (pixels * seen[:, None]).sum((2, 3), keepdims=True) / seen[:, None].sum((2, 3), keepdims=True)
    errors = ((np.square(guess - pixels) * scored[:, None]).sum() for guess in (predicted, mean))
    count = scored.sum() * pixels.shape[1]
    model, plain = (float(error / count) for error in errors)
    return model, plain


_HELD_OUT = "Held-out samples"


def _whose_samples(inputs: ReportInputs) -> str:
    assert inputs.model_dir is not None
    path = inputs.model_dir / "metrics.json"
    metrics = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return "Samples of training sets (no locations are held out)" if nothing_held_out(metrics) else _HELD_OUT


def masking_seen(data: Arrays) -> str:
    """Say from the masks how many images hide the same patches as the anchor, by same or other sensor."""
    sensor, hidden = data["sensor"], data["hidden"]
    same_places = (hidden == hidden[:, :1]).all(axis=(2, 3))[:, 1:]
    same_sensor = (sensor == sensor[:, :1])[:, 1:]
    parts = []
    for words, chosen in (("another sensor", ~same_sensor), ("the anchor's own sensor", same_sensor)):
        if chosen.any():
            together = int(same_places[chosen].sum())
            parts.append(f"{together} of {plural(int(chosen.sum()), 'image')} of {words}")
    return f"The patches hidden in the anchor are also hidden in {' and in '.join(parts)}." if parts else ""


def _set_strips(data: Arrays, index: int, px: int) -> list[Strip]:
    strips = []
    for k in range(data["pixels"].shape[1]):
        valid = np.asarray(data["valid"][index, k], bool)
        hidden = np.asarray(data["hidden"][index, k], bool)
        image = unit_to_bytes(np.asarray(data["pixels"][index, k], np.float32), valid)
        predicted = unit_to_bytes(np.asarray(data["prediction"][index, k], np.float32))
        role = "anchor" if k == 0 else f"image {k + 1}"
        sensor = str(data["sensor"][index, k])
        date = text.epoch_day(float(data["day"][index, k]))
        gsd = text.number(float(data["gsd_m"][index, k]), 2, "m per pixel")
        name = f"{role}, {sensor}, {date}"
        strips.append(
            Strip(
                f"{data['set_id'][index]}: {name}",
                (
                    Picture(
                        to_data_uri(draw_hidden(image, hidden), max_px=px),
                        f"{name} with its hidden patches tinted",
                        ("hidden patches tinted",),
                        badge="anchor" if k == 0 else "",
                    ),
                    Picture(
                        to_data_uri(blank_hidden(image, hidden), max_px=px), f"{name}: what the model saw", ("seen",)
                    ),
                    Picture(
                        to_data_uri(fill_hidden(image, predicted, hidden), max_px=px),
                        f"{name}: hidden patches as predicted",
                        ("predicted",),
                    ),
                    Picture(to_data_uri(image, max_px=px), f"{name}: the original", ("original",)),
                ),
                f"{gsd}, {text.percent(float(hidden.mean()), 0)} hidden",
            )
        )
    return strips
