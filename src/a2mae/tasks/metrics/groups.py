"""Scores by group of samples, as events, regions and years: a mean hides where a model fails."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from a2mae.tasks.datasets.task_data import SAMPLE_COLUMNS, Targets, TaskData, is_labelled
from a2mae.tasks.metrics.scores import score_task


def scores_by_group(
    data: TaskData, rows: npt.NDArray[np.int64], prediction: Targets, *, resamples: int, seed: int
) -> dict[str, list[dict[str, object]]]:
    """Score the samples of each group on their own.

    Args:
        data: The task data; its groups are the years of the later date, and the further columns of its table.
        rows: `(N,)`.
        prediction: As for `score_task`.
        resamples: Of the bootstrap over places.
        seed: Of the bootstrap.

    Returns:
        By what groups are of, the groups with the worst score first: `group`, `metric` (the task's main one), `value`
        (None where there is no score), `low`, `high`, `n` samples and `groups` places. What has one group is left out.
    """
    table = data.samples.iloc[rows]
    grouped = {name: table[name].astype(str) for name in table.columns if name not in SAMPLE_COLUMNS}
    if table["day"].notna().all():
        years = pd.to_datetime(table["day"], unit="D").dt.year.astype(str)
        grouped = {"year": years, **grouped}
    truth = data.read_targets(rows)
    found = {}
    for name, groups in grouped.items():
        parts = []
        for group in sorted(set(groups) - {""}):
            here = np.flatnonzero((groups == group).to_numpy())
            if not data.spec.multi_label and not is_labelled(truth[here]).any():
                continue
            scores = score_task(data, rows[here], prediction[here], resamples=resamples, seed=seed).scores
            metric, score = next(iter(scores.items()))
            ends = (score.value, score.low, score.high)
            value, low, high = (end if math.isfinite(end) else None for end in ends)
            parts.append(
                {"group": group, "metric": metric, "value": value, "low": low, "high": high, "n": score.n}
                | {"groups": score.groups}
            )
        if len(parts) > 1:
            worst = [math.inf if part["value"] is None else float(str(part["value"])) for part in parts]
            found[name] = [parts[index] for index in np.argsort(worst, kind="stable")]
    return found
