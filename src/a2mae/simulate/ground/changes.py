"""Draw and apply what happens between the two periods: new towns and roads, clear-cuts, fires and floods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from a2mae.simulate.ground.covers import CLASS_OF_COVER, CODE
from a2mae.simulate.ground.land_use import block_centers
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


_FLOOD_REACH_M = 240.0  # from the bank
_FEWEST_NODES = 30  # lattice nodes on which a kind of change must be possible in a cell, about 0.03 km²
_WOODS = (CODE["broadleaf"], CODE["conifer"])
_DRY = (*_WOODS, CODE["meadow"], CODE["range"], CODE["hedge"])
_BUILDABLE = tuple(
    CODE[name]
    for name in (
        *("meadow", "range", "winter_cereal", "maize", "rapeseed", "roots", "fallow", "track", "hedge"),
        *("orchard_tree", "orchard_floor", "rock", "sand"),
    )
)
_FLOODABLE = (*_BUILDABLE, CODE["reed"])


def _window(change: Change, points: Points) -> tuple[slice, slice] | None:
    """Find the rows and columns that a change can reach; None if there are none."""
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
    changes: Sequence[Change],
    points: Points,
    cover: NDArray[np.uint8],
    *,
    patch: Floats,
    river_m: Floats,
    town_angle_rad: float,
) -> Painted:
    """Apply the changes to the covers.

    Args:
        changes: The events.
        points: The places.
        cover: `(H, W)` cover codes, changed in place.
        patch: `(H, W)` texture that makes outlines ragged.
        river_m: `(H, W)` metres from the river's bank.
        town_angle_rad: Direction of the streets: settlements grow by whole blocks.

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
        here_x, here_y = (x[:, columns], y[rows]) if points.separable else (x[window], y[window])
        if change.kind is ChangeKind.NEW_TOWN:
            here_x, here_y = block_centers(here_x, here_y, town_angle_rad)
        along, across = _along_and_across(change, here_x, here_y)
        here = cover[window]
        if change.kind is ChangeKind.CLEAR_CUT:
            here[(np.maximum(np.abs(along), np.abs(across)) < 1) & np.isin(here, _WOODS)] = CODE["clear_cut"]
        elif change.kind is ChangeKind.NEW_ROAD:
            new_road[window] |= (np.abs(along) < 1) & (np.abs(across + 12 * along**2) < 1)
        elif change.kind is ChangeKind.NEW_TOWN:
            new_town[window] |= (along**2 + across**2 < 1) & np.isin(here, _BUILDABLE)
        elif change.kind is ChangeKind.BURN:
            here[(along**2 + across**2 + 0.5 * patch[window] < 1) & np.isin(here, _DRY)] = CODE["burned"]
        else:
            # The river leaves its bed, furthest in the middle of the reach.
            far = _FLOOD_REACH_M * (1 - along**2 - across**2) + 25 * patch[window]
            here[(river_m[window] < far) & np.isin(here, _FLOODABLE)] = CODE["river"]
    return Painted(new_town, new_road)


