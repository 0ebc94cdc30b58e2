"""Records of lineage beside a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

from a2mae.hooks.named_files import reads
from a2mae.hooks.stages import local_data_root, plain, stage_of
from a2mae.hooks.watch import Watch
from a2mae.io.tracked import tracked
from a2mae.parameters import Parameters
from a2mae.pipelines.configuration import plain_groups

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.pipeline.node import Node


class Lineage:
    """Leaves a record of every node: what it read and wrote by hash, its parameters, code and environment."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._data_root: Path | None = None
        self._catalog: DataCatalog | None = None
        self._parameters: dict[str, dict[str, object]] = {}
        self._named: dict[str, dict[str, str]] = {}
        self._saved: dict[str, dict[str, Any]] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember where the outputs lie."""
        self._data_root = local_data_root(context)

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        """Remember the catalog: it says which dataset lies where."""
        self._catalog = catalog
        self._parameters, self._named, self._saved = {}, {}, {}

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any, node: Node) -> None:  # noqa: ANN401 (any dataset's)
        """Remember the parameters that a node was given."""
        if dataset_name.startswith("params:"):
            group = dataset_name.removeprefix("params:")
            self._parameters.setdefault(node.name, {})[group] = plain(data)
            if isinstance(data, Parameters):
                found = {f"{group}.{key}": path for key, path in data.named_paths() if reads(node.name, group, key)}
                self._named.setdefault(node.name, {}).update(found)
        elif dataset_name == "parameters":
            self._parameters.setdefault(node.name, {}).update(plain_groups(data, data["chain"]))

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:  # noqa: ANN401 (any dataset's)
        """Write the record when the last of a node's outputs is on disk."""
        if self._data_root is None or self._catalog is None:
            return
        saved = self._saved.setdefault(node.name, {})
        saved[dataset_name] = data
        if set(saved) == set(node.outputs):
            from a2mae.lineage.recorder import Work, record  # noqa: PLC0415 (the registry stays light)

            work = Work(
                node.name,
                stage_of(node),
                inputs=self._paths(node.inputs),
                outputs=self._paths(node.outputs),
                parameters=self._parameters.get(node.name, {}),
                scenes=saved.get("scenes"),
                named=self._named.get(node.name, {}),
            )
            made = record(work, self._data_root)
            self._watch.made(made, self._data_root, saved)
            del self._saved[node.name]

    def _paths(self, datasets: list[str]) -> dict[str, str]:
        assert self._catalog is not None
        found = {name: tracked(self._catalog, name) for name in datasets}
        return {name: entry.path for name, entry in found.items() if entry is not None}
