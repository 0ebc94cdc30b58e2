"""What happens around every run: names checked before it, lineage records and W&B beside it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

from a2mae import pipeline_registry, tracking
from a2mae.config import Parameters
from a2mae.errors import UnfinishedError
from a2mae.files import file_digest
from a2mae.pipelines import checks
from a2mae.pipelines.chain import local_data_root, plain, plain_groups, stage_of, tracked
from a2mae.pipelines.datasets import ImageSetStoreDataset, RasterDataset
from a2mae.pipelines.tasks import opened_by
from a2mae.provenance.record import Artifact, LineageError, Record, read_record, record, record_path

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node


class Checks:
    """Refuses a run that could not end well, and hands the environment's chain to the registry."""

    def __init__(self) -> None:
        self._project = Path()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check what the command line and the catalog name; say which stages `kedro run` chains.

        The demo simulates its scenes; a folder of real scenes has no simulated truth to cut task data from. Both are
        one `kedro run`, so the chain is a parameter (`parameters_chain.yml`). It is read here because the registry is
        asked before nodes see parameters.

        Raises:
            UnknownEnvironmentError: If `--env` has no folder.
            ParameterValidationError: If `--params` has a group that nobody knows.
            MovedDatasetError: If a catalog entry has a type that has moved.
        """
        self._project = context.project_path
        checks.check_environment(context.config_loader)
        checks.check_groups(context.config_loader)
        checks.check_dataset_types(context.config_loader)
        pipeline_registry.use_chain(tuple(context.config_loader["parameters"]["chain"]))

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Check what the run reads and writes.

        Raises:
            NamedFileError: If a parameter names a file or folder that is not there.
            MissingInputError: If an input has not been made.
            OutputFolderError: If an output's folder cannot be written to.
        """
        checks.check_named_paths(pipeline, catalog, self._project)
        checks.check_inputs(pipeline, catalog, self._project)
        checks.check_outputs(pipeline, catalog, self._project)


class Unfinished:
    """Saves what a failed stage has found: its message names tables that would otherwise not be there."""

    @hook_impl
    def on_node_error(self, error: Exception, catalog: DataCatalog) -> None:
        """Save the tables that an error brings along."""
        if isinstance(error, UnfinishedError):
            for name, table in error.outputs.items():
                catalog.save(name, table)


class Lineage:
    """Leaves a record of every node: what it read and wrote by hash, its parameters, code and environment."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._data_root: Path | None = None
        self._catalog: DataCatalog | None = None
        self._given: dict[str, dict[str, Any]] = {}
        self._saved: dict[str, dict[str, Any]] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember where the outputs lie."""
        self._data_root = local_data_root(context)

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any]) -> None:
        """Remember the parameters that a node is given, and where its datasets lie."""
        self._catalog = catalog
        parameters: dict[str, object] = {}
        named: dict[str, str] = {}
        for name, value in inputs.items():
            group = name.removeprefix("params:")
            if name == "parameters":
                parameters |= plain_groups(value, value["chain"])
            elif name != group:
                parameters[group] = plain(value)
                for key, path in value.named_paths() if isinstance(value, Parameters) else ():
                    if (opened_by(group, key) or (node.name,))[0] == node.name:
                        named[f"{group}.{key}"] = path
        inputs, outputs = (
            {name: entry.path for name in names if (entry := tracked(catalog, name)) is not None}
            for names in (node.inputs, node.outputs)
        )
        self._given[node.name] = {"parameters": parameters, "named": named, "inputs": inputs, "outputs": outputs}

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:  # noqa: ANN401 (any dataset's)
        """Write the record when the last of a node's outputs is on disk."""
        saved = self._saved.setdefault(node.name, {})
        saved[dataset_name] = data
        if self._data_root is not None and self._catalog is not None and saved.keys() == set(node.outputs):
            given, module = self._given[node.name], node.func.__module__
            scenes = saved.get("scenes")
            made = record(self._data_root, node.name, module, stage=stage_of(node), scenes=scenes, **given)
            self._watch.made(made, self._data_root, self._catalog, saved)
            del self._saved[node.name]


class Watch:
    """Opens a W&B run per stage, from `ingest` to the report; the training, a process of its own, opens its own.

    The runs of one chain share a group, and artifacts lead from the store over the model to the scores.
    """

    OWN_OR_NONE = ("simulate", "pretrain")
    TABLES = ("scores",)
    """Tables shown whole: they hold no path of this machine, and are short."""
    NUMBERS = ("four_properties", "prune_report", "scores_summary")
    """JSON whose numbers are the stage's result."""

    def __init__(self) -> None:
        self._chosen = tracking.GROUP_VARIABLE in os.environ
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
            group = self._group(inputs, self._data_root)
            os.environ.pop(tracking.GROUP_VARIABLE, None)
            if group is not None:
                os.environ[tracking.GROUP_VARIABLE] = group
        if stage not in self.OWN_OR_NONE and tracking.running(stage) is None:
            groups = {name.removeprefix("params:"): plain(value) for name, value in inputs.items() if "params:" in name}
            tracking.start_stage(stage, groups)

    def _group(self, inputs: dict[str, Any], data_root: Path) -> str | None:
        """The chain's name from what is ingested: now, or when the stage ran."""
        if "params:ingest" in inputs:
            parameters = plain(inputs["params:ingest"])
        else:
            try:
                parameters = read_record(record_path(data_root, "ingest")).parameters["ingest"]
            except LineageError:
                return None
        assert isinstance(parameters, dict)
        return tracking.group_of(parameters)

    def made(self, record: Record, data_root: Path, catalog: DataCatalog, saved: Mapping[str, Any]) -> None:
        """Show a finished node's result in its stage's run, link it to what it was made from, and close the last.

        Args:
            record: What the node left.
            data_root: Where its outputs lie.
            catalog: Of the run.
            saved: The outputs as values, by dataset.
        """
        self._left[record.stage] = self._left.get(record.stage, 1) - 1
        run = tracking.running(record.stage)
        if run is None:
            return
        run.link(used=list(_pieces(record.inputs, data_root)), made=list(_pieces(record.outputs, data_root)))
        for name in self.TABLES:
            if name in saved:
                run.log_table(name, saved[name])
        for name in self.NUMBERS:
            if name in saved:
                run.summarize(saved[name], name)
        for name in record.outputs:
            if isinstance(dataset := catalog[name], ImageSetStoreDataset | RasterDataset):
                run.log_pictures(name, [dataset.picture()])
        if not self._left[record.stage]:
            tracking.finish_stage(record.stage)

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close what is open as failed."""
        for stage in self._left:
            tracking.finish_stage(stage, failed=True)


def _pieces(entries: Mapping[str, Artifact], data_root: Path) -> Iterator[tracking.Piece]:
    """Datasets as artifacts, each by the digest under which the training's own run knows it."""
    for name, entry in entries.items():
        path = data_root / entry.path
        if name == "image_sets":
            from a2mae.stssd.store.store import ImageSetStore

            url = entry.path if "://" in entry.path else str(path)
            yield tracking.Piece(name, "store", ImageSetStore.open(url).manifest_hash)
        elif (path / "model.safetensors").is_file():
            yield tracking.Piece(name, "model", file_digest(path / "model.safetensors"))
        elif entry.sha256 is not None:
            yield tracking.Piece(name, "scores" if name == "scores" else "data", entry.sha256)
