"""What happens around every run: names checked before it, records and W&B beside it.

What hooks that look at files need: the folder that relative paths start from.

What the hooks ask of a run: where its outputs lie, which stage a node belongs to, parameters as plain values.

Which stages `kedro run` chains.

A configuration environment that is not there.

Parameter groups that are given on the command line and that nobody knows.

Whether what a run reads has been made.

Whether the files and folders that parameters name are there.

Whether what a run makes can be written.

Records of lineage beside a run.

W&B beside a run.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines, settings
from kedro.io import DataCatalog
from kedro.validation.exceptions import ParameterValidationError
from pydantic import BaseModel

from a2mae import pipeline_registry, tracking
from a2mae.config import Parameters
from a2mae.errors import did_you_mean
from a2mae.pipeline_registry import MOVED, STAGES
from a2mae.pipelines.chain import plain_groups
from a2mae.pipelines.datasets import tracked
from a2mae.provenance.record import LineageError, Record, read_record, record_path
from a2mae.tracking import GROUP_VARIABLE

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node


class InProject:
    """Knows the project's folder once Kedro does."""

    def __init__(self) -> None:
        self._project = Path()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember what relative paths start from."""
        self._project = context.project_path


def local_data_root(context: KedroContext) -> Path | None:
    """The folder that outputs lie in; None where an environment names none or keeps them elsewhere (`s3://`)."""
    root = context.config_loader["globals"].get("data_root")
    return None if root is None or "://" in root else context.project_path / root


def stage_of(node: Node) -> str:
    """The stage that a node belongs to: its namespace, or the module of its function."""
    stage = node.namespace or node.func.__module__.split(".")[2]
    assert stage in STAGES, f"{node.name} belongs to no stage"
    return stage


def plain(group: object) -> object:
    """A parameter group as plain values: Kedro has made a model of it where a node declares one."""
    return group.model_dump(mode="json") if isinstance(group, BaseModel) else group


class DefaultChain:
    """Lets each configuration environment say which stages `kedro run` chains, in `parameters_chain.yml`.

    The demo simulates its scenes; a folder of real scenes has no simulated truth to cut task data from. Both are one
    `kedro run`, so the chain is configuration. It is read here because the registry is asked before nodes see
    parameters.
    """

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Hand the environment's `chain` to the registry before the pipelines are first asked for."""
        parameters = context.config_loader["parameters"]
        pipeline_registry.use_chain(tuple(parameters["chain"]))


class KnownEnvironment:
    """Refuses `--env` that has no folder, with those that have one; Kedro names the folder alone."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Look for the environment's folder, where the configuration is one.

        Raises:
            UnknownEnvironmentError: If it is not there; the message names the nearest and all there are.
        """
        loader = context.config_loader
        source = Path(loader.conf_source)
        if loader.env is None or not source.is_dir() or (source / loader.env).is_dir():
            return
        if loader.env in MOVED:
            raise UnknownEnvironmentError(f"no environment '{loader.env}': {MOVED[loader.env]}")
        known = sorted(path.name for path in source.iterdir() if path.is_dir() and path.name != "base")
        raise UnknownEnvironmentError(
            f"no environment '{loader.env}': {did_you_mean(loader.env, known)}{source} has"
            f" {', '.join(known) or 'none'}; one of your own is a folder there with what differs from conf/base"
            " (docs/own-folder.md)"
        )


class UnknownEnvironmentError(FileNotFoundError):
    """`--env` names a folder that is not there."""


class KnownGroups:
    """Refuses `--params` whose group no configuration file has.

    Inside a group the pydantic model refuses a mistyped key; Kedro itself silently ignores a group that nothing reads.
    """

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Compare the groups given on the command line with those of the configuration.

        Raises:
            ParameterValidationError: If a group is unknown; the message names the nearest and all there are.
        """
        loader = context.config_loader
        if not loader.runtime_params:
            return
        files_only = type(loader)(conf_source=loader.conf_source, env=loader.env, **settings.CONFIG_LOADER_ARGS)
        known = sorted(files_only["parameters"])
        for group in loader.runtime_params:
            if group not in known:
                if group in MOVED:
                    raise ParameterValidationError(f"unknown parameter group '{group}' in --params: {MOVED[group]}")
                raise ParameterValidationError(
                    f"unknown parameter group '{group}' in --params: {did_you_mean(group, known)}"
                    f"conf/base/parameters_*.yml has {', '.join(known)}"
                )


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
            makers += [stage for stage in STAGES if dataset in pipelines[stage].all_outputs()]
        if missing:
            first = ",".join(sorted(set(makers), key=STAGES.index))
            hint = f"first run what makes it, --pipelines={first}, or the whole chain" if first else "no stage makes it"
            raise MissingInputError(
                f"the run reads what is not there: {', '.join(missing)}; {hint}. If it lies elsewhere, set"
                " 'data_root' in conf/<env>/globals.yml or choose its environment by --env"
            )


class MissingInputError(FileNotFoundError):
    """A run's input has not been made."""


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
            from a2mae.provenance.recorder import Work, record

            work = Work(
                node.name,
                stage_of(node),
                node.func.__module__,
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
        from a2mae.report import watched

        watched.log(run, record, data_root, saved)
        if not self._left[record.stage]:
            tracking.finish_stage(record.stage)

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close what is open as failed."""
        for stage in STAGES:
            tracking.finish_stage(stage, failed=True)
