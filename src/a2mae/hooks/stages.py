"""What the hooks ask of a run: where its outputs lie, which stage a node belongs to, parameters as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from a2mae.pipeline_registry import PACKAGES

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.pipeline.node import Node


def local_data_root(context: KedroContext) -> Path | None:
    """The folder that outputs lie in; None where an environment names none or keeps them elsewhere (`s3://`)."""
    root = context.config_loader["globals"].get("data_root")
    return None if root is None or "://" in root else context.project_path / root


def stage_of(node: Node) -> str:
    """The package that a node belongs to: its namespace, or that of its function."""
    stage = node.namespace or node.func.__module__.split(".")[2]
    assert stage in PACKAGES, f"{node.name} belongs to no stage"
    return stage


def plain(group: object) -> object:
    """A parameter group as plain values: Kedro has made a model of it where a node declares one."""
    return group.model_dump(mode="json") if isinstance(group, BaseModel) else group
