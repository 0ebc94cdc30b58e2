"""Scores: pretrained beside random initialisation, and kNN over the ground sampling distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import plotly.graph_objects as go

from a2mae.report import text
from a2mae.report.blocks import Section, Table, chart
from a2mae.report.inputs import ReportInputs, TaskOutputs, records
from a2mae.report.sections.tasks import title_of
from a2mae.tasks.registry import Task

if TYPE_CHECKING:
    import pandas as pd

MAIN_METRICS = {task.value: (task.kind.metrics[0], *task.kind.label_metrics[:1]) for task in Task}
"""The main metric of a task: the first that the data has; `micro_f1` is for several classes per image."""
_SPELLED = {
    "top1": "top-1",
    "miou": "mIoU",
    "f1": "F1",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "iou": "IoU",
    "map": "mAP",
    "pixel_accuracy": "pixel accuracy",
    "f_scd": "F_scd",
    "sek": "SeK",
    "change_miou": "mIoU (changed, unchanged)",
    "pr_auc": "PR-AUC",
    "ece": "calibration error (ECE)",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "precision_at_10": "precision@10",
}
IN_WORDS = {
    "top1": "share of test images classified correctly",
    "micro_f1": "balance of precision and recall over all classes",
    "miou": "overlap of predicted and true areas, mean of the classes",
    "f1": "balance of precision and recall of changed pixels",
    "f_scd": "balance of precision and recall of changed pixels whose class is right, over both dates",
    "r2": "share of the variance of the true values that is explained",
    "knn": "frozen encoder: share of test images whose nearest training images are of their class",
    "knn_standardised": "the same with every feature brought to mean 0 and deviation 1",
    "linear_probe": "frozen encoder: share of test images classified correctly by one linear layer",
}
"""The main metrics explained; 1 is the best value of each."""
PRETRAINED, RANDOM, RCF = "pretrained", "random", "rcf"
FINETUNED, GAIN = "finetuned", "gain"
_MANY = 30
_READINGS = {"knn_query_coarse": "test images coarsened", "knn_both_coarse": "both sides coarsened"}
_MODES = {
    "finetuned": "finetuned",
    "knn": "kNN, frozen",
    "knn_standardised": "kNN, frozen, standardised",
    "linear_probe": "linear probe",
    "few_shot": "few-shot probe",
    "search": "search, frozen",
}


def _label(model: str) -> str:
    """Name a row's model: `random` of the table is `random_init` everywhere else."""
    return "random_init" if model == RANDOM else model


def mode_name(mode: str, over: str = "") -> str:
    """Say how a row was scored, and of a difference what it is over."""
    name = _MODES.get("finetuned" if mode == GAIN else mode.removesuffix("_gain"), mode)
    return f"{name}: gain over {_label(over)}" if over else name


def spelled(metric: str) -> str:
    """Spell a metric as the field does: `miou` is mIoU."""
    return _SPELLED.get(metric, _READINGS.get(metric, metric))


@dataclass(frozen=True)
class Comparison:
    """The main metric of a task from both initialisations, and their paired difference: (value, low, high) each.

    `rcf` is that of random convolution features, where they were scored.
    """

    task: str
    data: str
    metric: str
    pretrained: tuple[float, float, float]
    random: tuple[float, float, float]
    difference: tuple[float, float, float]
    rcf: tuple[float, float, float] | None = None

    @property
    def label(self) -> str:
        """Task, data set and metric."""
        return f"{title_of(self.task)} ({self.data}), {spelled(self.metric)}"

    @property
    def gain(self) -> float:
        """How much higher the pretrained model scores."""
        return self.difference[0]

    @property
    def clear(self) -> bool:
        """Whether the interval of the difference excludes 0; one of zero width says nothing."""
        return self.difference[1] < self.difference[2] and not self.includes_zero

    @property
    def includes_zero(self) -> bool:
        """Whether 0 is in the interval of the difference."""
        return self.difference[1] <= 0 <= self.difference[2]

    @property
    def words(self) -> str:
        """The finding as the end of a sentence."""
        if abs(self.gain) < 0.0005:
            return "no difference to random initialisation"
        direction = "above" if self.gain > 0 else "below"
        return f"{abs(self.gain):.3f} {direction} random initialisation (difference {self.interval})"

    @property
    def interval(self) -> str:
        """The interval of the difference as text."""
        if not self.difference[1] < self.difference[2]:
            return "without an interval, on too few locations"
        return f"{self.difference[1]:+.3f} to {self.difference[2]:+.3f}"


def verdict(item: Comparison) -> str:
    """Say whether pretraining paid for a task, and whether the interval of the difference excludes 0."""
    if abs(item.gain) < 0.0005:
        return "no difference"
    direction = "better" if item.gain > 0 else "worse"
    if item.clear:
        return direction
    reason = "the interval of the difference includes 0" if item.includes_zero else "on too few locations to tell"
    return f"{direction}, but {reason}"


