"""What is really there, and which scenes are already written.

What is really there: land cover of both periods and what changed, on the region's own grid.

What is already written: one small file per finished scene, so that a run that was cut short goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from a2mae.files import write_json
from a2mae.simulate.ground.covers import CLASS_OF_COVER, CLASSES
from a2mae.simulate.ground.landscape import Landscape
from a2mae.simulate.region import Grid, Region

_SAMPLES = 3  # per axis and truth pixel


@dataclass(frozen=True)
class RegionTruth:
    """Truth of one region.

    Attributes:
        grid: Its grid, in the region's zone, covering what scenes cover.
        before: `(H, W)` uint8 land cover before the changes: the class that covers most of a pixel.
        after: The same afterwards.
    """

    grid: Grid
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]

    @property
    def change(self) -> NDArray[np.uint8]:
        """`(H, W)` 1 where the class has changed, else 0."""
        return np.asarray(self.before != self.after, dtype=np.uint8)


def _majority(fine: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The most frequent class of each `factor x factor` block; the smaller value wins a tie."""
    height, width = fine.shape[0] // factor, fine.shape[1] // factor
    blocks = fine.reshape(height, factor, width, factor)
    best = np.zeros((height, width), dtype=np.uint8)
    most = np.zeros((height, width), dtype=np.uint8)
    for entry in CLASSES:
        count = np.zeros((height, width), dtype=np.uint8)
        for row in range(factor):
            for column in range(factor):
                count += blocks[:, row, :, column] == entry.value
        better = count > most
        best[better] = entry.value
        most[better] = count[better]
    return best


def region_truth(region: Region, landscape: Landscape, *, gsd_m: float) -> RegionTruth:
    """Draw a region's truth.

    Args:
        region: Where.
        landscape: Its ground, with its changes.
        gsd_m: Side of a truth pixel, metres; must divide footprint and margin.
    """
    grid = region.block(gsd_m, margin_m=region.margin_m)
    points = region.local(grid.refine(_SAMPLES))
    # The crop year does not matter: every crop is cropland.
    before, after = (
        _majority(CLASS_OF_COVER[landscape.covers(points, after=after, year=2000, gsd_m=gsd_m / _SAMPLES)], _SAMPLES)
        for after in (False, True)
    )
    return RegionTruth(grid, before, after)


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
