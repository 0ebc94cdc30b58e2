"""The evaluation as a whole: which encoders are scored on which data, and the table and summary of all scores.

The scores of one encoder on one data set are cached in a file of their own, named after everything that decides them
but the code. A stopped evaluation goes on where it stopped; a changed model, option or data set is scored anew, and so
is what other code has scored.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch

from a2mae.files import digest_of, json_text
from a2mae.models.precision import precision_of
from a2mae.models.sources import weights_digest
from a2mae.parallel import cores
from a2mae.remote.storage import Parts
from a2mae.tasks.datasets.class_folders import class_folder
from a2mae.tasks.datasets.formats import layout_named
from a2mae.tasks.datasets.inputs import InputPlan, TaskInputs
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.evaluation.features import (
    ConvolutionFeatures,
    EncoderFeatures,
    FeatureExtractor,
    histogram_features,
    pixel_features,
    statistics_features,
)
from a2mae.tasks.evaluation.frozen import Candidate, Row, evaluate_frozen
from a2mae.tasks.finetune.encoders import load_start, pretrained_here, random_init
from a2mae.tasks.finetune.model import TaskEncoder
from a2mae.tasks.finetune.train import computing, device_named
from a2mae.tasks.metrics.scores import finetuned_rows, paired_rows, score_table
from a2mae.tasks.parameters import EvaluateParameters, OtherEncoderParameters
from a2mae.tasks.registry import Task

logger = logging.getLogger(__name__)

_PLAIN: Mapping[str, FeatureExtractor] = {
    "pixels": pixel_features,
    "histogram": histogram_features,
    "statistics": statistics_features,
}
"""Baselines that are computed image by image."""


@dataclass(frozen=True)
class Evaluation:
    """All scores.

    Attributes:
        table: One tidy table.
        summary: The main figures, for DVC and for people.
    """

    table: pd.DataFrame
    summary: dict[str, object]


def evaluate_all(
    options: EvaluateParameters,
    pretrained: Path,
    prepared: TaskData | None,
    task_metrics: Sequence[Mapping[str, Mapping[str, object]]],
    cache: Parts,
) -> Evaluation:
    """Score frozen encoders, and join the scores of the finetuned tasks.

    Args:
        options: Protocols, encoders, data.
        pretrained: Model directory.
        prepared: The classification data of this run; None: it has none, and the folder is all there is.
        task_metrics: Of the finetuned tasks.
        cache: Scores computed before: a stopped evaluation goes on.

    Raises:
        TaskDataError: If there is no data to score on, or it is of another task.
    """
    if prepared is None and options.folder is None and not task_metrics:
        raise TaskDataError(
            "evaluate has nothing to score encoders on: the environment's chain has no task, and evaluate.folder is"
            " null. Set evaluate.folder to a folder per class, or put classify into 'chain' in"
            " conf/<env>/parameters_chain.yml"
        )
    if prepared is not None and prepared.spec.multi_label and options.folder is not None:
        logger.warning(
            "evaluate: kNN and probes need one class per image, and %r (classify.data) has several: encoders are scored"
            " on evaluate.folder alone",
            prepared.spec.source,
        )
        prepared = None
    elif prepared is None and options.folder is None:
        logger.warning(
            "evaluate: there is no classification data, so no frozen encoder is scored: set evaluate.folder, or put"
            " classify into 'chain'"
        )
    rows: list[Row] = [row for found in task_metrics for row in finetuned_rows(found, seed=options.seed)]
    if prepared is not None:
        rows += _frozen(options, pretrained, prepared, cache)
    if options.folder is not None:
        taken = {str(found["data"]) for found in task_metrics if str(found["task"]) == Task.CLASSIFY}
        taken |= {prepared.spec.source} if prepared is not None else set()
        # Beside the project's data: the folder's samples are read once into a data set of their own.
        with tempfile.TemporaryDirectory(prefix="a2mae-evaluate-") as scratch:
            layout = layout_named(options.format, group="evaluate")
            source = class_folder(Path(options.folder), layout, max_files=options.folder_samples)
            if source.spec.source in taken:  # another folder of that name: one key of the table, one value
                source.spec = replace(source.spec, source=f"{source.spec.source} (evaluate.folder)")
            write_source(Path(scratch) / "data", source)
            rows += _frozen(options, pretrained, TaskData(Path(scratch) / "data"), cache)
    table = score_table(rows)
    return Evaluation(table, summarise(table))


def _frozen(options: EvaluateParameters, pretrained: Path, data: TaskData, cache: Parts) -> list[Row]:
    """Score every encoder and baseline on one data set; what was scored before is read."""
    protocol = frozen_protocol(data, options)
    model = weights_digest(pretrained)
    place = [options.device, options.threads or cores()]  # of the same bytes, whatever was scored here before
    rows: list[Row] = []
    for name in options.encoders:
        decided = [protocol, name, options.seed, model, place]
        score = partial(frozen_rows, name, name, pretrained, data, options)
        rows += _cached_rows(cache, f"{name} on {data.spec.source}", decided, score)
    for entry in options.others:
        decided = [
            protocol,
            entry.model_dump(mode="json"),
            options.seed,
            weights_digest(Path(str(entry.weights))),
            place,
        ]
        score = partial(_other_rows, entry, data, options)
        rows += _cached_rows(cache, f"{entry.name} on {data.spec.source}", decided, score)
    for over in sorted({"random", "rcf"} & set(options.encoders)):
        rows += paired_rows(rows, "pretrained", over)
    return rows


def _cached_rows(
    cache: Parts, name: str, decided_by: Sequence[object], score: Callable[[], Sequence[Row]]
) -> list[Row]:
    """Read scores that this code computed before, or compute and keep them.

    Args:
        cache: Scores computed before.
        name: For the log.
        decided_by: Plain values: all that the scores depend on, except code.
        score: Computes them.
    """
    key = digest_of(decided_by)
    before = cache.get(key)
    if before is not None:
        logger.info("%s: scored before", name)
        return cast("list[Row]", json.loads(before))
    rows = list(score())
    cache.put(key, json_text(rows).encode())
    return rows


def frozen_protocol(data: TaskData, options: EvaluateParameters) -> str:
    """Describe as JSON what decides an encoder's frozen scores besides the encoder.

    Args:
        data: Classification data.
        options: The `evaluate` group.
    """
    # No part of what one encoder scores, or of it by a rounding alone.
    elsewhere = {"device", "threads", "folder", "format", "folder_samples", "encoders", "others"}
    protocol = options.model_dump(mode="json", exclude=elsewhere)
    protocol["precision"] = precision_of(options.precision, device_named(options.device))
    return json.dumps(["frozen", data.digest, protocol], sort_keys=True)


def frozen_rows(name: str, kind: str, model: Path, data: TaskData, options: EvaluateParameters) -> list[Row]:
    """Score one frozen encoder, its random_init baseline or a baseline by kNN over GSDs and by probes.

    Args:
        name: Of the score table's column `model`.
        kind: `random` (the model's architecture with fresh weights), `rcf`, `statistics`, `histogram`, `pixels`;
            anything else: the model.
        model: Model directory; a baseline takes its normalisation from it.
        data: Classification data.
        options: Protocols; their seed also draws the random weights.

    Returns:
        Rows of the score table.
    """
    with computing(options.device, options.threads) as device:
        loaded = load_start(pretrained_here(model), data, options.bands, location=options.location, group="evaluate")
        encoder, plan = loaded.encoder, loaded.plan
        if kind == "random":
            encoder = random_init(encoder, options.seed)
        inputs = TaskInputs(data, plan)
        if kind == "rcf":  # at coarse scales on what the encoder sees, too: small images are enlarged to whole patches
            candidate = Candidate(name, ConvolutionFeatures(inputs, options.seed), encoder.patch_size)
        elif kind in _PLAIN:
            candidate = Candidate(name, _PLAIN[kind])
        else:
            candidate = _candidate(name, encoder, plan, options, device)
        return evaluate_frozen(candidate, inputs, options, device)


def _candidate(
    name: str, encoder: TaskEncoder, plan: InputPlan, options: EvaluateParameters, device: torch.device
) -> Candidate:
    features = EncoderFeatures(
        encoder.to(device),
        pool=options.pool,
        bands_per_view=plan.bands_per_view,
        precision=precision_of(options.precision, device),
        layers=options.layers,
    )
    return Candidate(name, features, encoder.patch_size, features.parts, features.readouts)


def _other_rows(entry: OtherEncoderParameters, data: TaskData, options: EvaluateParameters) -> list[Row]:
    """Score an encoder from elsewhere with the inputs that it expects."""
    with computing(options.device, options.threads) as device:
        loaded = load_start(entry, data, options.bands, location=options.location, group="evaluate")
        candidate = _candidate(entry.name, loaded.encoder, loaded.plan, options, device)
        return evaluate_frozen(candidate, TaskInputs(data, loaded.plan), options, device)


def summarise(table: pd.DataFrame) -> dict[str, object]:
    """Gather the main figures as nested numbers: `{task: {data: {mode: {metric: {model: value}}}}}`.

    Few-shot scores are means over their draws; kNN is given at the native GSD and as the mean over scales. Differences
    are modes of their own, named after what they are over.
    """
    summary: dict[str, dict[str, object]] = {}
    for (task, data), part in table.groupby(["task", "data"], sort=True):
        modes: dict[str, object] = {}
        for (mode, over), rows in part.groupby(["mode", "over"], sort=True):
            if over:
                modes[f"{mode}_over_{over}"] = _means(rows)
            elif mode == "knn":
                native = rows[np.isclose(rows["gsd_m"], rows["native_gsd_m"])]
                one = native[native["metric"] == native["metric"].iloc[0]]
                modes["knn_native"] = {str(r.model): round(float(r.value), 6) for r in one.itertuples()}
                modes["knn_mean_over_scales"] = _means(rows)
            else:
                modes[str(mode)] = _means(rows)
        summary.setdefault(str(task), {})[str(data)] = modes
    return dict(summary)


def _means(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    means = rows.groupby(["metric", "model"], sort=True)["value"].mean()
    nested: dict[str, dict[str, float]] = {}
    for keys, value in means.to_dict().items():
        metric, model = cast("tuple[str, str]", keys)
        nested.setdefault(metric, {})[model] = round(float(value), 6)
    return nested
