"""The `evaluate` stage: model directory, classification data and the tasks' metrics → the score table."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.evaluate.nodes import evaluate

TASKS = ("classify", "segment", "detect_change")


def create_pipeline() -> Pipeline:
    """The stage as a pipeline."""
    inputs = {
        "options": "params:evaluate",
        "pretrained_model": "pretrained_model",
        "data": "classify.data",
        "run": "evaluation_run",
    }
    inputs |= {f"{task}_metrics": f"{task}.metrics" for task in TASKS}
    return Pipeline(
        [node(evaluate, inputs=inputs, outputs=["scores", "scores_summary"], name="evaluate", tags="evaluate")]
    )
