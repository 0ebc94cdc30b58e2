"""What is really there: land cover of both periods and what changed, on the region's own grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