def does_it_pay(found: list[Comparison]) -> Table:
    """Make a row per task: both scores and the verdict, in words."""
    return Table(
        "Scores on test splits, which were not trained on; 1 is the best",
        ("task", "with pretraining", "pretrained", "random_init", "difference", "nothing trained (rcf)", "metric"),
        tuple(
            (
                f"{title_of(item.task)} ({item.data})",
                verdict(item),
                f"{item.pretrained[0]:.3f} ({item.pretrained[1]:.3f} – {item.pretrained[2]:.3f})",
                f"{item.random[0]:.3f} ({item.random[1]:.3f} – {item.random[2]:.3f})",
                f"{item.gain:+.3f} ({item.interval})",
                "–" if item.rcf is None else f"{item.rcf[0]:.3f}",
                IN_WORDS[item.metric],
            )
            for item in found
        ),
        numeric=(2, 3, 4, 5),
    )


def comparisons(table: pd.DataFrame) -> list[Comparison]:
    """Compare both initialisations by the main metric of every task and data set that has them."""
    found = []
    finetuned = table[table["mode"].isin((FINETUNED, GAIN))]
    for task, metrics in MAIN_METRICS.items():
        for data, of_data in finetuned[finetuned["task"] == task].groupby("data", sort=True):
            metric = next((name for name in metrics if (of_data["metric"] == name).any()), metrics[0])
            rows = of_data[of_data["metric"] == metric]
            rows = rows[rows["over"].isin(("", RANDOM))]
            sides = {(row["mode"], row["model"]): (row["value"], row["low"], row["high"]) for row in records(rows)}
            wanted = [(FINETUNED, PRETRAINED), (FINETUNED, RANDOM), (GAIN, PRETRAINED)]
            if sides.keys() >= set(wanted):
                pretrained, random, difference = (sides[one] for one in wanted)
                untrained = sides.get((FINETUNED, RCF))
                found.append(Comparison(task, str(data), metric, pretrained, random, difference, untrained))
    return found


def frozen_comparisons(table: pd.DataFrame) -> list[Comparison]:
    """Compare the frozen encoder with random_init by kNN in both readings and linear probe, at each native GSD."""
    native = table[np.isclose(table["gsd_m"], table["native_gsd_m"]) & table["over"].isin(("", RANDOM))]
    found = []
    for (task, data), rows in native.groupby(["task", "data"], sort=True):
        for mode, metric in (
            ("knn", "knn_both_coarse"),
            ("knn_standardised", "knn_both_coarse"),
            ("linear_probe", "top1"),
        ):
            of_mode = rows[rows["mode"].isin((mode, f"{mode}_gain")) & (rows["metric"] == metric)]
            sides = {(row["over"], row["model"]): (row["value"], row["low"], row["high"]) for row in records(of_mode)}
            wanted = [("", PRETRAINED), ("", RANDOM), (RANDOM, PRETRAINED)]
            if sides.keys() >= set(wanted):
                pretrained, random, difference = (sides[one] for one in wanted)
                untrained = sides.get(("", RCF))
                found.append(Comparison(str(task), str(data), mode, pretrained, random, difference, untrained))
    return found


def scores(inputs: ReportInputs) -> Section | None:
    """Show every score with its interval."""
    table = inputs.scores
    if table is None or not len(table):
        return None
    main = comparisons(table)
    figure = go.Figure()
    for model in (RANDOM, PRETRAINED):
        sides = [getattr(item, model) for item in main]
        figure.add_scatter(
            x=[value for value, _, _ in sides],
            y=[item.label for item in main],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [high - value for value, _, high in sides],
                "arrayminus": [value - low for value, low, _ in sides],
            },
            orientation="h",
            offsetgroup=model,
            mode="markers",
            marker={"size": 11, "symbol": "circle" if model == PRETRAINED else "diamond-open"},
            name=_label(model),
        )
    lowest = [side[end] for item in main for side in (item.pretrained, item.random) for end in (0, 1) if side[end] < 0]
    figure.update_layout(
        xaxis={"title": "score", "range": [min([0.0, *lowest]), 1]},
        yaxis={"autorange": "reversed"},
        scattermode="group",  # side by side: one interval would hide the other
        scattergap=0.6,
    )
    lines = [f"{item.label}: {item.words}." for item in main]
    everything = _table(table, "All scores, with 95 % bootstrap intervals over locations", _units(inputs))
    compared = chart(
        "scores",
        figure,
        caption="The main metric of each task with its 95 % interval. Both models were finetuned the same way on the"
        " same images; only their initial weights differ. Their difference has an interval of its own, paired over"
        " locations, which is narrower than the two suggest.",
        alt=" ".join(lines),
        height_px=90 * max(len(main), 1) + 130,
    )
    return Section(
        "scores",
        "Did pretraining help?",
        " ".join(lines) or "No task has scores of both initialisations.",
        (compared, everything) if main else (everything,),
    )