def _along_and_across(change: Change, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return coordinates along the change's axes, 1 at their ends."""
    dx, dy = x - np.float32(change.x_m), y - np.float32(change.y_m)
    cos, sin = np.float32(np.cos(change.angle_rad)), np.float32(np.sin(change.angle_rad))
    along = (dx * cos + dy * sin) / np.float32(change.half_length_m)
    across = (dy * cos - dx * sin) / np.float32(change.half_width_m)
    return np.asarray(along, np.float32), np.asarray(across, np.float32)


_SUITABLE = {
    ChangeKind.NEW_TOWN: _BUILDABLE,
    ChangeKind.CLEAR_CUT: _WOODS,
    ChangeKind.BURN: _DRY,
    ChangeKind.FLOOD: _FLOODABLE,
    ChangeKind.NEW_ROAD: tuple(code for code in CODE.values() if code != CODE["lake"]),
}
_HALF_AXES_M = {
    ChangeKind.NEW_TOWN: (240.0, 170.0),
    ChangeKind.CLEAR_CUT: (190.0, 130.0),
    ChangeKind.BURN: (290.0, 190.0),
    ChangeKind.FLOOD: (480.0, 480.0),
    ChangeKind.NEW_ROAD: (700.0, 9.0),
}
# Roads change little ground, so they are drawn as often as the others.
_TURNS = (
    *(ChangeKind.NEW_TOWN, ChangeKind.CLEAR_CUT, ChangeKind.FLOOD, ChangeKind.NEW_ROAD),
    *(ChangeKind.BURN, ChangeKind.NEW_TOWN, ChangeKind.CLEAR_CUT, ChangeKind.FLOOD),
)
_CELL_M = 1920.0
_QUIET_SHARE = 0.12  # of cells, in which nothing is made to happen


def _draw(rng: np.random.Generator, kind: ChangeKind, x_m: float, y_m: float) -> Change:
    """Draw a change of a kind at a place, of random size and direction."""
    size = float(rng.uniform(0.7, 1.35))
    length, width = _HALF_AXES_M[kind]
    wide = 1.0 if kind is ChangeKind.NEW_ROAD else size
    return Change(kind, x_m, y_m, float(rng.uniform(0, np.pi)), length * size, width * wide)


def draw_changes(
    rng: np.random.Generator,
    cover: NDArray[np.uint8],
    river_m: Floats,
    *,
    axis_m: NDArray[np.float64],
    half_side_m: float,
    share: float,
    town_angle_rad: float,
) -> tuple[Change, ...]:
    """Place changes where they can happen until about `share` of the region has changed.

    The region is divided into cells of a footprint's size, and the next change goes to the cell that has changed
    least, so that change is spread over the footprints; some cells stay quiet.

    Args:
        rng: Source of randomness.
        cover: `(n, n)` cover codes at lattice nodes, row 0 in the south.
        river_m: `(n, n)` metres from the river's bank at the same nodes.
        axis_m: `(n,)` local x (and y) of the nodes.
        half_side_m: Events are centred within this distance of the region's centre.
        share: Wanted share 0–1 of changed ground.
        town_angle_rad: Direction of the streets.

    Returns:
        The events, in the order in which they happen.
    """
    inside = np.abs(axis_m) < half_side_m
    per_side = max(1, round(2 * half_side_m / _CELL_M))
    band = np.clip(((axis_m + half_side_m) * per_side / (2 * half_side_m)).astype(int), 0, per_side - 1)
    cell = band[:, None] * per_side + band[None, :]
    cell[~(inside[:, None] & inside[None, :])] = per_side**2  # a last cell for what lies outside
    size = np.bincount(cell.ravel(), minlength=per_side**2 + 1)[:-1]
    closed = rng.uniform(size=per_side**2) < (_QUIET_SHARE if per_side > 1 else 0.0)

    points, flat = Points(axis_m, axis_m), np.zeros(cover.shape, dtype=np.float32)
    before, now = CLASS_OF_COVER[cover], cover.copy()
    changes: list[Change] = []
    for turn in range(40 * per_side**2):
        changed = np.bincount(cell.ravel(), weights=(CLASS_OF_COVER[now] != before).ravel())[:-1]
        if closed.all() or changed.sum() >= share * size.sum():
            break
        chosen = int(np.argmin(np.where(closed, np.inf, changed / size)))
        for attempt in range(len(_TURNS)):
            kind = _TURNS[(turn + attempt) % len(_TURNS)]
            fit = (cell == chosen) & np.isin(now, _SUITABLE[kind])
            if kind is ChangeKind.FLOOD:
                fit &= np.abs(river_m) < _FLOOD_REACH_M / 2
            rows, columns = np.nonzero(fit)
            if rows.size > _FEWEST_NODES:
                break
        else:
            closed[chosen] = True
            continue
        pick = int(rng.integers(rows.size))
        change = _draw(rng, kind, float(axis_m[columns[pick]]), float(axis_m[rows[pick]]))
        built = paint_changes([change], points, now, patch=flat, river_m=river_m, town_angle_rad=town_angle_rad)
        now[built.new_town] = CODE["lawn"]
        now[built.new_road] = CODE["road"]
        changes.append(change)
    return tuple(changes)
