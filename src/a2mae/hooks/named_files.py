"""Whether the files and folders that parameters name are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

from a2mae.hooks.project import InProject
from a2mae.io.tracked import tracked
from a2mae.parameters import Parameters

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline


_READ_BY = {"data": "prepare_data", "map": "draw_map"}
"""Of a task: which of its nodes reads the paths of a part of its group; the others read none."""
_OPENED_BY = {"map": "prepare_data"}
"""Likewise, which of them looks at them before the training."""


def reads(node: str, group: str, key: str) -> bool:
    """Whether a node that is given a group reads what this key of it names.

    Args:
        node: Its name in the graph.
        group: Of parameters.
        key: With dots, as `Parameters.named_paths` has it.
    """
    reader = _READ_BY.get(key.split(".", maxsplit=1)[0])
    return reader is None or node == f"{group}.{reader}"


class NamedFiles(InProject):
    """Refuses a run that would come to a mistyped path after hours, before its first node runs."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Look for every `OnDiskPath` in the groups that the run's nodes read.

        What lies below an output of this run may be made by it, and what is no local path is asked for by its reader.

        Raises:
            NamedFileError: If one is not there; all of them are named, with the key to change.
        """
        written = [
            (self._project / entry.path).resolve()
            for name in pipeline.all_outputs()
            if (entry := tracked(catalog, name)) is not None and "://" not in entry.path
        ]
        nodes = {node.name for node in pipeline.nodes}
        missing = []
        for name in sorted(pipeline.inputs()):
            group, values = name.removeprefix("params:"), catalog.load(name) if name.startswith("params:") else None
            for key, path in values.named_paths() if isinstance(values, Parameters) else ():
                looking = f"{group}.{_OPENED_BY.get(key.split('.', maxsplit=1)[0])}" in nodes
                if not looking and not any(reads(node, group, key) for node in nodes):
                    continue
                if "://" in path or path.startswith("/vsi") or Path(path).exists():
                    continue
                if not any(Path(path).resolve().is_relative_to(output) for output in written):
                    missing.append(f"{group}.{key} is {path!r}")
        if missing:
            raise NamedFileError(
                f"no such file or folder: {'; '.join(missing)}. Relative paths start from {Path.cwd()}; set the"
                " parameter to what is there, or to null"
            )


class NamedFileError(FileNotFoundError):
    """A parameter names a file or folder that is not there."""
