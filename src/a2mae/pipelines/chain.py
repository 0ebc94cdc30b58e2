"""What the stages of a chain make, and its configuration as they see it.

Which datasets of the builder a chain makes: stages that can do without them read what there is.

The configuration as a chain's stages see it: the same for a stage run alone and among the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from kedro.framework.project import pipelines
from kedro.validation.type_extractor import TypeExtractor
from pydantic import BaseModel

BUILT = {"tag": ("image_sets", "images", "sets", "locations"), "simulate": ("simulation", "simulation_folder")}
"""What the builder and the simulation write, by the stage of the chain; tasks cut their samples from it."""
SURVEYED = {"ingest": ("scenes", "sensors")}
"""Likewise, what maps are drawn of."""


def of_chain(made: Mapping[str, Sequence[str]], chain: Sequence[str] | None) -> tuple[str, ...]:
    """The datasets that a chain makes: labels of one's own and a pretrained model need no image sets.

    Args:
        made: Datasets by stage.
        chain: Stages of the environment; None: all.
    """
    return tuple(name for stage, names in made.items() if chain is None or stage in chain for name in names)


def plain_groups(configuration: Mapping[str, object], chain: Sequence[str]) -> dict[str, object]:
    """The groups of the chain as plain values, defaults included.

    Kedro makes models of the groups that the run at hand declares: all of them in one `kedro run`, the report's alone
    where it is a stage of its own (`dvc repro`). The page and its record are the same either way.

    Args:
        configuration: What Kedro gives a node for `parameters`: every group, some of them models.
        chain: The stages of the run; groups that only other stages declare are left out.
    """
    names = tuple(pipelines)
    models, everyones = _models(tuple(name for name in names if name in chain)), _models(names)
    plain: dict[str, object] = {}
    for name, group in configuration.items():
        if name in everyones and name not in models:
            continue  # of a pipeline that had no part in this
        model = models.get(name)
        typed = group if model is None or isinstance(group, BaseModel) else model.model_validate(group)
        plain[name] = typed.model_dump(mode="json") if isinstance(typed, BaseModel) else typed
    return plain


@lru_cache(maxsize=8)
def _models(stages: tuple[str, ...]) -> dict[str, type[BaseModel]]:
    """What the nodes of these stages declare their parameter groups to be; the page and both records ask for it."""
    found = TypeExtractor({name: pipelines[name] for name in stages})
    declared = found.extract_types_from_pipelines()
    return {name: kind for name, kind in declared.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
