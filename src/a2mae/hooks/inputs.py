"""Whether what a run reads has been made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import DataCatalog

from a2mae.hooks.project import InProject
from a2mae.io.tracked import tracked
from a2mae.pipeline_registry import EXTRAS, STAGES

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline


class MadeInputs(InProject):
    """Refuses a run that would read what no stage has made yet, before its first node runs."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Look for every dataset that the run reads and does not itself write.

        Raises:
            MissingInputError: If one is not there; the message names it and the stage that makes it.
        """
        missing: list[str] = []
        makers: list[str] = []
        for dataset in sorted(pipeline.inputs()):
            entry = tracked(catalog, dataset)
            if entry is None or "://" in entry.filepath or (self._project / entry.filepath).exists():
                continue
            missing.append(f"'{dataset}' ({os.path.relpath(self._project / entry.filepath, self._project)})")
            makers += [stage for stage in (*STAGES, *EXTRAS) if dataset in pipelines[stage].all_outputs()]
        if missing:
            first = ",".join(sorted(set(makers), key=(*STAGES, *EXTRAS).index))
            hint = f"first run what makes it, --pipelines={first}, or the whole chain" if first else "no stage makes it"
            raise MissingInputError(
                f"the run reads what is not there: {', '.join(missing)}; {hint}. If it lies elsewhere, set"
                " 'data_root' in conf/<env>/globals.yml or choose its environment by --env"
            )


class MissingInputError(FileNotFoundError):
    """A run's input has not been made."""
