"""What is refused before a run's first node: mistyped names, inputs nobody has made, outputs nobody could write.

Hours may lie between the start of a run and the node that would stumble.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kedro.framework.project import pipelines, settings
from kedro.io import DataCatalog
from kedro.validation.exceptions import ParameterValidationError

from a2mae.config import Parameters
from a2mae.errors import A2maeError, InputError, RejectedError, did_you_mean, is_address
from a2mae.pipeline_registry import MOVED, STAGES, TASKS
from a2mae.pipelines.chain import tracked
from a2mae.pipelines.tasks import opened_by

if TYPE_CHECKING:
    from kedro.config import AbstractConfigLoader
    from kedro.pipeline import Pipeline

    from a2mae.training.parameters import PretrainParameters


class UnknownEnvironmentError(A2maeError, FileNotFoundError):
    """`--env` names a folder that is not there."""


class MovedDatasetError(InputError):
    """A catalog names a type of dataset by where it was before."""


class MissingInputError(A2maeError, FileNotFoundError):
    """A run's input has not been made."""


class NamedFileError(A2maeError, FileNotFoundError):
    """A parameter names a file or folder that is not there."""


class OutputFolderError(A2maeError, OSError):
    """An output folder cannot be written to."""


def check_environment(loader: AbstractConfigLoader) -> None:
    """Check that `--env` has a folder, where the configuration is one; Kedro's own message names no other.

    Raises:
        UnknownEnvironmentError: If it has none; the message names the nearest and all there are.
    """
    source = Path(loader.conf_source)
    if loader.env is None or not source.is_dir():
        return
    folders = [path.name for path in source.iterdir() if path.is_dir()]
    if loader.env in folders:  # a path would be read as an environment, too
        return
    if loader.env in MOVED:
        raise UnknownEnvironmentError(f"no environment '{loader.env}': {MOVED[loader.env]}")
    known = sorted(set(folders) - {"base"})
    raise UnknownEnvironmentError(
        f"no environment '{loader.env}': {did_you_mean(loader.env, known)}{source} has"
        f" {', '.join(known) or 'none'}; one of your own is a folder there with what differs from conf/base"
        " (docs/own-folder.md)"
    )


def check_groups(loader: AbstractConfigLoader) -> None:
    """Check that the configuration has every group of `--params`: Kedro ignores a group that nothing reads.

    Inside a group the pydantic model refuses a mistyped key.

    Raises:
        ParameterValidationError: If a group is unknown; the message names the nearest and all there are.
    """
    if not loader.runtime_params:
        return
    files_only = type(loader)(conf_source=loader.conf_source, env=loader.env, **settings.CONFIG_LOADER_ARGS)
    known = sorted(files_only["parameters"])
    for group in loader.runtime_params:
        if group not in known:
            hint = MOVED.get(group) or (
                f"{did_you_mean(group, known)}conf/base/parameters_*.yml has {', '.join(known)}"
            )
            raise ParameterValidationError(f"unknown parameter group '{group}' in --params: {hint}")


_RENAMED = {
    "FolderDataset": "PathDataset",
    "HtmlPageDataset": "TextFileDataset",
    "MarkdownDataset": "TextFileDataset",
    "StreamedDataset": "RasterDataset",
}


def check_dataset_types(loader: AbstractConfigLoader) -> None:
    """Check that no catalog entry names a type of `a2mae.io`, which was their place before.

    Raises:
        MovedDatasetError: If one does; the message names its successor.
    """
    for name, entry in loader["catalog"].items():
        kind = str(entry.get("type", "")) if isinstance(entry, dict) else ""
        if kind.startswith("a2mae.io."):
            last = kind.rpartition(".")[2]
            raise MovedDatasetError(
                f"catalog entry '{name}' has the type {kind}, which has moved: write"
                f" a2mae.pipelines.datasets.{_RENAMED.get(last, last)}"
            )


def check_inputs(pipeline: Pipeline, catalog: DataCatalog, project: Path) -> None:
    """Check that every dataset that a run reads and does not itself write is there.

    Raises:
        MissingInputError: If one is not; the message names it and the stage that makes it.
    """
    missing: list[str] = []
    makers: list[str] = []
    for dataset in sorted(pipeline.inputs()):
        entry = tracked(catalog, dataset)
        if entry is None or "://" in entry.filepath or (project / entry.filepath).exists():
            continue
        missing.append(f"'{dataset}' ({os.path.relpath(project / entry.filepath, project)})")
        able = [stage for stage in STAGES if dataset in pipelines[stage].all_outputs()]
        chained = {node.name for node in pipelines["__default__"].nodes}
        makers += [s for s in able if chained.issuperset(node.name for node in pipelines[s].nodes)] or able
    if missing:
        first = ",".join(sorted(set(makers), key=STAGES.index))
        hint = f"first run what makes it, --pipelines={first}, or the whole chain" if first else "no stage makes it"
        raise MissingInputError(
            f"the run reads what is not there: {', '.join(missing)}; {hint}. If it lies elsewhere, set"
            " 'data_root' in conf/<env>/globals.yml or choose its environment by --env"
        )


def check_named_paths(pipeline: Pipeline, catalog: DataCatalog, project: Path) -> None:
    """Check every `OnDiskPath` in the parameter groups that a run's nodes read.

    What lies below an output of this run may be made by it.

    Raises:
        NamedFileError: If one is not there, or is no file or folder of this machine; all of them are named, with the
            key to change.
    """
    may_be_made = _made_by(pipeline, catalog, project)
    missing: list[str] = []
    for key, path in _named_paths(pipeline, catalog):
        if (why := _unfit(path)) is not None:
            missing.append(f"{key} is {path!r}{why}")
        elif not os.path.exists(path) and not may_be_made(path):
            missing.append(f"{key} is {path!r}")
    if missing:
        raise NamedFileError(
            f"no such file or folder: {'; '.join(missing)}. Relative paths start from {Path.cwd()}; set the"
            " parameter to what is there, or to null"
        )


