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
    "search",
    "evaluate",
    "deliver",
    "report",
)
"""Every stage in the order in which data flows; each is `create_pipeline` of its module in `a2mae.pipelines`."""

_COMPARISON = (
    "the comparison of pretraining methods is no pipeline of this project any more: run `python -m benchmarks.compare"
    " benchmarks/compare/{}.yml` in a checkout (benchmarks/README.md)"
)
MOVED = {
    "compare": _COMPARISON.format("simulated"),
    "compare_folder": _COMPARISON.format("eurosat"),
    "eurosat": _COMPARISON.format("eurosat"),
}
"""Pipelines, environments and parameter groups of earlier versions: what to do instead, as a sentence."""

_OF_CHAIN = ("embed", "search", "evaluate", "deliver", "report")
"""Stages that read what the others of the chain make, as far as it makes it; so do the tasks."""

_chain: tuple[str, ...] = STAGES
_named: frozenset[str] = frozenset(TASKS)
_of_images: frozenset[str] = frozenset()
_alone: frozenset[str] = frozenset()
_started: frozenset[str] = frozenset()


def use_chain(
    chain: Sequence[str],
    named: Collection[str] = TASKS,
    of_images: Collection[str] = (),
    alone: Collection[str] = (),
    started: Collection[str] = (),
) -> None:
    """Set what `__default__` is made of.

    Args:
        chain: Stage names from the parameter `chain` of the environment.
        named: Tasks whose parameters name a raster to map: the others draw maps of scenes, where the chain makes any.
        of_images: Tasks whose parameters choose a head that answers once per image: they draw no maps.
        alone: Tasks whose parameters want no random_init beside the model.
        started: Tasks whose parameters name an encoder: the others start from the pretrained one.

    Raises:
        InputError: If a name is not a stage; the message lists those that are.
    """
    global _chain, _named, _of_images, _alone, _started
    unknown = [name for name in chain if name not in STAGES]
    if unknown:
        near = did_you_mean(unknown[0], STAGES)
        hint = next((MOVED[name] for name in unknown if name in MOVED), f"{near}stages are {', '.join(STAGES)}")
        raise InputError(f"parameter 'chain' names no stage: {', '.join(unknown)}; {hint}")
    asked = (tuple(chain), frozenset(named), frozenset(of_images), frozenset(alone), frozenset(started))
    if asked != (_chain, _named, _of_images, _alone, _started):
        _chain, _named, _of_images, _alone, _started = asked
        project_pipelines.configure("a2mae.pipeline_registry")  # drop what another environment registered


class _Registered(dict[str, Pipeline]):
    """Pipelines by name; one of an earlier version says where it went."""

    def __missing__(self, name: str) -> Pipeline:
        if name in MOVED:
            raise InputError(f"no pipeline '{name}': {MOVED[name]}")
        raise KeyError(name)


def module_of(stage: str) -> str:
    """Name the module that holds a stage's nodes and its `create_pipeline`.

    Args:
        stage: A stage.
    """
    return f"a2mae.pipelines.{'tasks' if stage in TASKS else stage}"


def _create(stage: str, made: Collection[str]) -> Pipeline:
    create: Callable[..., Pipeline] = importlib.import_module(module_of(stage)).create_pipeline
    if stage in TASKS:
        mapped = (stage in _named or "scenes" in made) and stage not in _of_images
        return create(stage, made, draws_map=mapped, twin=stage not in _alone, started=stage in _started)
    return create(made) if stage in _OF_CHAIN else create()


def register_pipelines() -> dict[str, Pipeline]:
    """Register the project's pipelines.

    Returns:
        Each stage by its name, and `__default__`: the environment's chain.
    """
    pipelines = _Registered()
    made: set[str] = set()  # by the chain's stages so far
    with warnings.catch_warnings():
        # `evaluate` and `report` read what the tasks write in their namespaces; Kedro warns of the dot in such names.
        warnings.filterwarnings("ignore", message="One or more dataset names contain")
        for stage in STAGES:
            pipelines[stage] = _create(stage, made)
            if stage in _chain:
                made |= pipelines[stage].all_outputs()
    pipelines["__default__"] = sum((pipelines[stage] for stage in _chain), Pipeline([]))
    return pipelines
