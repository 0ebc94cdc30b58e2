"""Compare two images of one square, and find what comparisons of one pair of scenes agree on.

`compare` chooses the work grid for a pair and looks again in windows at full resolution where that grid is coarse.
`trusted` says whether a comparison is good enough to act on, `agreement` combines those of several locations.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from a2mae.config import RegistrationParameters
from a2mae.registration.correlate import Match, Structure, match, structure, work_gsd_m

_WINDOW_PX = 256  # side of the windows of the second look, in pixels of the pair's coarser sensor
_WINDOW_PLACES = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
_AGREE_PX = 0.35  # of the coarser sensor
_ERROR_FLOOR_PX = 0.02


@dataclass(frozen=True, eq=False)
class BandStack:
    """The compared bands of an image of a square.

    Attributes:
        bands: `(B, H, W)` float32.
        valid: `(H, W)` bool.
        gsd_m: Pixel size, metres.
        size_m: Side of the square, metres.
        datetime: Acquisition time.
    """

    bands: NDArray[np.float32]
    valid: NDArray[np.bool_]
    gsd_m: float
    size_m: float
    datetime: dt.datetime
    _structures: dict[tuple[float, float], Structure] = field(default_factory=dict, repr=False)

    def structure(self, work_gsd: float, blur_gsd_m: float) -> Structure:
        """Return the orientation field on a work grid; it is computed once."""
        key = (work_gsd, blur_gsd_m)
        if key not in self._structures:
            self._structures[key] = structure(
                self.bands, self.valid, gsd_m=self.gsd_m, work_gsd=work_gsd, blur_gsd_m=blur_gsd_m
            )
        return self._structures[key]

    def days_of_year_from(self, other: BandStack) -> int:
        """Return how far apart in the year two pictures are, 0 to 183 days."""
        days = abs(self.datetime.timetuple().tm_yday - other.datetime.timetuple().tm_yday)
        return min(days, 366 - days)

    def window(self, x_m: float, y_m: float, size_m: float) -> BandStack:
        """Cut out a square; offsets from the upper left corner and side (metres) must be whole pixels."""
        column, row, side = (round(value / self.gsd_m) for value in (x_m, y_m, size_m))
        part = np.s_[row : row + side, column : column + side]
        return BandStack(self.bands[:, part[0], part[1]], self.valid[part], self.gsd_m, size_m, self.datetime)


@dataclass(frozen=True)
class PairMatch:
    """A comparison of the images of two scenes at one location.

    Attributes:
        moving: Scene id of the image to be moved.
        fixed: Scene id of the image that it was compared with.
        coarser_gsd_m: GSD of the coarser of the two, metres.
        match: The shift that was found, and how well.
        trusted: Whether it is good enough to act on.
    """

    moving: str
    fixed: str
    coarser_gsd_m: float
    match: Match
    trusted: bool


def compare(fixed: BandStack, moving: BandStack, settings: RegistrationParameters) -> Match | None:
    """Estimate the shift that brings `moving` onto `fixed`.

    Args:
        fixed: Stays where it is.
        moving: Another image of the same square.
        settings: How far to search, and how significant a peak must be for the second look.

    Returns:
        The match in metres; None if there is nothing to compare.
    """
    coarser = max(fixed.gsd_m, moving.gsd_m)
    work = work_gsd_m(coarser, fixed.size_m)
    found = match(
        fixed.structure(work, coarser), moving.structure(work, coarser), max_shift_m=settings.max_shift_px * coarser
    )
    if found is None or work <= 1.01 * coarser or found.at_edge or found.significance < settings.min_significance:
        return found
    return _second_look(fixed, moving, found, coarser) or found


def _second_look(fixed: BandStack, moving: BandStack, first: Match, coarser: float) -> Match | None:
    """Refine a match of large images in windows at the coarser sensor's own resolution."""
    step = math.lcm(*(round(1000 * g) for g in (fixed.gsd_m, moving.gsd_m))) / 1000
    if step > 4 * coarser:
        return None  # pixels of the two grids never meet: windows cannot be cut
    move_x, move_y = (round(value / step) * step for value in (first.shift_x_m, -first.shift_y_m))
    size = _WINDOW_PX * coarser // step * step
    room_x, room_y = (fixed.size_m - size - abs(move) for move in (move_x, move_y))
    if min(room_x, room_y) < 0:
        return None
    found: list[Match] = []
    for part_x, part_y in _WINDOW_PLACES:
        x = part_x * room_x // step * step + max(0.0, -move_x)
        y = part_y * room_y // step * step + max(0.0, -move_y)
        work = work_gsd_m(2 * coarser, size)
        # Content at x of `fixed` lies at x - move of `moving`.
        one = fixed.window(x + move_x, y + move_y, size).structure(work, coarser)
        other = moving.window(x, y, size).structure(work, coarser)
        result = match(one, other, max_shift_m=max(3 * coarser, 4 * first.error_m))
        if result is not None and not result.at_edge and result.significance >= 5:
            found.append(result)
    if len(found) < 2:
        return None
    shifts = np.array([(m.shift_x_m, m.shift_y_m) for m in found])
    middle = np.median(shifts, axis=0)
    distance = np.hypot(*(shifts - middle).T)
    error = float(np.median(distance)) * 1.4826 * 1.25 / math.sqrt(len(found))
    return dataclasses.replace(
        first,
        shift_x_m=float(middle[0]) + move_x,
        shift_y_m=float(middle[1]) - move_y,
        error_m=max(error, min(m.error_m for m in found) / math.sqrt(len(found))),
    )


@dataclass(frozen=True)
class Agreement:
    """A move that several comparisons agree on.

    Attributes:
        move_m: (east, north), metres.
        weight: Weight of the move, 1 / m².
        count: Number of comparisons that agree.
    """

    move_m: tuple[float, float]
    weight: float
    count: int


def trusted(found: Match, coarser_gsd_m: float, settings: RegistrationParameters) -> bool:
    """Return whether a comparison is good enough to act on.

    Args:
        found: The comparison.
        coarser_gsd_m: GSD of the pair's coarser sensor, metres.
        settings: The least that is asked of it.
    """
    return (
        not found.at_edge
        and found.error_m <= settings.max_error_px * coarser_gsd_m
        and found.significance >= settings.min_significance
        and found.known_fraction >= settings.min_known_fraction
    )


def agreement(
    moves_m: Sequence[tuple[float, float]], errors_m: Sequence[float], coarser_gsd_m: float, *, min_count: int
) -> Agreement | None:
    """Average the moves that trusted comparisons agree on, weighted by their errors.

    Args:
        moves_m: (east, north) of each comparison, metres.
        errors_m: Their standard errors, metres.
        coarser_gsd_m: GSD of the pair's coarser sensor, metres.
        min_count: At least this many must agree, and half of all.

    Returns:
        The move; None if too few agree.
    """
    if not moves_m:
        return None
    moves = np.array(moves_m)
    agree = np.hypot(*(moves - np.median(moves, axis=0)).T) <= _AGREE_PX * coarser_gsd_m
    if agree.sum() < max(min_count, math.ceil(len(moves) / 2)):
        return None
    weights = 1 / np.maximum(np.array(errors_m)[agree], _ERROR_FLOOR_PX * coarser_gsd_m) ** 2
    east, north = np.average(moves[agree], axis=0, weights=weights).tolist()
    return Agreement((east, north), float(weights.sum()), int(agree.sum()))
