"""The `deliver` stage: maps to polygons, areas, styles and STAC items, in a folder that is passed on as it is.

Annotations must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline, node

from a2mae.explore.parameters import DeliverParameters
from a2mae.pipelines.chain import optional_inputs
from a2mae.tasks.registry import Task

MAPPING = tuple(task for task in Task if task.kind.per_pixel and not task.kind.values)
"""Tasks that draw maps of classes."""
_PARTS = ("map", "confidence", "confusion")


def deliver(
    options: DeliverParameters,
    target: Path,
    **outputs: Any,  # noqa: ANN401 (paths and JSON)
) -> Path:
    """Write what people take away from the maps.

    Args:
        options: The `deliver` group.
        target: Folder of the deliverables.
        **outputs: Maps, their confidence and the tasks' confusion counts, by dataset with `_` for `.`.

    Returns:
        The folder.
    """
    from a2mae.explore.deliver import MapOutputs, deliver

    maps = [
        MapOutputs(str(task), task.kind.title, *(outputs[f"{task}_{part}"] for part in _PARTS))
        for task in MAPPING
        if f"{task}_map" in outputs
    ]
    deliver(options, maps, target)
    return target


def create_pipeline(made: Collection[str] | None = None) -> Pipeline:
    """Create the stage's pipeline.

    Args:
        made: Datasets that the stages of the environment's chain make; None: all.
    """
    inputs = {"options": "params:deliver", "target": "deliverables_target"}
    inputs |= optional_inputs(made, *([f"{task}.{part}" for part in _PARTS] for task in MAPPING))
    return Pipeline([node(deliver, inputs=inputs, outputs="deliverables", name="deliver", tags="deliver")])
