"""Two dates brought onto each other before they are compared: providers put them up to some pixels apart.

A displaced edge looks like change. The training pairs are cut from registered image sets, so a pair of scenes has to be
registered, too, by the same comparison, at windows spread over the ground that both show.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
from collections.abc import Iterator
from dataclasses import replace

from odc.geo.geobox import GeoBox

from a2mae.stssd.registering.agreement import agreement, trusted
from a2mae.stssd.registering.matching import Picture, compare
from a2mae.stssd.registering.parameters import RegistrationParameters
from a2mae.tasks.maps.rasters import Raster, RasterWindows

logger = logging.getLogger(__name__)

_WINDOW_PX = 256  # of the coarser raster
_PER_SIDE = 5
_LEAST_PX = 0.05  # of the coarser raster: what is nearer lies on the other, and is not resampled


def aligned(fixed: Raster, moving: Raster, settings: RegistrationParameters) -> Raster:
    """The second raster moved onto the first, where the two tell how far.

    Args:
        fixed: Stays where it is; its CRS is in metres.
        moving: Of the same ground, on whatever grid and with the same bands.
        settings: How far at most, and what is asked of a comparison.

    Returns:
        `moving` with its `shift_m`; as it was where too few windows agree, which is warned of, or if not `enabled`.
    """
    if not settings.enabled:
        return moving
    coarser = max(fixed.gsd_m, moving.gsd_m)
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
    agreed = agreement(moves, errors, coarser, min_places=min(settings.pool_locations, looked))
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
        -east, -north, agreed.places, looked, "moved" if moved else "left there",
    )  # fmt: skip
    return replace(moving, shift_m=(east, north)) if moved else moving


def _windows(raster: Raster, coarser_gsd_m: float) -> Iterator[tuple[GeoBox, float]]:
    """Squares spread over a raster, each with its side in metres; the whole raster's middle where it is smaller."""
    rows, columns = raster.shape
    side = min(math.ceil(_WINDOW_PX * coarser_gsd_m / raster.gsd_m), rows, columns)
    for top in _spread(rows, side):
        for left in _spread(columns, side):
            yield raster.grid[top : top + side, left : left + side], side * raster.gsd_m


def _spread(length: int, side: int) -> list[int]:
    """First pixels of as many windows as fit, at most `_PER_SIDE`, from edge to edge."""
    count = min(_PER_SIDE, length // side)
    return [round(k * (length - side) / max(count - 1, 1)) for k in range(count)]


def _picture(windows: RasterWindows, raster: Raster, window: GeoBox, side_m: float) -> Picture:
    """A square at the raster's own pixels."""
    side = round(side_m / raster.gsd_m)
    pixels, valid = windows.on(window.zoom_to((side, side)))
    day = dt.datetime.fromtimestamp((raster.day or 0.0) * 86400, dt.UTC)
    return Picture(pixels, valid, side_m / side, side_m, day)
