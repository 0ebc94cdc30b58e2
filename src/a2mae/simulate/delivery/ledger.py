"""What is already written: one small file per finished scene, so that a run that was cut short goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from a2mae.files import write_json
from a2mae.simulate.region import Grid

WORK = ".work"
"""Folder of the ledger; gone when the run is complete."""


class FileFacts(BaseModel):
    """One written file: where it is (relative to the simulation's folder), what it holds, its digest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    size: int
    sha256: str
    key: str = ""
    bands: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    dtype: str = ""
    nodata: int = 0
    scale: float = 1.0
    offset: float = 0.0
    grid: Grid | None = None


class SceneFacts(BaseModel):
    """A finished scene, or the finished truth of a region."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    cloud_fraction: float = 0.0
    shadow_fraction: float = 0.0
    nodata_fraction: float = 0.0
    changed_share: float = 0.0
    files: tuple[FileFacts, ...]


def record(folder: Path, facts: SceneFacts) -> SceneFacts:
    """Note that a scene is complete: written after all its files.

    Returns:
        The facts as they will be read back, so that a run and a continued run describe a scene alike.
    """
    write_json(folder / WORK / f"{facts.name}.json", facts.model_dump(mode="json"))
    return SceneFacts.model_validate_json(facts.model_dump_json())


def finished(folder: Path, name: str) -> SceneFacts | None:
    """What is noted about a scene, if it is complete: noted, and every file there with its size."""
    path = folder / WORK / f"{name}.json"
    if not path.exists():
        return None
    try:
        facts = SceneFacts.model_validate_json(path.read_bytes())
    except ValidationError:
        return None  # of another version of this code: the scene is made again
    return facts if all_there(folder, {file.path: file.size for file in facts.files}) else None


def all_there(folder: Path, sizes: Mapping[str, int]) -> bool:
    """Whether every file exists with its size."""
    return all((folder / path).is_file() and (folder / path).stat().st_size == size for path, size in sizes.items())
