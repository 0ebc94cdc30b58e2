"""W&B beside a run."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from a2mae import tracking
from a2mae.hooks.stages import local_data_root, plain, stage_of
from a2mae.lineage.record import LineageError, Record, read_record, record_path
from a2mae.pipeline_registry import PACKAGES
from a2mae.tracking import GROUP_VARIABLE

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node


class Watch:
    """Opens a W&B run per stage, from `ingest` to the report; the training, a process of its own, opens its own.

    The runs of one chain share a group, and artifacts lead from the store over the model to the scores.
    """

    OWN_OR_NONE = ("simulate", "pretrain")

    def __init__(self) -> None:
        self._chosen = GROUP_VARIABLE in os.environ
        self._left: dict[str, int] = {}
        self._data_root: Path | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember where the outputs lie."""
        self._data_root = local_data_root(context)

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Count each stage's nodes, to close its run after the last."""
        self._left = dict(Counter(stage_of(node) for node in pipeline.nodes))

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        """Open the stage's run, in its chain's group."""
        stage = stage_of(node)
        if self._data_root is None or not tracking.available():
            return
        if not self._chosen:
            group = self._group(inputs)
            os.environ.pop(GROUP_VARIABLE, None)
            if group is not None:
                os.environ[GROUP_VARIABLE] = group
        if stage not in self.OWN_OR_NONE and tracking.running(stage) is None:
            groups = {name.removeprefix("params:"): plain(value) for name, value in inputs.items() if "params:" in name}
            tracking.start_stage(stage, groups)

    def _group(self, inputs: dict[str, Any]) -> str | None:
        """The chain's name from what is ingested: now, or when the stage ran."""
        if "params:ingest" in inputs:
            parameters = plain(inputs["params:ingest"])
        else:
            assert self._data_root is not None
            try:
                parameters = read_record(record_path(self._data_root, "ingest")).parameters["ingest"]
            except LineageError:
                return None
        assert isinstance(parameters, dict)
        return tracking.group_of(parameters)

    def made(self, record: Record, data_root: Path, saved: dict[str, Any]) -> None:
        """Link a finished node's inputs and outputs to its stage's run, show what can be shown, and close the last."""
        self._left[record.stage] = self._left.get(record.stage, 1) - 1
        run = tracking.running(record.stage)
        if run is None:
            return
        from a2mae.reporting import watched  # noqa: PLC0415 (the registry stays light)

        watched.log(run, record, data_root, saved)
        if not self._left[record.stage]:
            tracking.finish_stage(record.stage)

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close what is open as failed."""
        for stage in PACKAGES:
            tracking.finish_stage(stage, failed=True)
