"""The `classify` stage: the task template under its namespace."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from a2mae.pipelines.task_template import create_task_pipeline


def create_pipeline() -> Pipeline:
    """The stage as a pipeline."""
    return create_task_pipeline("classify", maps=False)
