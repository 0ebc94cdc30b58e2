"""The registered pipelines, one per stage, and the chain that `kedro run` follows."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Collection, Sequence

from kedro.framework.project import pipelines as project_pipelines
from kedro.pipeline import Pipeline

from a2mae.errors import InputError, did_you_mean
from a2mae.tasks.registry import Task

TASKS = tuple(task.value for task in Task)
"""Stages that are one pipeline under different namespaces: `a2mae.pipelines.tasks`."""

STAGES = (
    "simulate",
    "ingest",
    "coregister",
    "tag",
    "prune",
    "pretrain",
    *TASKS,
    "embed",
    "evaluate",
    "report",
)
"""Every stage in the order in which data flows; each is `create_pipeline` of its module in `a2mae.pipelines`."""

EXTRAS = {"compare": "create_pipeline", "compare_folder": "create_folder_pipeline"}
"""Experiments beside the stages, made by functions of `a2mae.pipelines.compare`; a chain may name them."""

_OF_CHAIN = ("embed", "evaluate", "report")
"""Stages that read what the others of the chain make, as far as it makes it; so do the tasks."""

_chain: tuple[str, ...] = STAGES


def use_chain(chain: Sequence[str]) -> None:
    """Set what `__default__` is made of.

    Args:
        chain: Stage names from the parameter `chain` of the environment.

    Raises:
        InputError: If a name is not a stage; the message lists those that are.
    """
    global _chain  # noqa: PLW0603 (Kedro calls register_pipelines() without arguments)
    known = [*STAGES, *EXTRAS]
    unknown = [name for name in chain if name not in known]
    if unknown:
        raise InputError(
            f"parameter 'chain' names no stage: {', '.join(unknown)}; {did_you_mean(unknown[0], known)}stages are"
            f" {', '.join(known)}"
        )
    if tuple(chain) != _chain:
        _chain = tuple(chain)
        project_pipelines.configure("a2mae.pipeline_registry")  # drop what another environment registered


def module_of(stage: str) -> str:
    """Name the module that holds a stage's nodes and its `create_pipeline`.

    Args:
        stage: A stage, or an extra.
    """
    return f"a2mae.pipelines.{'tasks' if stage in TASKS else 'compare' if stage in EXTRAS else stage}"


def _create(stage: str, made: Collection[str]) -> Pipeline:
    create: Callable[..., Pipeline] = importlib.import_module(module_of(stage)).create_pipeline
    if stage in TASKS:
        return create(stage, made)
    return create(made) if stage in _OF_CHAIN else create()


def register_pipelines() -> dict[str, Pipeline]:
    """Register the project's pipelines.

    Returns:
        Each stage and extra by its name, and `__default__`: the environment's chain.
    """
    pipelines: dict[str, Pipeline] = {}
    made: set[str] = set()  # by the chain's stages so far
    with warnings.catch_warnings():
        # `evaluate` and `report` read what the tasks write in their namespaces; Kedro warns of the dot in such names.
        warnings.filterwarnings("ignore", message="One or more dataset names contain")
        for stage in STAGES:
            pipelines[stage] = _create(stage, made)
            if stage in _chain:
                made |= pipelines[stage].all_outputs()
        for name, function in EXTRAS.items():
            pipelines[name] = getattr(importlib.import_module(module_of(name)), function)()
    pipelines["__default__"] = sum((pipelines[stage] for stage in _chain), Pipeline([]))
    return pipelines