def check_named_rasters(pipeline: Pipeline, catalog: DataCatalog, project: Path) -> None:
    """Check that every raster which is to be embedded or mapped is one: it is opened after hours of other work.

    Raises:
        InputError: If one cannot be opened, or has no CRS in metres.
    """
    may_be_made = _made_by(pipeline, catalog, project)
    for key, path in _named_paths(pipeline, catalog):
        if key.rpartition(".")[2] in _RASTERS and not may_be_made(path):
            from a2mae.tasks.inference.files import header_in_metres

            try:
                header_in_metres(Path(path))
            except InputError as error:
                raise InputError(f"{key}: {error.detail if isinstance(error, RejectedError) else error}") from error


_RASTERS = ("raster", "raster_before")
"""Last parts of the keys that name a raster of which the whole is read."""


def _made_by(pipeline: Pipeline, catalog: DataCatalog, project: Path) -> Callable[[str], bool]:
    """Tell of a path whether it lies below an output of a run."""
    written = [
        (project / entry.path).resolve()
        for name in pipeline.all_outputs()
        if (entry := tracked(catalog, name)) is not None and "://" not in entry.path
    ]
    return lambda path: any(Path(path).resolve().is_relative_to(output) for output in written)


def _unfit(path: str) -> str | None:
    """Say why a text can be no path of a file or folder of this machine; None where it may be one."""
    if is_address(path) or path.startswith("/vsi"):
        return ", an address: download it first"
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        return ", a pipe, a socket or a device"
    return None


def _named_paths(pipeline: Pipeline, catalog: DataCatalog) -> Iterator[tuple[str, str]]:
    """Every path that a parameter names and a node of the run opens, with the parameter's key."""
    nodes = {node.name for node in pipeline.nodes}
    for name in sorted(pipeline.inputs()):
        group, values = name.removeprefix("params:"), catalog.load(name) if name.startswith("params:") else None
        for key, path in values.named_paths() if isinstance(values, Parameters) else ():
            if not (openers := opened_by(group, key)) or not nodes.isdisjoint(openers):
                yield f"{group}.{key}", path


class ModelParametersError(InputError):
    """The model cannot be built, or does not take what the tasks would give it."""


def check_model(pipeline: Pipeline, catalog: DataCatalog, project: Path) -> None:
    """Check that the model can be built, and that the bands of each task fit it, before data are prepared for hours.

    Raises:
        ModelParametersError: If not; every misfit is named.
        CheckpointError: If the model directory is torn.
    """
    nodes = {node.name for node in pipeline.nodes}
    tasks = [task for task in TASKS if f"{task}.prepare_data" in nodes or f"{task}.finetune" in nodes]
    entry = tracked(catalog, "pretrained_model") if "pretrained_model" in pipeline.datasets() else None
    problems: list[str] = []
    for task in list(tasks):
        options = catalog.load(f"params:{task}")
        if options.start is not None:
            from a2mae.tasks.finetune.encoders import check_start

            check_start(options.start, options.bands, task, problems)
            tasks.remove(task)
    if "pretrain" in nodes:
        bands_at_once = _to_be_built(catalog.load("params:pretrain"), problems)
    elif tasks and entry is not None and (project / entry.filepath).exists():
        from a2mae.models.checkpoint import read_config

        kwargs = cast("dict[str, object]", read_config(project / entry.filepath)["kwargs"])
        bands_at_once = None if kwargs.get("bands") == "wavelength" else int(str(kwargs.get("in_chans", 3)))
    else:
        bands_at_once = None
    if tasks and bands_at_once is not None:
        from a2mae.tasks.datasets.inputs import view_width

        for task in tasks:
            try:
                view_width(catalog.load(f"params:{task}").bands, bands_at_once, task)
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise ModelParametersError("; ".join(problems))


def _to_be_built(parameters: PretrainParameters, problems: list[str]) -> int | None:
    """Build the model without its weights, as the training will; say how many bands it takes, where that is known."""
    import torch

    from a2mae.models import create_model

    sampling, options = parameters.sampling, parameters.model_options
    bands = {"rgb": 3, "draw": sampling.bands_drawn}.get(sampling.bands)  # all: as many as the store will have
    if bands is not None:
        try:
            with torch.device("meta"):
                create_model(parameters.model_name, **{"in_chans": bands, **options})
        except (TypeError, ValueError) as error:
            problems.append(f"pretrain.model: {error}")
    return None if options.get("bands") == "wavelength" else bands


def check_embedded(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Check that there is a raster to embed: named, or a scene that some stage has found.

    Raises:
        InputError: If there is none.
    """
    options = catalog.load("params:embed") if "params:embed" in pipeline.datasets() else None
    if options is not None and options.raster is None and "scenes" not in pipeline.datasets():
        raise InputError(
            "embed.raster names no raster and no stage of the chain makes scenes: name one in"
            " conf/<env>/parameters_embed.yml, or take embed out of 'chain'"
        )


def check_outputs(pipeline: Pipeline, catalog: DataCatalog, project: Path) -> None:
    """Check that the folder of every dataset that a run writes can be written to.

    Raises:
        OutputFolderError: If a folder, or what stands in its place, cannot; all of them are named.
    """
    wrong: dict[str, list[str]] = {}
    for dataset in sorted(pipeline.all_outputs()):
        entry = tracked(catalog, dataset)
        if entry is None or "://" in entry.path:
            continue
        found = next(folder for folder in (project / entry.path).absolute().parents if os.path.lexists(folder))
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
