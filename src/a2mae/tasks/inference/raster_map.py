"""Draw maps of classes, change and values of whole rasters by finetuned models, window by window with blending.

Providers put two dates up to some pixels apart, and a displaced edge looks like change. The pairs that a change
detector is trained on are cut from registered image sets, so a pair to be mapped is registered as well (`aligned`), by
the same comparison, at windows spread over the ground that both dates show.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from odc.geo.geobox import GeoBox

from a2mae.config import Precision, RegistrationParameters
from a2mae.models.precision import ComputePrecision
from a2mae.registration.pairs import BandStack, agreement, compare, trusted
from a2mae.tasks.datasets.inputs import TaskBatch
from a2mae.tasks.datasets.task_data import IGNORE, TaskDataError, TaskSpec
from a2mae.tasks.finetune.finetuned import Finetuned
from a2mae.tasks.inference.rasters import Floats, Raster, RasterRows, RasterWindows
from a2mae.tasks.inference.read_map import FULL_PROBABILITY
from a2mae.tasks.inference.strips import Strip, Workers, draw
from a2mae.tasks.tiling import StripWriter, Windows, blended_strips, settled, starts

logger = logging.getLogger(__name__)

_WINDOW_PX = 256  # of the coarser raster
_PER_SIDE = 5
_LEAST_PX = 0.05  # of the coarser raster: a smaller move is left out, and nothing is resampled


def aligned(fixed: Raster, moving: Raster, settings: RegistrationParameters) -> Raster:
    """Move the second raster onto the first.

    Args:
        fixed: Stays where it is; its CRS is in metres.
        moving: The same ground and bands on any grid.
        settings: How far to search, and what is asked of a comparison.

    Returns:
        `moving` with its `shift_m`; unchanged if too few windows agree, which is warned of, or if not `enabled`.
    """
    if not settings.enabled:
        return moving
    coarser = max(fixed.pixel_m, moving.pixel_m)
    moves, errors, looked = [], [], 0
    with RasterWindows(fixed) as fixed_windows, RasterWindows(moving) as moving_windows:
        for window, side_m in _windows(fixed, coarser):
            first = _picture(fixed_windows, fixed, window, side_m)
            second = _picture(moving_windows, moving, window, side_m)
            found = compare(first, second, settings)
            looked += found is not None
            if found is not None and trusted(found, coarser, settings):
                moves.append((found.shift_x_m, found.shift_y_m))
                errors.append(found.error_m)
    agreed = agreement(moves, errors, coarser, min_count=min(settings.pool_locations, looked))
    if agreed is None:
        logger.warning(
            "the later date stays where its provider put it: of %d windows %d tell how far it lies from the earlier"
            " one, and too few of them agree; edges may look like change",
            looked,
            len(moves),
        )
        return moving
    east, north = agreed.move_m
    moved = math.hypot(east, north) >= _LEAST_PX * coarser
    logger.info(
        "the later date lies %.1f m east and %.1f m north of the earlier one by %d of %d windows: %s",
        -east, -north, agreed.count, looked, "moved" if moved else "left there",
    )  # fmt: skip
    return replace(moving, shift_m=(east, north)) if moved else moving


def _windows(raster: Raster, coarser_gsd_m: float) -> Iterator[tuple[GeoBox, float]]:
    """Yield squares spread over a raster, each with its side in metres; a small raster is one square."""
    rows, columns = raster.shape
    side = min(math.ceil(_WINDOW_PX * coarser_gsd_m / raster.pixel_m), rows, columns)
    for top in _spread(rows, side):
        for left in _spread(columns, side):
            yield raster.grid[top : top + side, left : left + side], side * raster.pixel_m


def _spread(length: int, side: int) -> list[int]:
    """First pixels of as many windows as fit, at most `_PER_SIDE`, from edge to edge."""
    count = min(_PER_SIDE, length // side)
    return [round(k * (length - side) / max(count - 1, 1)) for k in range(count)]


def _picture(windows: RasterWindows, raster: Raster, window: GeoBox, side_m: float) -> BandStack:
    """Read a square at the raster's own pixels."""
    side = round(side_m / raster.pixel_m)
    pixels, valid = windows.on(window.zoom_to((side, side)))
    return BandStack(pixels, valid, side_m / side, side_m, _utc(raster.day or 0.0))


def _utc(day: float) -> dt.datetime:
    """Turn days since 1970 into a time, to the second."""
    return dt.datetime.fromtimestamp(round(day * 86400), dt.UTC)


class _Common(TypedDict):
    grid: GeoBox
    fingerprint: str
    tags: dict[str, str]


