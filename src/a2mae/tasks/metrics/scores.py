"""Scores of a task's predictions with intervals over places, and the tidy table of all scores."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from a2mae.tasks.datasets.task_data import Targets, TaskData, TaskSpec
from a2mae.tasks.metrics import confusion as metrics
from a2mae.tasks.metrics import transitions, values
from a2mae.tasks.metrics.confusion import ConfusionCounts, Floats, GroupedCounts, LabelCounts, Score, score_of
from a2mae.tasks.metrics.probabilities import ProbabilityCounts, average_precision, calibration_error
from a2mae.tasks.metrics.transitions import TransitionCounts
from a2mae.tasks.metrics.values import ValueSums
from a2mae.tasks.registry import Task

Metric = Callable[[Floats], Floats]

_MEASURES: Mapping[str, Metric] = {
    "top1": metrics.accuracy,
    "mean_class_accuracy": metrics.mean_class_accuracy,
    "micro_f1": metrics.micro_f1,
    "macro_f1": metrics.macro_f1,
    "miou": metrics.mean_iou,
    "pixel_accuracy": metrics.accuracy,
    "f1": metrics.change_f1,
    "iou": metrics.change_iou,
    "precision": metrics.change_precision,
    "recall": metrics.change_recall,
    "f_scd": transitions.f_scd,
    "sek": transitions.sek,
    "change_miou": transitions.change_miou,
    "r2": values.r2,
    "rmse": values.rmse,
    "mae": values.mae,
    "bias": values.bias,
}
_SHARE = (0.0, 1.0)
_RANGES: Mapping[str, tuple[float, float]] = {
    "sek": (-1.0, 1.0),
    "r2": (-math.inf, 1.0),
    "rmse": (0.0, math.inf),
    "mae": (0.0, math.inf),
    "bias": (-math.inf, math.inf),
}
"""Between which values a metric lies where that is not 0 and 1."""


def metrics_of(task: Task, *, multi_label: bool = False) -> Mapping[str, Metric]:
    """Give a task's metrics by name, the main one first.

    Args:
        task: The task.
        multi_label: Those of images with any number of classes.
    """
    return {name: _MEASURES[name] for name in (task.kind.label_metrics if multi_label else task.kind.metrics)}


OF_PROBABILITIES = ("pr_auc", "ece")
"""Metrics of every task of classes beside its own: PR-AUC, mean of the classes, and calibration error (0 is best)."""

READINGS: Mapping[str, str] = {"knn_query_coarse": "test images coarse", "knn_both_coarse": "both sides coarse"}
"""kNN over scales (Scale-MAE's protocol): metric of the score table, and what it stands for."""

SCORE_COLUMNS: Mapping[str, str] = {
    "task": "str",  # "classify", "segment", …: a task
    "data": "str",  # source of the data set
    "model": "str",  # "pretrained", "random", "rcf", "statistics", "histogram", "pixels", or the user's name
    "mode": "str",  # how it was scored: "finetuned", "knn", "linear_probe", "few_shot", "search"; of gains: "gain", …
    "over": "str",  # of a difference: the model that it is over; empty for a score
    "metric": "str",
    "value": "float64",
    "low": "float64",  # 95 % interval
    "high": "float64",
    "n": "int64",  # samples scored
    "groups": "int64",  # independent places that were resampled
    "gsd_m": "float64",  # of the scored images; coarser than native in kNN over scales
    "native_gsd_m": "float64",
    "seed": "int64",
}
"""Columns of `scores.parquet`."""


@dataclass(frozen=True)
class TaskScores:
    """One model's scores on one data set.

    Attributes:
        scores: By metric.
        per_class: Recall of each class (classification), F1 (several labels) or IoU (others; of semantic change on
            changed ground); classes without truth are absent, and values have none.
        confusion: `(K, K)` counts, truth by rows; with several labels: how often j was found where i was true; of
            semantic change of transitions; values have none.
        by_place: What `confusion` adds up, place by place: number of the place, truth, prediction and count, without
            zeros; empty where labels are not classes per pixel.
        drawn: `(R,)` by metric: its values on the bootstrap's draws of places, the same draws for every model.
    """

    scores: Mapping[str, Score]
    per_class: Mapping[str, float]
    confusion: npt.NDArray[np.int64]
    by_place: Sequence[tuple[int, ...]]
    drawn: Mapping[str, Floats] = field(repr=False, compare=False)
    pr_auc_per_class: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return `flat_scores`, `per_class` and, where probabilities were scored, `pr_auc_per_class`, JSON-ready."""
        found: dict[str, object] = {**flat_scores(self.scores), "per_class": dict(self.per_class)}
        return found | ({"pr_auc_per_class": dict(self.pr_auc_per_class)} if self.pr_auc_per_class else {})


def flat_scores(scores: Mapping[str, Score]) -> dict[str, object]:
    """Flatten scores of the same samples: `top1`, `top1_low`, `top1_high`, …; then `n` and `groups`.

    The end of an interval that has none, as of an error on one place, is None.
    """
    flat: dict[str, object] = {}
    for name, score in scores.items():
        low, high = (end if math.isfinite(end) else None for end in (score.low, score.high))
        flat |= {name: score.value, f"{name}_low": low, f"{name}_high": high}
    any_score = next(iter(scores.values()))
    return {**flat, "n": any_score.n, "groups": any_score.groups}


def gain(found: TaskScores, baseline: TaskScores) -> dict[str, Score]:
    """Compute how much higher a model scores than its baseline on the same samples, by metric.

    Both are resampled by the same draws of places. A place that is hard for both does not widen the interval, so it
    shows a difference where the two intervals side by side still overlap.

    Args:
        found: The model's scores.
        baseline: The scores of random_init.
    """
    gains = {}
    for name, score in found.scores.items():
        other = baseline.scores[name]
        drawn = found.drawn[name] - baseline.drawn[name]
        low, high = _RANGES.get(name, _SHARE)
        ends = {"least": low - high, "most": high - low}
        gains[name] = score_of(score.value - other.value, drawn, score.n, score.groups, **ends)
    return gains


def score_task(
    data: TaskData,
    rows: npt.NDArray[np.int64],
    prediction: Targets,
    *,
    resamples: int,
    seed: int,
    probable: ProbabilityCounts | None = None,
) -> TaskScores:
    """Score predictions of some rows.

    Args:
        data: The task data.
        rows: `(N,)`.
        prediction: `(N,)` or `(N, H, W)` classes or values; with several labels `(N, K)` of 0 and 1.
        resamples: Of the bootstrap over places.
        seed: Of the bootstrap.
        probable: How probable the model said what was (`probability_classes`); None: that is not scored.
    """
    spec, truth = data.spec, data.read_targets(rows)
    counts = _counted(spec, truth, prediction, data.samples["place"].to_numpy()[rows])
    confusion = np.zeros((0, 0), np.int64)
    of_class: Metric | None = None
    if spec.multi_label:
        of_class = metrics.label_f1
        confusion = truth.astype(np.int64).T @ prediction.astype(np.int64)
    elif isinstance(counts, TransitionCounts):
        of_class = transitions.iou_of_changed
        confusion = counts.pairs.matrix.astype(np.int64)
    elif spec.quantity is None:
        of_class = metrics.per_class_iou if spec.per_pixel else metrics.per_class_accuracy
        confusion = counts.matrix.astype(np.int64)
    known = metrics_of(spec.task, multi_label=spec.multi_label)
    resampled = counts.resampled(resamples, seed)
    drawn = {name: metric(resampled) for name, metric in known.items()}
    per_class = [] if of_class is None else of_class(counts.matrix).tolist()
    scores = {}
    for name, metric in known.items():
        least, most = _RANGES.get(name, _SHARE)
        value = float(metric(counts.matrix))
        scores[name] = score_of(value, drawn[name], counts.n, counts.groups, least=least, most=most)
    precision: dict[str, float] = {}
    if probable is not None:
        names = probability_classes(spec)
        known_classes = [probable.of_class(index) for index in range(len(names))]
        found = {
            "pr_auc": (
                np.array([average_precision(one.matrix) for one in known_classes]),
                np.stack([average_precision(one.resampled(resamples, seed)) for one in known_classes], axis=-1),
            ),
            "ece": (
                calibration_error(probable.answers().matrix)[None],
                calibration_error(probable.answers().resampled(resamples, seed))[:, None],
            ),
        }
        precision = {name: float(one) for name, one in zip(names, found["pr_auc"][0], strict=True) if np.isfinite(one)}
        for name, (of_all, on_draws) in found.items():
            drawn[name] = metrics.mean_present(on_draws)
            value = float(metrics.mean_present(of_all))
            scores[name] = score_of(value, drawn[name], counts.n, counts.groups)
    pairs = counts.pairs if isinstance(counts, TransitionCounts) else counts
    return TaskScores(
        scores=scores,
        per_class={name: value for name, value in zip(spec.class_names, per_class, strict=True) if np.isfinite(value)},
        confusion=confusion,
        by_place=pairs.by_group() if spec.per_pixel and spec.quantity is None else (),
        drawn=drawn,
        pr_auc_per_class=precision,
    )


def probability_classes(spec: TaskSpec) -> tuple[str, ...]:
    """Name what PR-AUC is of: every class against the others, or a change against none."""
    return ("changed",) if spec.task.kind.dates == 2 else spec.class_names


def main_score(data: TaskData, rows: npt.NDArray[np.int64], prediction: Targets) -> float:
    """Compute the task's main metric without an interval, to choose by on validation.

    Args:
        data: The task data.
        rows: `(N,)`.
        prediction: As for `score_task`.
    """
    spec = data.spec
    counts = _counted(spec, data.read_targets(rows), prediction, [0] * len(rows))
    found = float(next(iter(metrics_of(spec.task, multi_label=spec.multi_label).values()))(counts.matrix))
    return found if np.isfinite(found) else 0.0  # F1 of change that nobody saw


def _counted(
    spec: TaskSpec, truth: Targets, prediction: Targets, places: Sequence[object] | npt.NDArray[np.object_]
) -> GroupedCounts:
    """Count or sum up per place what the task's metrics follow from."""
    if spec.quantity is not None:
        return ValueSums(truth.astype(np.float32), prediction.astype(np.float32), places)
    classes, found = truth.astype(np.uint8), prediction.astype(np.uint8)
    if spec.multi_label:
        return LabelCounts(classes, found, places)
    if spec.task.kind.transitions:
        return TransitionCounts(classes, found, places, len(spec.class_names))
    return ConfusionCounts(classes, found, places, len(spec.class_names))


def score_table(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Make the tidy table, in a fixed order of rows and columns."""
    table = pd.DataFrame(rows, columns=list(SCORE_COLUMNS)).astype(dict(SCORE_COLUMNS))
    order = ["task", "data", "mode", "over", "metric", "model", "gsd_m", "seed"]
    return table.sort_values(order, kind="stable").reset_index(drop=True)


def finetuned_rows(task_metrics: Mapping[str, Mapping[str, object]], *, seed: int) -> list[dict[str, object]]:
    """Make rows of the score table from the metrics of a task (see `a2mae.tasks.evaluation.both_starts`).

    Args:
        task_metrics: `{"task": …, "data": …, "gsd_m": …, "pretrained": {...}, "random": {...}, "gain": {...}}`, and
            `rcf` and `gain_over_rcf` where labels are per pixel.
        seed: Of the runs.
    """
    described = {key: task_metrics[key] for key in ("task", "data", "gsd_m")}
    rows = []
    for key, model, over in (
        ("pretrained", "pretrained", ""),
        ("random", "random", ""),
        ("rcf", "rcf", ""),
        ("gain", "pretrained", "random"),
        ("gain_over_rcf", "pretrained", "rcf"),
    ):
        if key not in task_metrics:
            continue
        found, mode = task_metrics[key], "gain" if over else "finetuned"
        kind = Task(str(described["task"])).kind
        of_task = kind.metrics if set(kind.metrics) <= set(found) else kind.label_metrics
        for metric in (*of_task, *(name for name in OF_PROBABILITIES if name in found)):
            rows.append(
                {
                    **described,
                    "native_gsd_m": described["gsd_m"],
                    "model": model,
                    "mode": mode,
                    "over": over,
                    "metric": metric,
                    "value": found[metric],
                    "low": found[f"{metric}_low"],
                    "high": found[f"{metric}_high"],
                    "n": found["n"],
                    "groups": found["groups"],
                    "seed": seed,
                }
            )
    return rows


def score_row(
    spec: TaskSpec,
    model: str,
    mode: str,
    metric: str,
    score: Score,
    *,
    seed: int,
    gsd_m: float | None = None,
    drawn: npt.NDArray[np.float64] | None = None,
) -> dict[str, object]:
    """Make a row of the score table.

    Args:
        spec: Of the data set.
        model: Whose score it is.
        mode: How it was scored: finetuned, knn, …
        metric: What was measured.
        score: With its interval.
        seed: Of the scoring.
        gsd_m: That the images were seen at; the data set's own by default.
        drawn: `(R,)` values on the bootstrap's draws of places, for `paired_rows`; not a column of the table.
    """
    return {
        "task": spec.task.value,
        "data": spec.source,
        "model": model,
        "mode": mode,
        "over": "",
        "metric": metric,
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "n": score.n,
        "groups": score.groups,
        "gsd_m": spec.gsd_m if gsd_m is None else gsd_m,
        "native_gsd_m": spec.gsd_m,
        "seed": seed,
        **({} if drawn is None else {"drawn": base64.b64encode(drawn.astype("<f4").tobytes()).decode()}),
    }


def paired_rows(rows: Sequence[Mapping[str, object]], model: str, over: str) -> list[dict[str, object]]:
    """Compute how much higher one model scores than another on the same samples, with intervals as of `gain`.

    Args:
        rows: Of `score_row` with `drawn`, of both models, drawn by the same seeds; others are left out.
        model: Of the column `model`.
        over: Likewise.

    Returns:
        A row for every score that both have: its mode with `_gain`, and `over`.
    """
    rows_of = {
        name: {_which(row): row for row in rows if row["model"] == name and "drawn" in row} for name in (model, over)
    }
    gains = []
    for which, row in rows_of[model].items():
        other = rows_of[over].get(which)
        if other is None:
            continue
        drawn, baseline = (np.frombuffer(base64.b64decode(str(one["drawn"])), "<f4") for one in (row, other))
        value, counts = (
            float(str(row["value"])) - float(str(other["value"])),
            (int(str(row["n"])), int(str(row["groups"]))),
        )
        score = score_of(value, drawn.astype(np.float64) - baseline, *counts, least=-1.0)
        found = {"mode": f"{row['mode']}_gain", "over": over, "value": value, "low": score.low, "high": score.high}
        gains.append({**{key: row[key] for key in SCORE_COLUMNS}, **found})
    return gains


def _which(row: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(row[key] for key in ("task", "data", "mode", "metric", "gsd_m", "seed"))
