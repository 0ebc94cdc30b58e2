"""Whether what a run makes can be written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

from a2mae.hooks.project import InProject
from a2mae.io.tracked import tracked

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline


class WritableOutputs(InProject):
    """Refuses a run whose results could not be written, before hours go into them."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Look at the folder of every dataset that the run writes.

        Raises:
            OutputFolderError: If a folder, or what stands in its place, cannot be written to; all of them are named.
        """
        wrong: dict[str, list[str]] = {}
        for dataset in sorted(pipeline.all_outputs()):
            entry = tracked(catalog, dataset)
            if entry is None or "://" in entry.path:
                continue
            found = next(
                folder for folder in (self._project / entry.path).absolute().parents if os.path.lexists(folder)
            )
            if not found.is_dir():
                wrong.setdefault(f"{found} is a file", []).append(dataset)
            elif not os.access(found, os.W_OK | os.X_OK):
                wrong.setdefault(f"{found} is not writable by this user", []).append(dataset)
        if wrong:
            reasons = "; ".join(f"{reason}, needed for {', '.join(datasets)}" for reason, datasets in wrong.items())
            raise OutputFolderError(
                f"the run's outputs cannot be written: {reasons}. Free the folder, or set another 'data_root' in"
                " conf/<env>/globals.yml"
            )


class OutputFolderError(OSError):
    """An output folder cannot be written to."""