def map_raster(
    finetuned: Finetuned,
    rasters: Sequence[Raster],
    path: Path,
    windows: Windows,
    *,
    device: torch.device,
    precision: Precision = "32-true",
    model_hash: str = "",
    scores: Mapping[str, object] | None = None,
    confidence: Path | None = None,
    probabilities: Path | None = None,
    before: int = 1,
    workers: Workers | None = None,
) -> Path:
    """Predict every pixel: its class as a uint8 COG with a colour table, or its value as a float32 COG with units.

    Args:
        finetuned: A segmenter or a model of values per pixel, with one raster, or one of two dates, with two (before,
            after).
        rasters: The dates, or the images of a set, or of the set before and the set after; all are read on the first
            one's grid.
        path: Path of the COG.
        windows: How the raster is cut.
        device: Where to run.
        precision: What the model computes in; a map that was begun goes on in what `auto` came to then.
        model_hash: Identifies the model: a map that another one has begun is not continued.
        scores: Scores of the model on its test split, for the tag `TEST_SCORES`; None or empty: no such tag.
        confidence: Also write the probability of the mapped class to this COG, as validation has calibrated it: uint8
            with a scale of 1/250.
        probabilities: Also write every class's probability to this COG: uint8 bands with a scale of 1/250.
        before: How many of the rasters are of the earlier date, where there are two.
        workers: Compute it where it is large enough to be shared; None: it is computed here.

    Returns:
        The path. Grid and CRS are the first raster's; what was not seen at every date, by any image of its set, is
        nodata (255, of values NaN).

    Raises:
        TaskDataError: If the number of rasters is not the task's, or the model does not know a sensor.
    """
    spec, plan, model = finetuned.spec, finetuned.plan, finetuned.model
    dates = spec.task.kind.dates
    is_set = bool(spec.set_sensors)
    if (not is_set and len(rasters) != dates) or len(rasters) < dates:
        raise TaskDataError(f"{spec.task} maps need {dates} raster(s), found {len(rasters)}")
    strangers = sorted({raster.sensor.id for raster in rasters} - set(plan.sensors))
    if strangers:
        raise TaskDataError(
            f"the {spec.task} model knows {', '.join(plan.sensors)}, not {', '.join(strangers)}: set"
            f" {spec.task}.map.sensor"
        )
    first = rasters[0]
    rasters = [first, *(replace(raster, grid=first.grid) for raster in rasters[1:])]
    patch = model.encoder.patch_size
    patches, overlap = windows.in_patches(patch)
    size, overlap = patches * patch, overlap * patch
    tags = {}
    if spec.quantity is None:
        tags["CLASS_NAMES"] = json.dumps({str(i): name for i, name in enumerate(spec.label_names)})
    tags["DATES"] = json.dumps([raster.name for raster in rasters])
    tags["DATETIMES"] = json.dumps([None if raster.day is None else _utc(raster.day).isoformat() for raster in rasters])
    if scores:
        tags["TEST_SCORES"] = json.dumps(dict(scores))
    if dates == 2:
        tags["LATER_DATE_MOVED_M"] = json.dumps(rasters[before].shift_m)
    if before > 1:
        tags["EARLIER_DATES"] = str(before)
    model_settings = [model.config.to_dict(), plan.to_dict(), model_hash]
    settings = [*map(str, rasters), *model_settings, windows.tile_px, windows.overlap_px, *([before] * (before > 1))]
    computed, fingerprint = settled(path, settings, precision, device)
    common: _Common = {"grid": first.grid, "fingerprint": fingerprint, "tags": tags}
    writers = _writers(path, confidence, probabilities, spec, common)
    drawing = _MapDrawing(
        f"{spec.task} map", tuple(rasters), before, tuple(writers), size, overlap, windows.batch_size, computed
    )
    draw(drawing, finetuned, writers, path, fingerprint, device=device, workers=workers)
    logger.info("%s map: %d x %d pixels -> %s", spec.task, *first.shape, path.name)
    return path


@dataclass(frozen=True)
class _MapDrawing:
    """A map that is computed strip by strip.

    Attributes:
        name: What it is, for the log.
        rasters: On one grid, those of the earlier date first.
        before: How many these are, where there are two dates.
        files: What is written: `map`, `confidence`, `probabilities`.
        size: Side of a window, pixels.
        overlap: Shared by neighbouring windows, pixels.
        batch: Windows per forward pass.
        precision: What the model computes in.
    """

    name: str
    rasters: tuple[Raster, ...]
    before: int
    files: tuple[str, ...]
    size: int
    overlap: int
    batch: int
    precision: ComputePrecision

    @property
    def first_rows(self) -> list[int]:
        """First row of each row of windows."""
        return starts(self.rasters[0].shape[0], self.size, self.overlap)

    def strips(
        self, model: Finetuned, device: torch.device, first_row: int, last_row: int | None
    ) -> Iterator[tuple[int, Strip]]:
        """Yield rows of every file, as `Drawing` has it."""
        spec, plan, rasters, size = model.spec, model.plan, list(self.rasters), self.size
        first, (rows, columns) = rasters[0], rasters[0].shape
        config, is_set = model.model.config, bool(spec.set_sensors)
        model.model.on(device, self.precision).eval()
        of_date = [rasters] if spec.task.kind.dates == 1 else [rasters[: self.before], rasters[self.before :]]
        of_interest = [row for row in self.first_rows if last_row is None or row < last_row]
        with RasterRows(rasters, plan, size, of_interest, max(columns, size)) as reader:

            def predict(row: int, cols: list[int]) -> Floats:
                read = _filled_up(*reader.windows(row, cols), [len(some) for some in of_date])
                images, valid = (torch.from_numpy(one).to(device) for one in read)
                lonlat = [first.lonlat_deg(row, col, size) for col in cols] if plan.location else []
                return _answers(model, of_date, images, lonlat, valid if is_set else None)

            strips = blended_strips(
                rows,
                columns,
                config.outputs,
                size=size,
                overlap=self.overlap,
                predict=predict,
                batch=self.batch,
                first_row=first_row,
                last_row=last_row,
                name=self.name,
            )
            for row, strip in strips:
                shown = reader.valid(row, strip.shape[1])
                by_date = [shown] if len(of_date) == 1 else [shown[: self.before], shown[self.before :]]
                seen = np.logical_and.reduce([one.any(axis=0) for one in by_date])
                found: dict[str, npt.NDArray[Any]] = {"map": strip}
                if spec.quantity is None:
                    answers, sure = (one.numpy() for one in config.decided(torch.from_numpy(strip[None])))
                    confidence_of, counts = (np.round(one * FULL_PROBABILITY).astype(np.uint8) for one in (sure, strip))
                    found = {"map": answers, "confidence": confidence_of, "probabilities": counts}
                yield row, {name: np.where(seen, found[name], spec.unlabelled) for name in self.files}


