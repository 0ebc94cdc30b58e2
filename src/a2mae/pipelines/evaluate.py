"""The `evaluate` stage: from a model directory, classification data and the tasks' metrics to the score table.

Annotations here must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from kedro.pipeline import Pipeline, node

from a2mae.tasks.parameters import EvaluateParameters


def evaluate(
    options: EvaluateParameters,
    pretrained_model: Path,
    run: Path,
    data: object = None,
    **task_metrics: Any,  # noqa: ANN401 (JSON)
) -> tuple[object, dict[str, object]]:
    """Score the pretrained encoder beside random_init and plain baselines, and gather every score.

    Args:
        options: The `evaluate` group.
        pretrained_model: Model directory.
        run: Folder where scores are cached: a stopped evaluation goes on.
        data: Classification data of this run; None where the chain has no `classify`.
        **task_metrics: Metrics of the finetuned tasks.

    Returns:
        The score table and its summary.
    """
    from a2mae.provenance.code import code_digest
    from a2mae.tasks.datasets.task_data import TaskData
    from a2mae.tasks.evaluation.evaluate import ScoreCache, evaluate_all

    kept = ScoreCache(run, code_digest("a2mae.pipelines.evaluate", Path(__file__).parents[2]))
    found = evaluate_all(options, pretrained_model, cast("TaskData | None", data), list(task_metrics.values()), kept)
    return found.table, found.summary


TASKS = ("classify", "segment", "detect_change")


def create_pipeline(chain: Sequence[str] = TASKS) -> Pipeline:
    """The stage as a pipeline.

    Args:
        chain: Stages of the environment: it reads what the tasks among them have made. Without `classify` encoders are
            scored on `evaluate.folder` alone.
    """
    inputs = {"options": "params:evaluate", "pretrained_model": "pretrained_model", "run": "evaluation_run"}
    if "classify" in chain:
        inputs["data"] = "classify.data"
    inputs |= {f"{task}_metrics": f"{task}.metrics" for task in TASKS if task in chain}
    return Pipeline(
        [node(evaluate, inputs=inputs, outputs=["scores", "scores_summary"], name="evaluate", tags="evaluate")]
    )
