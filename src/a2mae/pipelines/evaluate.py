"""The `evaluate` stage: a model directory, classification data and the tasks' metrics to the score table.

Annotations must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.chain import optional_inputs
from a2mae.tasks.parameters import EvaluateParameters
from a2mae.tasks.registry import Task


def evaluate(
    options: EvaluateParameters,
    pretrained_model: Path,
    run: Path,
    classify_data: object = None,
    **task_metrics: Any,  # noqa: ANN401 (JSON)
) -> tuple[object, dict[str, object]]:
    """Score the pretrained encoder beside random_init and plain baselines, and gather every score.

    Args:
        options: The `evaluate` group.
        pretrained_model: Model directory.
        run: Folder where scores are cached: a stopped evaluation goes on.
        classify_data: Classification data of this run; None where the chain has no `classify`.
        **task_metrics: Metrics of the finetuned tasks.

    Returns:
        The score table and its summary.
    """
    from a2mae.provenance.code import code_digest
    from a2mae.remote.storage import Folder, Parts
    from a2mae.tasks.datasets.task_data import TaskData
    from a2mae.tasks.evaluation.evaluate import evaluate_all

    cache = Parts(Folder(str(run)), code_digest("a2mae.pipelines.evaluate"))
    data = cast("TaskData | None", classify_data)
    found = evaluate_all(options, pretrained_model, data, list(task_metrics.values()), cache)
    return found.table, found.summary


def create_pipeline(made: Collection[str] | None = None) -> Pipeline:
    """Create the stage's pipeline.

    Args:
        made: Datasets that the stages of the environment's chain make; None: all. Without `classify.data` encoders
            are scored on `evaluate.folder` alone.
    """
    inputs = {"options": "params:evaluate", "pretrained_model": "pretrained_model", "run": "evaluation_run"}
    inputs |= optional_inputs(made, [f"{Task.CLASSIFY}.data"], *([f"{task}.metrics"] for task in Task))
    return Pipeline(
        [node(evaluate, inputs=inputs, outputs=["scores", "scores_summary"], name="evaluate", tags="evaluate")]
    )
