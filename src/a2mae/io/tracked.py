"""Where a catalog's datasets lie, as DVC and the lineage records see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kedro.io import DataCatalog


@dataclass(frozen=True)
class Tracked:
    """A dataset on disk.

    Attributes:
        path: As the catalog has it, or the folder that its `metadata: dvc: out:` names.
        filepath: As the catalog has it.
        notes: Its `metadata: dvc:`.
    """

    path: str
    filepath: str
    notes: Mapping[str, object]


def tracked(catalog: DataCatalog, dataset: str) -> Tracked | None:
    """What is tracked of a dataset; None for parameters, what stays in memory, and what another entry tracks."""
    if dataset.startswith("params:") or dataset == "parameters":
        return None
    config = catalog.config_resolver.resolve_pattern(dataset)
    path = config.get("filepath") or config.get("path")
    notes = (config.get("metadata") or {}).get("dvc", {})
    if path is None or notes.get("kind") == "untracked":
        return None
    return Tracked(str(notes.get("out", path)), str(path), notes)
