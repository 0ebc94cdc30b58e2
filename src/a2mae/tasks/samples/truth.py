"""The simulated truth on a chip's own grid.

The truth is drawn in the world's frame; pixels are not. A scene's content lies `true_shift` beside where its
georeference says, and the builder moved every registered image onto the reference of its set, which keeps its own
shift. So what an image of the store shows at a position is the truth at that position minus the reference's shift.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from a2mae.simulate.delivery.manifest import Manifest, read_manifest
from a2mae.tasks.samples.task_data import IGNORE, TaskDataError

Layer = Literal["before", "after", "change"]


class Truth:
    """Reads the truth of a simulation.

    Attributes:
        class_names: Land-cover classes; class index i is entry i.
        colors: RGB of each class.
    """

    def __init__(self, folder: Path) -> None:
        """Open the simulation in a folder.

        Raises:
            FileNotFoundError: If there is no finished simulation.
        """
        self._folder = folder
        self._manifest: Manifest = read_manifest(folder)
        self._regions = {region.name: region for region in self._manifest.regions}
        self._scenes = pd.read_parquet(folder / self._manifest.truth_scenes).set_index("scene_id")
        self.class_names = tuple(entry.name for entry in self._manifest.classes)
        self.colors = tuple(entry.color for entry in self._manifest.classes)
        self._index = np.full(256, IGNORE, np.uint8)
        for index, entry in enumerate(self._manifest.classes):
            self._index[entry.value] = index

    def period(self, scene_id: str) -> Literal["before", "after"]:
        """Whether a scene shows the world before or after the changes."""
        return "before" if self._scene(scene_id, "period") == "before" else "after"

    def region(self, scene_id: str) -> str:
        """The region that a scene lies in."""
        return str(self._scene(scene_id, "region"))

    def shift_m(self, scene_id: str) -> tuple[float, float]:
        """How far a scene's content lies east and north of where its georeference says, metres."""
        return float(str(self._scene(scene_id, "true_shift_x_m"))), float(str(self._scene(scene_id, "true_shift_y_m")))

    def on_grid(
        self,
        region: str,
        layer: Layer,
        *,
        crs: str,
        transform: Affine,
        shape: tuple[int, int],
        shift_m: tuple[float, float],
    ) -> npt.NDArray[np.uint8]:
        """The truth as an image shows it: moved by the image's displacement, nearest pixel of the grid.

        Args:
            region: Name of the region.
            layer: Land cover of a period, or the change mask.
            crs: Of the grid.
            transform: Of the grid, pixel to CRS.
            shape: `(H, W)` of the grid.
            shift_m: Displacement of the content, metres east and north.

        Returns:
            `(H, W)` class indices (or 0 and 1 for change), `IGNORE` outside and where nothing is labelled.
        """
        stored, source_transform, source_crs = self._layer(region, layer)
        out = np.full(shape, IGNORE, np.uint8)
        reproject(
            stored,
            out,
            src_transform=Affine.translation(*shift_m) @ source_transform,
            src_crs=source_crs,
            dst_transform=transform,
            dst_crs=crs,
            src_nodata=IGNORE,
            dst_nodata=IGNORE,
            resampling=Resampling.nearest,
        )
        return out

    def _scene(self, scene_id: str, column: str) -> object:
        if scene_id not in self._scenes.index:
            raise TaskDataError(
                f"scene {scene_id!r} is not of the simulation in {self._folder}: its truth belongs to its own scenes."
                " Run simulate, ingest, coregister and tag again in this order"
            )
        return self._scenes.at[scene_id, column]

    @lru_cache(maxsize=32)  # noqa: B019 (a few small rasters; a Truth lives as long as one node)
    def _layer(self, region: str, layer: Layer) -> tuple[npt.NDArray[np.uint8], Affine, CRS]:
        entry = self._regions[region]
        path = self._folder / (entry.change if layer == "change" else entry.land_cover[layer])
        with rasterio.open(path) as source:
            stored = source.read(1)
            return (stored if layer == "change" else self._index[stored]), source.transform, source.crs
