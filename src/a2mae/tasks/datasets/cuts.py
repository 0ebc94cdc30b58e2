"""Which windows of which images become samples: by place and date, with their truth, within a label budget.

The truth is drawn in the world's frame; pixels are not. The content of a scene lies `true_shift` beside where its
georeference says, and the builder moved every registered image onto the reference of its set, which keeps its own
shift. So an image of the store shows at a position the truth at that position minus the reference's shift.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
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
from a2mae.tasks.data_parameters import SimulatedDataParameters
from a2mae.tasks.datasets.store_samples import Cut, StoreImages, Tables
from a2mae.tasks.datasets.task_data import IGNORE, SPLITS, Quantity, Targets, TaskDataError, is_labelled
from a2mae.tasks.registry import Task
from a2mae.tasks.transitions import decode, encode

Layer = Literal["before", "after", "change", "trees_before", "trees_after"]
TREES = Quantity("tree height", "m")


class Truth:
    """The truth of a simulation.

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
        """Say whether a scene shows the world before or after the changes."""
        return "before" if self._scene(scene_id, "period") == "before" else "after"

    def region(self, scene_id: str) -> str:
        """Return the name of the region that a scene lies in."""
        return str(self._scene(scene_id, "region"))

    def shift_m(self, scene_id: str) -> tuple[float, float]:
        """Return how far a scene's content lies east and north of where its georeference says, metres."""
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
    ) -> Targets:
        """Return the truth as an image shows it: moved by the image's displacement, nearest pixel of the grid.

        Args:
            region: Name of the region.
            layer: Land cover of a period, the change mask, or the height of trees in a period.
            crs: Of the grid.
            transform: Of the grid, pixel to CRS.
            shape: `(H, W)` of the grid.
            shift_m: Displacement of the content, metres east and north.

        Returns:
            `(H, W)` class indices (or 0 and 1 for change), `IGNORE` outside and where nothing is labelled; heights are
            metres (float32), NaN there.
        """
        stored, source_transform, source_crs, step_m = self._layer(region, layer)
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
        return out if step_m is None else np.where(out == IGNORE, np.nan, out * step_m).astype(np.float32)

    def _scene(self, scene_id: str, column: str) -> object:
        if scene_id not in self._scenes.index:
            raise TaskDataError(
                f"scene {scene_id!r} is not of the simulation in {self._folder}: its truth belongs to its own scenes."
                " Run simulate, ingest, coregister and tag again in this order"
            )
        return self._scenes.at[scene_id, column]

    @lru_cache(maxsize=32)  # noqa: B019 (a few small rasters; a Truth lives as long as one node)
    def _layer(self, region: str, layer: Layer) -> tuple[npt.NDArray[np.uint8], Affine, CRS, float | None]:
        """Read a layer with its grid, and metres per count where it holds heights."""
        entry = self._regions[region]
        files = {"change": entry.change}
        files |= {str(period): path for period, path in entry.land_cover.items()}
        files |= {f"trees_{period}": path for period, path in entry.tree_height.items()}
        if layer not in files:
            raise TaskDataError(
                f"the simulation in {self._folder} has no height of trees: it is of an earlier version, simulate again"
                " (kedro run --pipelines=simulate)"
            )
        with rasterio.open(self._folder / files[layer]) as source:
            stored, is_cover = source.read(1), layer in entry.land_cover
            step_m = source.scales[0] if layer.startswith("trees") else None
            return (self._index[stored] if is_cover else stored), source.transform, source.crs, step_m


MIN_PER_CLASS = 4
"""A class with fewer training samples, or without test samples, is left out and named."""


