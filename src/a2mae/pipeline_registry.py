"""The registered pipelines, one per stage, and the chain that `kedro run` follows."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

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
    "pictures",
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

_IN_PLACE_OF = ("coregister", "tag", "prune")
"""Stages that make of scenes what `pictures` makes of a folder of pictures."""
FROM_SCENES = tuple(stage for stage in STAGES if stage != "pictures")
"""The longest chain."""
_OF_CHAIN = ("embed", "search", "evaluate", "deliver", "report")
"""Stages that read what the others of the chain make, as far as it makes it; so do the tasks."""


@dataclass(frozen=True)
class TaskForm:
    """What the parameters of a task make of its pipeline.

    Attributes:
        raster: A raster to map is named; otherwise scenes are mapped, where the chain makes any.
        per_image: The head answers once per image: no map is drawn.
        twin: A random_init is trained beside the model.
        started: The encoder is named; otherwise it is the pretrained one.
    """

    raster: bool = True
    per_image: bool = False
    twin: bool = True
    started: bool = False


_AS_IT_IS = TaskForm()
_chain: tuple[str, ...] = FROM_SCENES
_forms: dict[str, TaskForm] = {}


def use_chain(chain: Sequence[str], forms: Mapping[str, TaskForm] | None = None) -> None:
    """Set what `__default__` is made of.

    Args:
        chain: Stage names from the parameter `chain` of the environment.
        forms: Of tasks; None, and tasks that are not in it: that of `TaskForm()`.

    Raises:
        InputError: If a name is not a stage; the message lists those that are.
    """
    global _chain, _forms
    unknown = [name for name in chain if name not in STAGES]
    if unknown:
        near = did_you_mean(unknown[0], STAGES)
        hint = next((MOVED[name] for name in unknown if name in MOVED), f"{near}stages are {', '.join(STAGES)}")
        raise InputError(f"parameter 'chain' names no stage: {', '.join(unknown)}; {hint}")
    if "pictures" in chain and (twice := [name for name in _IN_PLACE_OF if name in chain]):
        raise InputError(
            f"parameter 'chain' names pictures and {', '.join(twice)}, which both make the image sets: leave out"
            " pictures where there are scenes, else the others"
        )
    asked = tuple(chain), dict(forms or {})
    if asked != (_chain, _forms):
        _chain, _forms = asked
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
        form = _forms.get(stage, _AS_IT_IS)
        mapped = (form.raster or "scenes" in made) and not form.per_image
        return create(stage, made, draws_map=mapped, twin=form.twin, started=form.started)
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
