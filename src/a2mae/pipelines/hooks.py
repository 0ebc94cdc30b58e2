"""What happens around every run: names checked before it, lineage records and W&B beside it."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import DataCatalog

from a2mae import pipeline_registry, tracking
from a2mae.config import Parameters
from a2mae.errors import UnfinishedError
from a2mae.files import clear_leftovers, file_digest, telling_where
from a2mae.locks import LockedError, locked
from a2mae.pipeline_registry import STAGES
from a2mae.pipelines import checks
from a2mae.pipelines.chain import local_data_root, plain, plain_groups, stage_of, tracked
from a2mae.pipelines.datasets import ImageSetStoreDataset, RasterDataset, RunDirectory
from a2mae.pipelines.environment_files import check_environment_files
from a2mae.pipelines.tasks import opened_by
from a2mae.provenance.record import Artifact, LineageError, Record, read_input, read_record, record, record_path
from a2mae.tasks.registry import Task

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node


def _form(task: Task, options: Mapping[str, Any]) -> pipeline_registry.TaskForm:
    """What a task's parameters, not yet checked, make of its pipeline."""
    return pipeline_registry.TaskForm(
        raster=(options.get("map") or {}).get("raster") is not None,
        per_image=options.get("head") in task.kind.image_heads,
        twin=options.get("twin") is not False,
        started=options.get("start") is not None,
    )


class Checks:
    """Refuses a run that could not end well, and hands the environment's chain to the registry."""

    def __init__(self) -> None:
        self._project = Path()
        self._data_root: Path | None = None
        self._held = contextlib.ExitStack()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check what the command line and the catalog name; say which stages `kedro run` chains.

        The demo simulates its scenes; a folder of real scenes has no simulated truth to cut task data from. Both are
        one `kedro run`, so the chain is a parameter (`parameters_chain.yml`). It is read here because the registry is
        asked before nodes see parameters.

        Raises:
            UnknownEnvironmentError: If `--env` has no folder.
            EnvironmentFilesError: If its files say what nothing reads, or write into another's data.
            ParameterValidationError: If `--params` has a group that nobody knows.
            MovedDatasetError: If a catalog entry has a type that has moved.
        """
        self._project = context.project_path
        checks.check_environment(context.config_loader)
        check_environment_files(context.config_loader)
        settings = context.config_loader["globals"]
        if str(settings.get("data_root", "")).startswith("~"):  # only a shell would know it
            context.config_loader["globals"] = {**settings, "data_root": os.path.expanduser(settings["data_root"])}
        self._data_root = local_data_root(context)
        checks.check_groups(context.config_loader)
        checks.check_dataset_types(context.config_loader)
        parameters = context.config_loader["parameters"]
        forms = {task.value: _form(task, parameters.get(task) or {}) for task in Task}
        pipeline_registry.use_chain(tuple(parameters["chain"]), forms)

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Check what the run reads and writes, and keep other runs away from it until it ends.

        Raises:
            LockedError: If another run works on the same data.
            InputError: If there is nothing to embed, a named raster cannot be opened, or the model does not take what
                it would be given.
            NamedFileError: If a parameter names a file or folder that is not there.
            MissingInputError: If an input has not been made.
            OutputFolderError: If an output's folder cannot be written to.
        """
        checks.check_named_paths(pipeline, catalog, self._project)
        checks.check_named_rasters(pipeline, catalog, self._project)
        checks.check_inputs(pipeline, catalog, self._project)
        checks.check_embedded(pipeline, catalog)
        checks.check_model(pipeline, catalog, self._project)
        checks.check_outputs(pipeline, catalog, self._project)
        if self._data_root is not None:
            self._held.close()  # of a run that was interrupted, in the same session
            self._held.enter_context(locked(self._data_root))
            self._clear_leftovers(pipeline, catalog)

    def _clear_leftovers(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Remove what killed writers have left of this run's outputs, except where a training has outlived its run."""
        for name in sorted(pipeline.datasets()):
            if name in pipeline.all_outputs() and (entry := tracked(catalog, name)) and "://" not in entry.path:
                clear_leftovers(self._project / entry.path)
            elif not name.startswith("params:") and isinstance(dataset := catalog.get(name), RunDirectory):
                with contextlib.suppress(LockedError), locked(dataset.load()):
                    clear_leftovers(dataset.load())

    @hook_impl
    def on_node_error(self, error: Exception, node: Node, catalog: DataCatalog) -> None:
        """Say where it was that the disk was full or access was refused.

        Raises:
            WriteError: In place of what the operating system has said.
        """
        if isinstance(error, OSError):
            entries = [entry for name in node.outputs if (entry := tracked(catalog, name)) is not None]
            named = [error.filename] if isinstance(error.filename, str) else [entry.path for entry in entries]
            with telling_where(Path(named[0] if named else node.name), doing="read or write"):
                raise error

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Let others work on the data."""
        self._held.close()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Let others work on the data."""
        self._held.close()


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
        self._project = Path()
        self._data_root: Path | None = None
        self._makers: dict[str, str] = {}
        self._catalog: DataCatalog | None = None
        self._read: dict[str, dict[str, Artifact]] = {}
        self._given: dict[str, dict[str, Any]] = {}
        self._saved: dict[str, dict[str, Any]] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember where the outputs lie."""
        self._project = context.project_path
        self._data_root = local_data_root(context)

    @hook_impl
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Remember the catalog, and which node makes what."""
        self._catalog = catalog
        others = [node for stage in STAGES for node in pipelines[stage].nodes]
        nodes = [*others, *pipelines["__default__"].nodes]  # the chain's own makers before others
        self._makers = {output: node.name for node in nodes for output in node.outputs}

    @hook_impl
    def before_dataset_loaded(self, dataset_name: str, node: Node) -> None:
        """Compare what a node is about to read with what the stage before has written.

        Raises:
            ChangedInputError: If a byte is another one.
        """
        if self._data_root is None:
            return
        path = self._path(dataset_name)
        found = path and read_input(self._data_root, dataset_name, path, self._makers.get(dataset_name))
        if found:
            self._read.setdefault(node.name, {})[dataset_name] = found

    def _path(self, dataset_name: str) -> str | None:
        """Where a dataset lies, wherever the run was started; None for what is not on disk."""
        entry = None if self._catalog is None else tracked(self._catalog, dataset_name)
        if entry is None or "://" in entry.path:
            return None if entry is None else entry.path
        return str(self._project / entry.path)

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any]) -> None:
        """Remember the parameters that a node is given, and where its datasets lie."""
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
        self._catalog = catalog
        outputs = {name: place for name in node.outputs if (place := self._path(name)) is not None}
        read = self._read.pop(node.name, {})
        self._given[node.name] = {"parameters": parameters, "named": named, "inputs": read, "outputs": outputs}

    @hook_impl
    def before_dataset_saved(self, node: Node) -> None:
        """Remove the record of what is about to be replaced: killed now, the new would pass for the old, changed."""
        if self._data_root is not None and node.name not in self._saved:
            record_path(self._data_root, node.name).unlink(missing_ok=True)

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
        """Remember where the outputs lie: wandb's files go there, too."""
        self._data_root = local_data_root(context)
        if self._data_root is not None:
            tracking.keep_in(self._data_root)

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
