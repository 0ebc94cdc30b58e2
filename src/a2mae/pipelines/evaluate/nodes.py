"""The node of the `evaluate` stage.

Annotations here must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from a2mae.tasks.parameters import EvaluateParameters


def evaluate(
    options: EvaluateParameters,
    pretrained_model: Path,
    run: Path,
    data: object = None,
    **task_metrics: Any,  # noqa: ANN401 (JSON)
) -> tuple[object, dict[str, object]]:
    """Judge the pretrained encoder against its random twin and plain baselines, and gather every score.

    Args:
        options: The `evaluate` group.
        pretrained_model: Model directory.
        run: Folder where judgements are kept: a stopped evaluation goes on.
        data: Classification data of this run; None where the chain has no `classify`.
        **task_metrics: Metrics of the finetuned tasks.

    Returns:
        The score table and its summary.
    """
    from a2mae.code_deps import code_digest
    from a2mae.tasks.judging.evaluation import evaluate_all
    from a2mae.tasks.judging.units import Units
    from a2mae.tasks.samples.task_data import TaskData

    kept = Units(run, code_digest("a2mae.pipelines.evaluate", Path(__file__).parents[3]))
    found = evaluate_all(options, pretrained_model, cast("TaskData | None", data), list(task_metrics.values()), kept)
    return found.table, found.summary
