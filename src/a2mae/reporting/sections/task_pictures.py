"""A task's predictions beside their truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from a2mae.reporting import text
from a2mae.reporting.blocks import Gallery, Picture, Section, Strip, Swatch
from a2mae.reporting.inputs import ReportInputs, TaskInputs
from a2mae.reporting.pictures import INVALID_RGB, classes_to_bytes, hex_colour, to_data_uri
from a2mae.tasks.palette import class_colours

IGNORE = 255
"""Label of pixels that are in neither truth nor score."""

_TITLES = {"classify": "Classification", "segment": "Segmentation", "detect_change": "Change detection"}

Arrays = dict[str, NDArray[np.generic]]


def task_pictures(inputs: ReportInputs, name: str) -> Section | None:
    """Examples of one task's test split; None where it has no pictures."""
    task = next((task for task in inputs.tasks if task.name == name), None)
    if task is None or task.pictures is None or not task.pictures.exists():
        return None
    with np.load(task.pictures, allow_pickle=False) as file:
        arrays: Arrays = {name: file[name] for name in file.files}
    number = min(len(arrays["truth"]), inputs.limits.examples)
    if not number:
        return None
    draw = {1: _labels, 2: _several_labels}.get(arrays["truth"].ndim, _maps)
    return draw(task, arrays, number, inputs.limits.picture_px)


def title_of(task: str) -> str:
    """A task's name for people; an unknown task keeps its own."""
    return _TITLES.get(task, task)


def _names(arrays: Arrays) -> list[str]:
    return [str(name) for name in arrays["class_names"]]


def _labels(task: TaskInputs, arrays: Arrays, number: int, px: int) -> Section:
    names = _names(arrays)
    pictures = []
    right = 0
    for i in range(number):
        truth, prediction = names[int(arrays["truth"][i])], names[int(arrays["prediction"][i])]
        right += truth == prediction
        verdict = "right" if truth == prediction else f"took it for {prediction}"
        pictures.append(
            Picture(
                to_data_uri(np.asarray(arrays["image"][i], np.uint8), max_px=px),
                f"A test image of {truth}; the model {'was right' if truth == prediction else verdict}",
                (truth, verdict),
                badge="✓" if truth == prediction else "✗",
            )
        )
    return Section(
        f"task-{task.name.replace('_', '-')}",
        "Examples of the test split",
        f"{text.plural(number, 'test image')} with the true class and the pretrained model's answer: {right} right.",
        (Gallery(_whence(task), (Strip("", tuple(pictures)),)),),
    )


def _several_labels(task: TaskInputs, arrays: Arrays, number: int, px: int) -> Section:
    """Images with any number of classes: all that are there, and all that the model found."""
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
                f"A test image of {there}; the model {'was right' if same else f'found {found}'}",
                (f"true: {there}", f"found: {found}"),
                badge="✓" if same else "✗",
            )
        )
    return Section(
        f"task-{task.name.replace('_', '-')}",
        "Examples of the test split",
        f"{text.plural(number, 'test image')} with every true class and every class that the pretrained model found:"
        f" {right} right in every class.",
        (Gallery(_whence(task), (Strip("", tuple(pictures)),)),),
    )


def _listed(there: NDArray[np.bool_], names: list[str]) -> str:
    return ", ".join(names[int(i)] for i in np.flatnonzero(there)) or "none"


def _maps(task: TaskInputs, arrays: Arrays, number: int, px: int) -> Section:
    names = _names(arrays)
    own = arrays.get("class_colours", np.empty((0, 3), np.uint8))  # absent: an earlier version's
    colours = np.array(class_colours([(int(r), int(g), int(b)) for r, g, b in own], len(names)), np.uint8)
    strips = []
    seen: set[int] = set()
    for i in range(number):
        truth = np.asarray(arrays["truth"][i], np.uint8)
        prediction = np.asarray(arrays["prediction"][i], np.uint8)
        seen.update(int(value) for value in np.union1d(truth, prediction))
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
    legend = [
        Swatch(hex_colour((int(red), int(green), int(blue))), names[i])
        for i, (red, green, blue) in enumerate(colours)
        if i in seen or len(names) <= 3
    ]
    if IGNORE in seen:
        legend.append(Swatch(hex_colour(INVALID_RGB), "not scored"))
    return Section(
        f"task-{task.name.replace('_', '-')}",
        "Examples of the test split",
        f"{text.plural(number, 'test image')} beside the truth and the pretrained model's map.",
        (Gallery(_whence(task), tuple(strips), tuple(legend)),),
    )


def _whence(task: TaskInputs) -> str:
    if task.metrics.get("data") == "simulated":
        return "From the test split; places of the test split were seen in no training."
    return "From the test split: the task did not learn from these. Whether pretraining saw their places is not known."


def _shares(classes: NDArray[np.uint8], names: list[str]) -> str:
    values, counts = np.unique(classes[classes != IGNORE], return_counts=True)
    order = np.argsort(-counts)[:4]
    total = max(int(counts.sum()), 1)
    parts = [f"{names[int(values[i])]} {text.percent(counts[i] / total, 0)}" for i in order]
    return ", ".join(parts) or "nothing scored"
