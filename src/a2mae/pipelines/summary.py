"""What a run says at its end: what was made and where, how long it took, what was kept out and why, what is next."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

from a2mae.errors import plural
from a2mae.pipelines.chain import stage_of, tracked

if TYPE_CHECKING:
    import pandas as pd
    from kedro.framework.context import KedroContext
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

_REJECTED = ("refused_scenes", "rejected_images")
_CHOSEN = "excluded"  # by a rule of the user's
_REPORT = "report"
_MOST_SHOWN = 4


class Summary:
    """Writes a run's summary."""

    def __init__(self) -> None:
        self._project, self._chain = Path(), tuple[str, ...]()
        self._seconds: dict[str, float] = defaultdict(float)
        self._began = 0.0

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember the chain."""
        self._project, self._chain = context.project_path, tuple(context.config_loader["parameters"]["chain"])
        self._seconds.clear()

    @hook_impl
    def before_node_run(self) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Stop it."""
        self._seconds[stage_of(node)] += time.monotonic() - self._began

    @hook_impl
    def after_pipeline_run(self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Write the summary."""
        env = run_params.get("env")
        sys.stdout.write("\n" + "\n".join(self._lines(env, pipeline, catalog)) + "\n")

    def _lines(self, env: str | None, pipeline: Pipeline, catalog: DataCatalog) -> Iterator[str]:
        made: dict[str, dict[str, None]] = defaultdict(dict)
        for node in pipeline.nodes:
            for name in node.outputs:
                if (entry := tracked(catalog, name)) is not None:
                    made[stage_of(node)][self._shown(entry.path)] = None
        for stage, seconds in self._seconds.items():
            paths = list(made[stage])
            shown = ", ".join(paths[:_MOST_SHOWN]) + (
                f" and {len(paths) - _MOST_SHOWN} more" if len(paths) > _MOST_SHOWN else ""
            )
            yield f"{stage}: {_duration(seconds)}; {shown or 'nothing is kept'}"
        for name in _REJECTED:
            if name in pipeline.all_outputs() and catalog.exists(name):
                entry = tracked(catalog, name)
                yield from _kept_out(name, catalog.load(name), name if entry is None else self._shown(entry.path))
        yield f"next: {self._next(env)}"

    def _shown(self, path: str) -> str:
        """A path below the project, or as it is."""
        return path.removeprefix(f"{self._project}{os.sep}")

    def _next(self, env: str | None) -> str:
        where = f" --env={env}" if env else ""
        done = [self._chain.index(stage) for stage in self._seconds if stage in self._chain]
        if _REPORT in self._seconds:
            return "open report.html, named above, in a browser"
        rest = self._chain[max(done) + 1 :] if done else ()
        if rest:
            return f"kedro run{where} --pipelines={','.join(rest)}"
        return f"kedro run{where} --pipelines={_REPORT}" if _REPORT in self._chain else f"kedro run{where}"


def _kept_out(name: str, table: pd.DataFrame, path: str) -> Iterator[str]:
    """Say how many were kept out for each reason, with the first one's sentence."""
    rows = table[table["reason"] != _CHOSEN]
    if not len(rows):
        return
    noun = "scene" if name == "refused_scenes" else "image"
    reasons = ", ".join(f"{count} {reason}" for reason, count in rows["reason"].value_counts().items())
    yield f"kept out: {plural(len(rows), noun)} ({reasons}); the first: {rows['detail'].iloc[0]}; all in {path}"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
