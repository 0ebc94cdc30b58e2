"""Class and change maps of whole rasters by finetuned models, window by window with blending."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from odc.geo.geobox import GeoBox
from tqdm import tqdm

from a2mae.tasks.learning.checkpoint import Finetuned
from a2mae.tasks.maps.embed import Windows, normalised
from a2mae.tasks.maps.rasters import Raster, RasterWindows, on_grid_of
from a2mae.tasks.maps.strip_writer import StripWriter
from a2mae.tasks.palette import class_colours
from a2mae.tasks.samples.inputs import TaskBatch
from a2mae.tasks.samples.task_data import IGNORE, TaskDataError
from a2mae.tasks.tiling import Tile, blended_strips, starts

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
FULL_PROBABILITY = 250
"""Stored value of probability 1; 255 is nodata."""


class _Common(TypedDict):
    dtype: str
    grid: GeoBox
    nodata: float
    fingerprint: str
    tags: dict[str, str]


def map_raster(
    finetuned: Finetuned,
    rasters: Sequence[Raster],
    path: Path,
    windows: Windows,
    *,
    device: torch.device,
    model_hash: str = "",
    scores: Mapping[str, object] | None = None,
    probabilities: Path | None = None,
) -> Path:
    """Classes of every pixel, as a uint8 COG with a colour table.

    Args:
        finetuned: A segmenter, with one raster, or a change detector, with two (before, after).
        rasters: The dates; later ones are read on the first one's grid.
        path: Of the COG.
        windows: How the raster is cut.
        device: Where to run.
        model_hash: Goes into the fingerprint: another model starts anew.
        scores: Of the model on its test split, for the tag `TEST_SCORES`; None or empty: no such tag.
        probabilities: Also write every class's probability to this COG: uint8 bands with a scale of 1/250.

    Returns:
        The path. Grid and CRS are the first raster's; what was not seen at every date is nodata (255).

    Raises:
        TaskDataError: If the number of rasters is not the task's, or a sensor is new to the model.
    """
    spec, plan, model = finetuned.spec, finetuned.plan, finetuned.model
    dates = 2 if hasattr(model, "fusion") else 1
    if len(rasters) != dates:
        raise TaskDataError(f"{spec.task} maps need {dates} raster(s), found {len(rasters)}")
    strangers = sorted({raster.sensor for raster in rasters} - set(plan.sensors))
    if strangers:
        raise TaskDataError(
            f"the {spec.task} model knows {', '.join(plan.sensors)}, not {', '.join(strangers)}: set"
            f" {spec.task}.map.sensor"
        )
    first = rasters[0]
    rasters = [first, *(on_grid_of(raster, first) for raster in rasters[1:])]
    rows, columns = first.shape
    patch = model.encoder.patch_size
    patches, overlap = windows.in_patches(patch)
    size, overlap = patches * patch, overlap * patch
    classes_of = len(spec.class_names)
    tags = {"CLASS_NAMES": json.dumps({str(i): name for i, name in enumerate(spec.class_names)})}
    tags["DATES"] = json.dumps([raster.name for raster in rasters])
    if scores:
        tags["TEST_SCORES"] = json.dumps(dict(scores))
    if dates == 2:
        tags["LATER_DATE_MOVED_M"] = json.dumps(rasters[1].shift_m)
    model_settings = [model.config.to_dict(), plan.to_dict(), model_hash]
    settings = [*map(str, rasters), *model_settings, windows.tile_px, windows.overlap_px]
    common: _Common = {
        "dtype": "uint8",
        "grid": first.grid,
        "nodata": IGNORE,
        "fingerprint": hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest(),
        "tags": tags,
    }
    colors = dict(enumerate(class_colours(spec.colors, classes_of)))
    writer = StripWriter(path, bands=1, names=[str(spec.task)], colors=colors, **common)
    chances = None
    if probabilities is not None:
        scales = [1 / FULL_PROBABILITY] * classes_of
        chances = StripWriter(probabilities, bands=classes_of, names=spec.class_names, scales=scales, **common)
    # Two files may have stopped at different rows: go on where both are whole; rows written twice are the same.
    first_row = writer.first_row if chances is None else min(writer.first_row, chances.first_row)
    model.to(device).eval()
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(RasterWindows(raster)) for raster in rasters]

        def predict(tiles: list[Tile]) -> Floats:
            images = np.stack(
                [
                    np.stack(
                        [
                            normalised(*reader.read(tile.row, tile.col, size, size), plan, raster.sensor)
                            for reader, raster in zip(readers, rasters, strict=True)
                        ]
                    )
                    for tile in tiles
                ]
            )
            lonlat = [first.lonlat_deg(tile.row, tile.col, size) for tile in tiles]
            return _probabilities(finetuned, rasters, torch.from_numpy(images).to(device), lonlat)

        strips = blended_strips(
            rows,
            columns,
            classes_of,
            size=size,
            overlap=overlap,
            predict=predict,
            batch=windows.batch_size,
            first_row=first_row,
        )
        total = len(starts(rows, size, overlap))
        for row, strip in tqdm(strips, total=total, desc=f"map {spec.task}", unit="strip", leave=False):
            seen = np.ones(strip.shape[1:], bool)
            for reader in readers:
                seen &= reader.read(row, 0, strip.shape[1], columns)[1]
            classes = strip.argmax(axis=0).astype(np.uint8)
            writer.write(row, np.where(seen, classes, np.uint8(IGNORE))[None])
            if chances is not None:
                counts = np.round(strip * FULL_PROBABILITY).astype(np.uint8)
                chances.write(row, np.where(seen, counts, np.uint8(IGNORE)))
    logger.info("%s map: %d x %d pixels -> %s", spec.task, rows, columns, path.name)
    if chances is not None:
        chances.finish()
    return writer.finish()


@torch.no_grad()
def _probabilities(
    finetuned: Finetuned, rasters: Sequence[Raster], images: torch.Tensor, lonlat_deg: list[tuple[float, float]]
) -> Floats:
    """`(B, T, C, H, W)` → `(B, K, H, W)` class probabilities."""
    count, device = len(images), images.device
    days = [raster.day for raster in rasters]
    day = None
    if all(value is not None for value in days):
        day = torch.tensor([days], dtype=torch.float32, device=device).expand(count, -1)
    batch = TaskBatch(
        images=images,
        gsd_m=torch.full((count,), rasters[0].gsd_m, device=device),
        lonlat_deg=(torch.tensor(lonlat_deg, dtype=torch.float64, device=device) if finetuned.plan.location else None),
        day=day,
        wavelength_nm=torch.tensor(finetuned.plan.center_wavelength_nm, device=device),
        targets=torch.zeros(count, dtype=torch.int64, device=device),
    )
    return finetuned.model(batch).float().softmax(dim=1).cpu().numpy()  # type: ignore[no-any-return]
