"""What a simulation wrote: facts about each file while it runs, and at the end the manifest.

From the manifest every other room finds the scenes and their truth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from a2mae.errors import A2maeError, InputError
from a2mae.files import write_json
from a2mae.simulate.ground.covers import CLASSES
from a2mae.simulate.region import Grid

MANIFEST = "manifest.json"
TRUTH_SCENES = "truth/scenes.parquet"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileFacts(_Entry):
    """A written file: its path below the simulation's folder, its digest, and, of a scene's file, what it holds."""

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


class SceneFacts(_Entry):
    """A finished scene, or the finished truth of a region."""

    name: str
    cloud_fraction: float = 0.0
    shadow_fraction: float = 0.0
    nodata_fraction: float = 0.0
    changed_share: float = 0.0
    files: tuple[FileFacts, ...]


class ClassEntry(_Entry):
    """A land-cover class: its stored value, name and display colour."""

    value: int
    name: str
    color: tuple[int, int, int]


class RegionEntry(_Entry):
    """A region and its truth; paths are relative to the manifest's folder."""

    name: str
    biome: str
    lon: float
    lat: float
    crs: str = Field(description="EPSG code of the region's UTM zone; true shifts are in its metres")
    footprints: int = Field(description="per side")
    footprint_m: int
    bounds_m: tuple[float, float, float, float] = Field(description="left, bottom, right, top of the footprints")
    land_cover: dict[Literal["before", "after"], str]
    change: str
    tree_height: dict[Literal["before", "after"], str] = Field(
        default_factory=dict, description="empty: of a simulation before there was one"
    )
    truth_gsd_m: float
    changed_share: float = Field(description="share of the truth grid whose class has changed")


class SceneEntry(_Entry):
    """A scene: its STAC item, its cloud truth, and what a builder must do with it."""

    scene_id: str
    region: str
    sensor: str
    datetime: str
    period: Literal["before", "after"]
    season: Literal["growing", "dormant"]
    item: str
    clouds: str
    refuse: Literal["", "cloud", "nodata"] = Field(description="why a builder must reject it; empty: it should not")


class Manifest(_Entry):
    """Everything a simulation wrote."""

    format: Literal["a2mae-simulation"] = "a2mae-simulation"
    version: Literal[1] = 1
    seed: int
    fingerprint: str = Field(description="sha256 of parameters and simulator code")
    content_hash: str = Field(description="sha256 over the digests of all files")
    catalog: str = "catalog.json"
    truth_scenes: str = TRUTH_SCENES
    classes: tuple[ClassEntry, ...]
    regions: tuple[RegionEntry, ...]
    scenes: tuple[SceneEntry, ...]
    files: dict[str, str] = Field(description="sha256 of every file, by path relative to the manifest")


def class_entries() -> tuple[ClassEntry, ...]:
    """List the land-cover classes as the manifest does."""
    return tuple(ClassEntry(value=entry.value, name=entry.name, color=entry.color) for entry in CLASSES)


def hash_of_files(files: Mapping[str, str]) -> str:
    """Return one SHA-256 for a set of files: over `path digest` lines in the order of paths."""
    lines = "".join(f"{path} {files[path]}\n" for path in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a simulation.

    Args:
        folder: The folder that holds `manifest.json`.

    Raises:
        A2maeError: If there is none: nothing was simulated here, or the run was cut short.
        InputError: If it is torn or of another version.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise A2maeError(f"no {path}: run `kedro run --pipelines=simulate` (again, if it was cut short)")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path} is not a manifest of version 1: delete it and simulate again ({error})") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest: the last file of a run."""
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
