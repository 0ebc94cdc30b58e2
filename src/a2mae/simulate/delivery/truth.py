"""What is really there: land cover and height of trees in both periods on a region's grid, and facts of each scene."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from a2mae.files import whole_file
from a2mae.simulate.delivery.manifest import TRUTH_SCENES, SceneFacts
from a2mae.simulate.ground.covers import CLASS_OF_COVER, CLASSES, COVER_SHIFT, tree_heights_m
from a2mae.simulate.ground.landscape import Landscape
from a2mae.simulate.region import Grid, Region
from a2mae.simulate.scenes import ScenePlan

_SAMPLES = 3  # per axis and truth pixel
TREE_STEP_M = 0.1
"""Stored height of trees 1, metres."""


@dataclass(frozen=True)
class RegionTruth:
    """Truth of one region.

    Attributes:
        grid: Its grid, in the region's zone, covering what scenes cover.
        before: `(H, W)` uint8 land cover before the changes: the class that covers most of a pixel.
        after: The same afterwards.
        trees_before: `(H, W)` uint8 mean height of what stands on a pixel as trees, `TREE_STEP_M` each, before.
        trees_after: The same afterwards.
    """

    grid: Grid
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    trees_before: NDArray[np.uint8]
    trees_after: NDArray[np.uint8]

    @property
    def change(self) -> NDArray[np.uint8]:
        """1 where the class has changed, else 0, `(H, W)`."""
        return np.asarray(self.before != self.after, dtype=np.uint8)


def _majority(fine: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Find the most frequent class of each `factor x factor` block; the smaller value wins a tie."""
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


def _mean_trees(fine: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Average the height of trees over each pixel, in steps of `TREE_STEP_M`."""
    height, width = fine.shape[0] // _SAMPLES, fine.shape[1] // _SAMPLES
    mean = tree_heights_m(fine).reshape(height, _SAMPLES, width, _SAMPLES).mean(axis=(1, 3))
    return np.asarray(np.rint(mean / TREE_STEP_M), dtype=np.uint8)


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
    states = [landscape.states(points, after=after, year=2000, gsd_m=gsd_m / _SAMPLES) for after in (False, True)]
    covers = [_majority(CLASS_OF_COVER[fine >> COVER_SHIFT], _SAMPLES) for fine in states]
    return RegionTruth(grid, *covers, *map(_mean_trees, states))


_SCENE_TRUTH = pa.schema(
    [
        ("scene_id", pa.string()),
        ("region", pa.string()),
        ("sensor", pa.string()),
        ("datetime", pa.timestamp("us", tz="UTC")),
        ("period", pa.string()),
        ("season", pa.string()),
        ("true_shift_x_m", pa.float64()),  # content lies this far east of where the georeference says
        ("true_shift_y_m", pa.float64()),  # and this far north
        ("shift_crs", pa.string()),  # the zone whose metres and axes these are: the region's own
        ("cloud_fraction", pa.float64()),
        ("shadow_fraction", pa.float64()),
        ("nodata_fraction", pa.float64()),
        ("processing_baseline", pa.string()),
        ("refuse", pa.string()),
    ]
)


def write_scene_truth(folder: Path, plans: Iterable[tuple[Region, ScenePlan]], facts: Mapping[str, SceneFacts]) -> str:
    """Write the table of what is true of each scene.

    Args:
        folder: The simulation's folder.
        plans: Every scene with its region.
        facts: What became of each, by scene id.

    Returns:
        The table's path below the folder.
    """
    rows = [
        {
            "scene_id": scene.id,
            "region": scene.region,
            "sensor": scene.sensor_id,
            "datetime": scene.when,
            "period": scene.period,
            "season": scene.season,
            "true_shift_x_m": scene.shift_m[0],
            "true_shift_y_m": scene.shift_m[1],
            "shift_crs": f"EPSG:{region.epsg}",
            "cloud_fraction": facts[scene.id].cloud_fraction,
            "shadow_fraction": facts[scene.id].shadow_fraction,
            "nodata_fraction": facts[scene.id].nodata_fraction,
            "processing_baseline": scene.baseline or None,
            "refuse": scene.refuse,
        }
        for region, scene in plans
    ]
    with whole_file(folder / TRUTH_SCENES) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCENE_TRUTH), temporary)
    return TRUTH_SCENES