def _writers(
    path: Path, confidence: Path | None, probabilities: Path | None, spec: TaskSpec, common: _Common
) -> dict[str, StripWriter]:
    """Start or continue the files of a map: classes with colours and probabilities, or values with their units."""
    if spec.quantity is not None:
        name, units = spec.quantity.name, spec.quantity.units
        nan = float("nan")
        return {"map": StripWriter(path, bands=1, names=[name], units=units, dtype="float32", nodata=nan, **common)}

    colors = dict(enumerate(spec.label_colors))
    names = [str(spec.task)]
    writers = {"map": StripWriter(path, bands=1, names=names, colors=colors, dtype="uint8", nodata=IGNORE, **common)}
    chances = {"confidence": (confidence, ["probability of the mapped class"])}
    chances["probabilities"] = probabilities, _probability_names(spec)
    for name, (file, bands) in chances.items():
        if file is not None:
            scales = [1 / FULL_PROBABILITY] * len(bands)
            writers[name] = StripWriter(
                file, bands=len(bands), names=bands, scales=scales, dtype="uint8", nodata=IGNORE, **common
            )
    return writers


def _probability_names(spec: TaskSpec) -> list[str]:
    if not spec.task.kind.transitions:
        return list(spec.class_names)
    dates = [f"{date}: {name}" for date in ("before", "after") for name in spec.class_names]
    return [*dates, "unchanged", "changed"]


def _filled_up(
    images: Floats, valid: npt.NDArray[np.bool_], counts: Sequence[int]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Give every date as many images as the one that has most: `(B, T, C, H, W)` and where they are valid."""
    most = max(counts)
    slots = [date * most + number for date, count in enumerate(counts) for number in range(count)]
    if len(slots) == len(counts) * most:
        return images, valid
    filled = np.zeros((len(images), len(counts) * most, *images.shape[2:]), np.float32)
    shown = np.zeros((len(valid), len(counts) * most, *valid.shape[2:]), bool)
    filled[:, slots], shown[:, slots] = images, valid
    return filled, shown


@torch.no_grad()
def _answers(
    finetuned: Finetuned,
    of_date: Sequence[Sequence[Raster]],
    images: torch.Tensor,
    lonlat_deg: list[tuple[float, float]],
    valid: torch.Tensor | None,
) -> Floats:
    """Probabilities `(B, outputs, H, W)`, or values `(B, 1, H, W)`, of images `(B, T, C, H, W)`."""
    count, device, plan = len(images), images.device, finetuned.plan
    most = max(map(len, of_date))
    days = [(*some, *[some[0]] * most)[number].day for some in of_date for number in range(most)]
    day = None
    if all(value is not None for value in days):
        day = torch.tensor([days], dtype=torch.float32, device=device).expand(count, -1)
    wavelength = torch.tensor(plan.wavelength_nm, device=device)
    if valid is not None:
        sensors = [
            number
            for some in of_date
            for number in (*(plan.sensors.index(one.sensor.id) for one in some), *[-1] * (most - len(some)))
        ]
        wavelength = torch.tensor([plan.wavelengths_of(number) for number in sensors], device=device)
        wavelength = wavelength.expand(count, -1, -1)
    batch = TaskBatch(
        images=images,
        gsd_m=torch.full((count,), of_date[0][0].gsd_m, device=device),
        lonlat_deg=(torch.tensor(lonlat_deg, dtype=torch.float64, device=device) if plan.location else None),
        day=day,
        wavelength_nm=wavelength,
        targets=torch.zeros(count, dtype=torch.int64, device=device),
        valid=valid,
    )
    outputs = finetuned.model(batch).float()
    config = finetuned.model.config
    found = config.probabilities(outputs) if config.scaling is None else config.scaling.values(outputs)
    return np.asarray(found.cpu().numpy())
