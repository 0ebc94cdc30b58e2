"""What hooks and pipelines ask about a chain: what it makes, where that lies, and its parameters as plain values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from kedro.framework.project import pipelines
from kedro.io import DataCatalog
from kedro.validation.type_extractor import TypeExtractor
from pydantic import BaseModel

from a2mae.pipeline_registry import STAGES

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.pipeline.node import Node

IMAGE_SETS = ("sets", "image_sets", "images", "locations")
"""What tasks cut their samples from."""
SIMULATION = ("simulation", "simulation_folder")
"""The truth that they are cut by."""
SCENES = ("scenes", "sensors")
"""What maps are drawn of."""


def optional_inputs(made: Collection[str] | None, *groups: Sequence[str]) -> dict[str, str]:
    """Choose a node's optional inputs: labels of one's own and a pretrained model need no image sets.

    Args:
        made: Datasets that the stages of the environment's chain make; None: all.
        groups: Datasets that are read together, where the chain makes the first of them.

    Returns:
        Each dataset by the name of the node's argument.
    """
    chosen = [name for group in groups if made is None or group[0] in made for name in group]
    return {name.replace(".", "_"): name for name in chosen}


def stage_of(node: Node) -> str:
    """Name the stage that a node belongs to: its namespace, or the module of its function."""
    stage = node.namespace or node.func.__module__.split(".")[2]
    assert stage in STAGES, f"{node.name} belongs to no stage"
    return stage


@dataclass(frozen=True)
class Tracked:
    """A dataset on disk, as DVC and the lineage records see it.

    Attributes:
        path: As the catalog has it, or the folder that its `metadata: dvc: out:` names.
        filepath: As the catalog has it.
        notes: Its `metadata: dvc:`.
    """

    path: str
    filepath: str
    notes: Mapping[str, object]


def tracked(catalog: DataCatalog, dataset: str) -> Tracked | None:
    """Find where a dataset lies; None for parameters, what stays in memory, and what another entry tracks."""
    if dataset.startswith("params:") or dataset == "parameters":
        return None
    config = catalog.config_resolver.resolve_pattern(dataset)
    path = config.get("filepath") or config.get("path")
    notes = (config.get("metadata") or {}).get("dvc", {})
    if path is None or notes.get("kind") == "untracked":
        return None
    return Tracked(str(notes.get("out", path)), str(path), notes)


def local_data_root(context: KedroContext) -> Path | None:
    """Find the folder that outputs lie in; None where an environment names none or keeps them elsewhere (`s3://`)."""
    root = context.config_loader["globals"].get("data_root")
    return None if root is None or "://" in root else context.project_path / root


def plain(group: object) -> object:
    """Turn a parameter group into plain values: Kedro has made a model of it where a node declares one."""
    return group.model_dump(mode="json") if isinstance(group, BaseModel) else group


def plain_groups(configuration: Mapping[str, object], chain: Sequence[str]) -> dict[str, object]:
    """Turn the groups of a chain into plain values, defaults included.

    Kedro makes models of the groups that the run at hand declares: all of them in one `kedro run`, the report's alone
    where it is a stage of its own (`dvc repro`). The page and its record are the same either way.

    Args:
        configuration: What Kedro gives a node for `parameters`: every group, some of them models.
        chain: The stages of the run; groups that only other stages declare are left out.
    """
    names = tuple(pipelines)
    models, everyones = _models(tuple(name for name in names if name in chain)), _models(names)
    groups: dict[str, object] = {}
    for name, group in configuration.items():
        if name in everyones and name not in models:
            continue  # of a pipeline that had no part in this
        model = models.get(name)
        groups[name] = plain(group if model is None or isinstance(group, BaseModel) else model.model_validate(group))
    return groups


@lru_cache(maxsize=8)
def _models(stages: tuple[str, ...]) -> dict[str, type[BaseModel]]:
    """What the nodes of these stages declare their parameter groups to be; the page and both records ask for it."""
    found = TypeExtractor({name: pipelines[name] for name in stages})
    declared = found.extract_types_from_pipelines()
    return {name: kind for name, kind in declared.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
