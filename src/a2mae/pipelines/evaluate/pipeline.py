"""The `evaluate` stage: model directory, classification data and the tasks' metrics → the score table."""

from __future__ import annotations

from collections.abc import Sequence

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.evaluate.nodes import evaluate

TASKS = ("classify", "segment", "detect_change")


def create_pipeline(chain: Sequence[str] = TASKS) -> Pipeline:
    """The stage as a pipeline.

    Args:
        chain: Stages of the environment: it reads what the tasks among them have made. Without `classify` encoders are
            judged on `evaluate.folder` alone.
    """
    inputs = {"options": "params:evaluate", "pretrained_model": "pretrained_model", "run": "evaluation_run"}
    if "classify" in chain:
        inputs["data"] = "classify.data"
    inputs |= {f"{task}_metrics": f"{task}.metrics" for task in TASKS if task in chain}
    return Pipeline(
        [node(evaluate, inputs=inputs, outputs=["scores", "scores_summary"], name="evaluate", tags="evaluate")]
    )
