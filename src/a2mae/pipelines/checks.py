"""What is refused before a run's first node: mistyped names, inputs nobody has made, outputs nobody could write.

Hours may lie between the start of a run and the node that would stumble.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import yaml
from kedro.framework.project import pipelines, settings
from kedro.io import DataCatalog
from kedro.validation.exceptions import ParameterValidationError
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

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


class EnvironmentFilesError(InputError):
    """An environment's files say what nothing reads, or write into another's data."""


_KINDS = ("parameters", "catalog", "globals", "credentials", "logging")


def check_environment_files(loader: AbstractConfigLoader) -> None:
    """Check an environment's files as the command line is checked: Kedro passes over what nothing reads.

    Raises:
        EnvironmentFilesError: If a file is no YAML, or its name or a group is read by nobody, or the environment writes
            into the data of another one; all of these are named, with what is nearest.
    """
    source = Path(loader.conf_source)
    name = loader.env or "local"
    found = read_files(source, name)
    if not (source / name).is_dir() or name == "base":
        return
    problems = [*_unread(source, name, found), *_shared_data(source, name, found)]
    if problems:
        raise EnvironmentFilesError(f"environment '{name}': {'; '.join(problems)}")


def _unread(source: Path, name: str, found: Mapping[Path, Mapping[str, object]]) -> Iterator[str]:
    """Say which files and groups of an environment nothing reads."""
    base = [path for path in found if path.is_relative_to(source / "base")]
    groups = {group for path in base if path.name.startswith(_KINDS[0]) for group in found[path]}
    known = sorted({path.name for path in base})
    for path in _files(source / name):
        shown = path.relative_to(source.parent)
        if not any(part.startswith(_KINDS) for part in path.relative_to(source / name).parts):
            yield (
                f"nothing reads {shown}: {did_you_mean(path.name, known)}the files that are read begin with"
                f" {', '.join(_KINDS)}"
            )
        elif path.name.startswith(_KINDS[0]):
            for group in found[path]:
                if group not in groups and not group.startswith("_"):
                    hint = MOVED.get(group) or f"{did_you_mean(group, groups)}there are {', '.join(sorted(groups))}"
                    yield f"{shown} has the group '{group}', which nothing reads: {hint}"


def _shared_data(source: Path, name: str, found: Mapping[Path, Mapping[str, object]]) -> Iterator[str]:
    """Say whose data an environment would write into; `local` is base with a person's own settings."""
    if name == "local":
        return
    usual = _data_root(source / "base", found)
    own = _data_root(source / name, found) or usual
    if own is None:
        return
    taken = []
    for other in sorted(path.name for path in source.iterdir() if path.is_dir() and path.name not in (name, "local")):
        with suppress(EnvironmentFilesError):  # a broken file of another environment is no matter of this one
            if (_data_root(source / other, found) or usual) == own:
                taken.append(other)
    if taken:
        has_own = any(path.name.startswith("globals") for path in _files(source / name))
        yield (
            f"it writes into {own}, where the outputs of {', '.join(map(repr, taken))} lie"
            f"{'' if has_own else ', because it has no globals.yml'}: put a data_root of its own, for example"
            f" 'data_root: {own}/{name}', into {source.name}/{name}/globals.yml"
        )


def _data_root(folder: Path, found: Mapping[Path, Mapping[str, object]]) -> str | None:
    """Where the files of an environment say that it writes; None where they do not.

    Raises:
        EnvironmentFilesError: If one was not read before and cannot be.
    """
    for path in _files(folder):
        if path.name.startswith("globals"):
            values = found[path] if path in found else read_yaml(path)
            if "data_root" in values:
                return os.path.normpath(os.path.expanduser(str(values["data_root"])))
    return None


def _files(folder: Path) -> list[Path]:
    """The files of a folder of the configuration that Kedro might read."""
    return sorted(path for ending in ("yml", "yaml", "json") for path in folder.rglob(f"*.{ending}"))


def read_files(source: Path, name: str) -> dict[Path, dict[str, object]]:
    """Read every file of an environment and of base.

    Args:
        source: The folder of the configuration.
        name: Of the environment.

    Raises:
        EnvironmentFilesError: For the first that cannot be read.
    """
    return {path: read_yaml(path) for folder in dict.fromkeys(("base", name)) for path in _files(source / folder)}


def read_yaml(path: Path) -> dict[str, object]:
    """Read a file of the configuration as Kedro does, interpolations as they are written.

    Raises:
        EnvironmentFilesError: If it is no YAML, has a key twice, or holds something else than names with values.
    """
    try:
        found = OmegaConf.load(path)
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        why = " ".join(str(getattr(error, "problem", None) or error).split()) or type(error).__name__
        raise EnvironmentFilesError(f"{path} is no YAML that can be read{where} ({why}): correct it") from error
    if not isinstance(found, DictConfig):
        raise EnvironmentFilesError(f"{path} holds a list, expected names with values (name: value): correct it")
    values = OmegaConf.to_container(found)
    return {str(key): value for key, value in cast("dict[object, object]", values).items()}


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
