"""The `classify` stage: the task template under its namespace."""

from __future__ import annotations

from collections.abc import Sequence

from kedro.pipeline import Pipeline

from a2mae.pipelines.task_template import create_task_pipeline


def create_pipeline(chain: Sequence[str] | None = None) -> Pipeline:
    """The stage as a pipeline.

    Args:
        chain: Stages of the environment; None: all.
    """
    return create_task_pipeline("classify", maps=False, chain=chain)
