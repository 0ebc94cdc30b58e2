"""What happens between the two periods: towns grow, forests are cut, land burns or is flooded, roads are built."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from a2mae.simulate.covers import CLASS_OF_COVER, CODE
from a2mae.simulate.noise import Floats, Points


class ChangeKind(StrEnum):
    """Kinds of lasting change."""

    NEW_TOWN = "new_town"
    CLEAR_CUT = "clear_cut"
    FLOOD = "flood"
    BURN = "burn"
    NEW_ROAD = "new_road"


@dataclass(frozen=True, slots=True)
class Change:
    """One event: an ellipse (or, for a cut, a rectangle; for a road, a band) in which it happens.

    Attributes:
        kind: What happens.
        x_m: Centre, local metres east.
        y_m: Centre, local metres north.
        angle_rad: Direction of the long axis.
        half_length_m: Half the long axis.
        half_width_m: Half the short axis.
    """

    kind: ChangeKind
    x_m: float
    y_m: float
    angle_rad: float
    half_length_m: float
    half_width_m: float

    @property
    def reach_m(self) -> float:
        """Radius outside of which nothing happens."""
        return 1.5 * float(np.hypot(self.half_length_m, self.half_width_m))


@dataclass(frozen=True)
class Painted:
    """What the changes leave to others to draw: `(H, W)` masks of new settlement and new road."""

    new_town: NDArray[np.bool_]
    new_road: NDArray[np.bool_]


_WOODS = (CODE["broadleaf"], CODE["conifer"])
_DRY = (*_WOODS, CODE["meadow"], CODE["range"], CODE["hedge"])
_BUILDABLE = (
    *("meadow", "range", "winter_cereal", "maize", "rapeseed", "roots", "fallow", "track", "hedge"),
    *("orchard_tree", "orchard_floor", "rock", "sand"),
)
_BUILDABLE_CODES = tuple(CODE[name] for name in _BUILDABLE)


def _window(change: Change, points: Points) -> tuple[slice, slice] | None:
    """Rows and columns that a change can reach, or None."""
    reach = change.reach_m
    if not points.separable:
        near = (np.abs(points.x_m - change.x_m) < reach) & (np.abs(points.y_m - change.y_m) < reach)
        rows, columns = np.nonzero(near.any(axis=1))[0], np.nonzero(near.any(axis=0))[0]
    else:
        rows = np.nonzero(np.abs(points.y_m - change.y_m) < reach)[0]
        columns = np.nonzero(np.abs(points.x_m - change.x_m) < reach)[0]
    if rows.size == 0 or columns.size == 0:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def paint_changes(
    changes: tuple[Change, ...], points: Points, cover: NDArray[np.uint8], patch: Floats, *, river_m: Floats
) -> Painted:
    """Apply the changes to the covers.

    Args:
        changes: The events.
        points: The places.
        cover: `(H, W)` cover codes, changed in place.
        patch: `(H, W)` texture that makes outlines ragged.
        river_m: `(H, W)` metres from the river's bank.

    Returns:
        What is left to draw: settlements and roads.
    """
    new_town = np.zeros(points.shape, dtype=bool)
    new_road = np.zeros(points.shape, dtype=bool)
    x, y = points.planes()
    for change in changes:
        window = _window(change, points)
        if window is None:
            continue
        rows, columns = window
        dx = (x[:, columns] if points.separable else x[window]) - np.float32(change.x_m)
        dy = (y[rows] if points.separable else y[window]) - np.float32(change.y_m)
        cos, sin = np.float32(np.cos(change.angle_rad)), np.float32(np.sin(change.angle_rad))
        along = (dx * cos + dy * sin) / np.float32(change.half_length_m)
        across = (dy * cos - dx * sin) / np.float32(change.half_width_m)
        here = cover[window]
        if change.kind is ChangeKind.CLEAR_CUT:
            here[(np.maximum(np.abs(along), np.abs(across)) < 1) & np.isin(here, _WOODS)] = CODE["clear_cut"]
        elif change.kind is ChangeKind.NEW_ROAD:
            new_road[window] |= (np.abs(along) < 1) & (np.abs(across + 0.35 * along**2) < 1)
        else:
            radius = along**2 + across**2
            if change.kind is ChangeKind.BURN:
                here[(radius + 0.5 * patch[window] < 1) & np.isin(here, _DRY)] = CODE["burned"]
            elif change.kind is ChangeKind.NEW_TOWN:
                new_town[window] |= (radius < 1) & np.isin(here, _BUILDABLE_CODES)
            else:
                wet = (radius + 0.3 * patch[window] < 1) & (river_m[window] > 0)
                here[wet & ~np.isin(here, _WOODS)] = CODE["river"]
    return Painted(new_town, new_road)


_SUITABLE: dict[ChangeKind, tuple[int, ...]] = {
    ChangeKind.NEW_TOWN: _BUILDABLE_CODES,
    ChangeKind.CLEAR_CUT: _WOODS,
    ChangeKind.BURN: _DRY,
    ChangeKind.FLOOD: tuple(sorted({*_BUILDABLE_CODES, CODE["reed"]})),
    ChangeKind.NEW_ROAD: tuple(code for code in range(len(CLASS_OF_COVER)) if code != CODE["lake"]),
}


def _draw(rng: np.random.Generator, kind: ChangeKind, x_m: float, y_m: float) -> Change:
    """A change of a kind at a place, of random size and direction."""
    angle = float(rng.uniform(0, np.pi))
    size = float(rng.uniform(0.7, 1.35))
    half = {
        ChangeKind.NEW_TOWN: (230, 170),
        ChangeKind.CLEAR_CUT: (190, 130),
        ChangeKind.BURN: (290, 190),
        ChangeKind.FLOOD: (340, 210),
        ChangeKind.NEW_ROAD: (900, 9),
    }[kind]
    wide = 1.0 if kind is ChangeKind.NEW_ROAD else size
    return Change(kind, x_m, y_m, angle, half[0] * size, half[1] * wide)


def draw_changes(
    rng: np.random.Generator,
    cover: NDArray[np.uint8],
    river_m: Floats,
    *,
    axis_m: NDArray[np.float64],
    half_side_m: float,
    share: float,
) -> tuple[Change, ...]:
    """Place changes where they can happen until about `share` of the region has changed.

    Args:
        rng: Source of randomness.
        cover: `(n, n)` cover codes at lattice nodes, row 0 in the south.
        river_m: `(n, n)` metres from the river's bank at the same nodes.
        axis_m: `(n,)` local x (and y) of the nodes.
        half_side_m: Events are centred within this distance of the region's centre.
        share: Wanted share 0–1 of changed ground.

    Returns:
        The events, in the order in which they happen.
    """
    inside = np.abs(axis_m) < half_side_m
    now = cover.copy()
    axis_points = Points(axis_m, axis_m)
    area = float(inside.sum() ** 2)
    changes: list[Change] = []
    # Cuts, burns and floods follow each other; every third event is a settlement, so that all kinds occur.
    kinds = (
        *(ChangeKind.NEW_TOWN, ChangeKind.CLEAR_CUT, ChangeKind.FLOOD, ChangeKind.NEW_ROAD),
        *(ChangeKind.BURN, ChangeKind.NEW_TOWN, ChangeKind.CLEAR_CUT, ChangeKind.BURN),
    )
    flat = np.zeros_like(cover, dtype=np.float32)
    before = CLASS_OF_COVER[cover]
    for turn in range(400):
        changed = (CLASS_OF_COVER[now] != before)[np.ix_(inside, inside)].sum() / area
        if changed >= share:
            break
        kind = kinds[turn % len(kinds)]
        fit = np.isin(now, _SUITABLE[kind])
        if kind is ChangeKind.FLOOD:
            fit &= (river_m > 0) & (river_m < 250)
        rows, columns = np.nonzero(fit & inside[:, None] & inside[None, :])
        if rows.size == 0:
            continue
        pick = int(rng.integers(rows.size))
        change = _draw(rng, kind, float(axis_m[columns[pick]]), float(axis_m[rows[pick]]))
        painted = paint_changes((change,), axis_points, now, flat, river_m=river_m)
        now[painted.new_town] = CODE["lawn"]
        now[painted.new_road] = CODE["road"]
        changes.append(change)
    return tuple(changes)