class Cutter(StoreImages):
    """Cuts samples place by place and date by date."""

    def __init__(
        self,
        task: Task,
        tables: Tables,
        truth: Truth,
        parameters: SimulatedDataParameters,
    ) -> None:
        """Prepare.

        Args:
            task: What is predicted.
            tables: What the builder wrote.
            truth: Of the simulation that the scenes came from.
            parameters: Sensors and size of the windows.

        Raises:
            TaskDataError: As `StoreImages`.
        """
        super().__init__(task, tables, parameters)
        self._truth = truth
        self._asked = parameters

    def single(self, *, by_image: bool) -> Iterator[Cut]:
        """Cut windows of single images.

        Args:
            by_image: Take those with one dominant class, which is the target.
        """
        for _, image in self.once().iterrows():
            cover = self._truth_of(image, self._truth.period(str(image["scene_id"])))
            for window in self.usable(self.valid(image)):
                y0, y1, x0, x1 = window
                target = cover[y0:y1, x0:x1]
                if by_image:
                    counts = np.bincount(target[target != IGNORE], minlength=1)
                    if counts.max() < self._asked.min_purity * target.size:
                        continue
                    target = np.array(counts.argmax(), np.uint8)
                yield Cut((image,), window, target, str(image["split"]))

    def heights(self, *, by_image: bool) -> Iterator[Cut]:
        """Cut windows of single images with the height of the trees there.

        Args:
            by_image: Take the mean over the window, where at least `min_valid` of it is known.
        """
        for _, image in self.once().iterrows():
            heights = self._truth_of(image, f"trees_{self._truth.period(str(image['scene_id']))}")
            for window in self.usable(self.valid(image)):
                y0, y1, x0, x1 = window
                target = heights[y0:y1, x0:x1]
                if by_image:
                    known = is_labelled(target)
                    if known.mean() < self._asked.min_valid:
                        continue
                    target = np.array(target[known].mean(), np.float32)
                yield Cut((image,), window, target, str(image["split"]))

    def date_pairs(self, *, transitions: bool = False) -> Iterator[Cut]:
        """Cut windows of date pairs of one place, before and after the changes; both dates on one reference.

        Args:
            transitions: The target is what each pixel was and became (`a2mae.tasks.transitions`), not just whether it
                has changed.
        """
        for _, images in self.registered().groupby("location_id", sort=True):
            period = images["scene_id"].map(lambda scene: self._truth.period(str(scene)))
            before = [image for _, image in images[period == "before"].iterrows()]
            after = [image for _, image in images[period == "after"].iterrows()]
            allowed = (
                (first, second)
                for first, second in product(before, after)
                if self._asked.cross_sensor or first["sensor"] == second["sensor"]
            )
            for first, second in self.pairs(allowed):
                if transitions:
                    was, became = (self._truth_of(second, layer).astype(np.uint8) for layer in ("before", "after"))
                    change: Targets = encode(was, became, len(self._truth.class_names))
                else:
                    change = self._truth_of(second, "change")
                both = set(self.usable(self.valid(second)))
                windows = [window for window in self.usable(self.valid(first)) if window in both]
                for y0, y1, x0, x1 in windows:
                    yield Cut((first, second), (y0, y1, x0, x1), change[y0:y1, x0:x1], str(second["split"]))

    def _truth_of(self, image: pd.Series, layer: str) -> Targets:
        grid = self.grid(image["location_id"])
        return self._truth.on_grid(
            self._truth.region(str(image["scene_id"])),
            layer,  # type: ignore[arg-type]  # one of `Layer`, by the callers
            crs=str(grid.crs),
            transform=grid.affine,
            shape=(self.grid_px, self.grid_px),
            shift_m=displacement_m(image, self.reference, self._truth),
        )


def displacement_m(image: pd.Series, reference: pd.Series, truth: Truth) -> tuple[float, float]:
    """Return how far an image's content in the store lies east and north of the world's frame, metres.

    Args:
        image: A row of the image table.
        reference: `set_id` → scene id of the set's reference.
        truth: Knows every scene's own shift.
    """
    if image["registration"] == "registered":  # moved onto the reference: shares its displacement
        return truth.shift_m(str(reference[image["set_id"]]))
    return truth.shift_m(str(image["scene_id"]))  # the reference itself, or left where its provider put it


def known_classes(
    cuts: Sequence[Cut], names: Sequence[str], *, transitions: bool = False
) -> tuple[list[Cut], list[int]]:
    """Leave out classes that cannot be learned or scored, and renumber the rest.

    Args:
        cuts: With targets as the truth numbers them.
        names: Of all classes of the truth.
        transitions: Targets are pairs of classes (`a2mae.tasks.transitions`).

    Returns:
        The cuts that are left, and the truth's numbers of the classes that were kept, in their new order.

    Raises:
        TaskDataError: If fewer than two classes are left.
    """
    counts = {split: np.zeros(len(names), np.int64) for split in SPLITS}
    for cut in cuts:
        present = np.unique(decode(cut.target.astype(np.uint8), len(names)) if transitions else cut.target)
        counts[cut.split][present[present != IGNORE]] += 1
    kept = [i for i in range(len(names)) if counts["train"][i] >= MIN_PER_CLASS and counts["test"][i] > 0]
    if len(kept) < 2:
        raise TaskDataError(
            f"fewer than two land-cover classes have {MIN_PER_CLASS} training samples and one test sample"
            f" (training: {dict(zip(names, counts['train'].tolist(), strict=True))}); simulate more places"
        )
    renumber = np.full(256, IGNORE, np.uint8)
    renumber[kept] = np.arange(len(kept), dtype=np.uint8)
    if transitions:
        dates = (renumber[np.stack(decode(cut.target.astype(np.uint8), len(names)))] for cut in cuts)
        targets = [encode(was, became, len(kept)) for was, became in dates]
    else:
        targets = [np.asarray(renumber[cut.target]) for cut in cuts]
    renamed = [replace(cut, target=target) for cut, target in zip(cuts, targets, strict=True)]
    return [cut for cut in renamed if cut.target.ndim or cut.target != IGNORE], kept


def balanced(cuts: list[Cut], parameters: SimulatedDataParameters, rng: np.random.Generator) -> list[Cut]:
    """Draw as `budgeted`, with an equal share of the budget for each class."""
    classes = sorted({int(cut.target) for cut in cuts})
    share = {
        name: None if limit is None else max(limit // len(classes), 1)
        for name, limit in (
            ("train", parameters.max_train),
            ("val", parameters.max_test),
            ("test", parameters.max_test),
        )
    }
    chosen: list[int] = []
    for split, label in product(SPLITS, classes):
        rows = np.array([i for i, c in enumerate(cuts) if c.split == split and int(c.target) == label], np.int64)
        chosen += rng.permutation(rows)[: share[split]].tolist()
    return [cuts[i] for i in sorted(chosen)]