def task_scores(inputs: ReportInputs, task: str) -> Section | None:
    """Show the scores of one task."""
    if inputs.scores is None or not (inputs.scores["task"] == task).any():
        return None
    table = inputs.scores[inputs.scores["task"] == task]
    lines = [f"{item.label}: {item.words}." for item in comparisons(table)]
    return Section(
        f"scores-{task.replace('_', '-')}",
        "Scores",
        " ".join(lines) or "No scores of both initialisations to compare.",
        (
            _table(
                table,
                f"Scores of {title_of(task).lower()}, with 95 % bootstrap intervals over locations",
                _units(inputs),
            ),
            *_of_parts(next((one for one in inputs.tasks if one.name == task), None)),
        ),
    )


def _of_parts(task: TaskOutputs | None) -> list[Table]:
    """Make tables of what the scores are of: groups of samples, the worst first, and PR-AUC of each class."""
    tables = []
    found = {} if task is None else task.metrics.get("by_group", {})
    for name, groups in cast("Mapping[str, list[dict[str, Any]]]", found).items():
        of_groups = tuple(
            (
                str(group["group"]),
                text.number(group["value"], 3),
                f"{text.number(group['low'], 3)} – {text.number(group['high'], 3)}",
                f"{text.count(group['n'])} / {text.count(group['groups'])}",
            )
            for group in groups
        )
        columns = (name, spelled(groups[0]["metric"]), "95 % interval", "images / locations")
        tables.append(Table(f"Scores by {name}, the worst first", columns, of_groups, numeric=(1, 2, 3)))
    of_classes = sorted(_pr_auc(task).items(), key=lambda one: one[1])
    if len(of_classes) > 1:
        rows = tuple((name, text.number(value, 3)) for name, value in of_classes)
        caption = "PR-AUC of each class, the worst first"
        tables.append(Table(caption, ("class", "PR-AUC"), rows, numeric=(1,), folded=True))
    return tables


def _pr_auc(task: TaskOutputs | None) -> Mapping[str, float]:
    found = None if task is None else task.metrics.get("pretrained")
    return found.get("pr_auc_per_class", {}) if isinstance(found, Mapping) else {}


def _units(inputs: ReportInputs) -> dict[tuple[str, str], str]:
    """Units of the errors of values, by task and metric; others have none."""
    of_tasks = {task.name: str(task.metrics["units"]) for task in inputs.tasks if task.metrics.get("units")}
    return {(task, metric): f", {units}" for task, units in of_tasks.items() for metric in ("rmse", "mae", "bias")}


def _table(scores_table: pd.DataFrame, caption: str, units: Mapping[tuple[str, str], str]) -> Table:
    rows = tuple(
        (
            f"{title_of(str(row['task']))} ({row['data']})",
            mode_name(str(row["mode"]), str(row["over"])),
            spelled(str(row["metric"])) + units.get((str(row["task"]), str(row["metric"])), ""),
            _label(str(row["model"])),
            f"{row['gsd_m']:g}",
            text.number(row["value"], 3),
            f"{text.number(row['low'], 3)} – {text.number(row['high'], 3)}",
            f"{text.count(row['n'])} / {text.count(row['groups'])}",
        )
        for row in records(scores_table)
    )
    columns = ("task", "how", "metric", "model", "GSD, m", "score", "95 % interval", "images / locations")
    return Table(caption, columns, rows, numeric=(4, 5, 6, 7), folded=len(rows) > _MANY)


def knn_over_gsd(inputs: ReportInputs) -> Section | None:
    """Draw the kNN accuracy of frozen encoders over the ground sampling distance."""
    table = inputs.scores
    if table is None:
        return None
    knn = table[table["mode"] == "knn"]
    if not len(knn):
        return None
    several = knn["data"].nunique() > 1
    figure = go.Figure()
    for (data, model, metric), rows in knn.groupby(["data", "model", "metric"], sort=True):
        ordered = rows.sort_values("gsd_m")
        figure.add_scatter(
            x=ordered["gsd_m"],
            y=ordered["value"],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": ordered["high"] - ordered["value"],
                "arrayminus": ordered["value"] - ordered["low"],
                "thickness": 1,
                "visible": metric == "knn_query_coarse",  # the other reading's intervals stand in the table
            },
            mode="lines+markers",
            legendgroup=str(model),
            name=f"{_label(str(model))}, {_READINGS.get(str(metric), metric)}" + (f", {data}" if several else ""),
            line={"dash": "solid" if metric == "knn_query_coarse" else "dot"},
        )
    figure.update_layout(
        xaxis={"title": "ground sampling distance, m", "type": "log"}, yaxis={"title": "accuracy", "range": [0, 1]}
    )
    finest, coarsest = knn["gsd_m"].min(), knn["gsd_m"].max()
    return Section(
        "knn",
        "kNN over scale",
        "Frozen encoders: each test image gets the class of its nearest training images. A model that is robust to"
        " scale loses little as the images become coarser. There are two readings of the protocol: only the test images"
        " are coarsened (solid), or the training images too (dotted).",
        (
            chart(
                "knn",
                figure,
                caption="k nearest neighbours over the ground sampling distance, with 95 % intervals, beside baselines"
                " without an encoder where they were scored.",
                alt=f"kNN accuracy from {finest:g} m to {coarsest:g} m per pixel; the score table has the numbers.",
            ),
        ),
    )
