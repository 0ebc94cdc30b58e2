"""From comparisons at places to one shift per scene, and from those to the shift of every image.

A scene's misregistration is nearly the same all over it, so comparisons at several places measure the same number.
Scenes are nodes of a network, comparisons its edges: an edge counts where enough places agree on it, and the scenes'
offsets are the least-squares solution of all edges. An image gets its scene's pooled shift relative to the place's
reference; where the network does not reach, its own trusted comparison; else it stays where the provider put it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import lsmr

from a2mae.registration.pairs import agreement
from a2mae.stssd.coregister.survey import PairMatch, Surveyed

_REFERENCE, _REGISTERED, _NOMINAL = "reference", "registered", "nominal"


@dataclass(frozen=True)
class Offsets:
    """Pooled positions of scenes, each within its own connected part of the network.

    Attributes:
        part: Scene id → number of its part.
        move_m: Scene id → (east, north) move, metres; only differences within a part mean something.
    """

    part: Mapping[str, int]
    move_m: Mapping[str, tuple[float, float]]

    def shift(self, moving: str, fixed: str) -> tuple[float, float] | None:
        """How far `moving` has to be moved to lie on `fixed`; None where the network does not connect them."""
        if moving not in self.part or self.part[moving] != self.part.get(fixed):
            return None
        (x1, y1), (x0, y0) = self.move_m[moving], self.move_m[fixed]
        return x1 - x0, y1 - y0


@dataclass(frozen=True)
class Position:
    """Where an image of a place was put.

    Attributes:
        registration: "reference", "registered" or "nominal".
        shift_x_m: Moved east.
        shift_y_m: Moved north.
        residual_px: Distance between the place's own comparison and the shift applied (the comparison's standard error
            where it was applied itself), pixels of the coarser sensor; None where the place has none.
        quality: 0-1: one minus the height of the second-best peak over the best.
    """

    registration: str
    shift_x_m: float
    shift_y_m: float
    residual_px: float | None
    quality: float


def pool(surveyed: Iterable[Surveyed], *, min_locations: int) -> Offsets:
    """Solve for the scenes' offsets.

    Args:
        surveyed: All places.
        min_locations: An edge counts where at least so many places agree on it.
    """
    pairs: dict[tuple[str, str], list[PairMatch]] = defaultdict(list)
    seen: set[str] = set()
    for place in surveyed:
        if place.location_id in seen:
            continue  # another reference of the same place: the same comparisons
        seen.add(place.location_id)
        for pair in place.matches:
            if pair.trusted:
                pairs[min(pair.moving, pair.fixed), max(pair.moving, pair.fixed)].append(pair)
    edges: list[tuple[str, str, NDArray[np.float64], float]] = []
    for (first, second), found in sorted(pairs.items()):
        # Signed as the move of `first` onto `second`.
        moves = [_signed(pair, first) for pair in found]
        errors = [pair.match.error_m for pair in found]
        agreed = agreement(moves, errors, found[0].coarser_gsd_m, min_places=min_locations)
        if agreed is not None:
            edges.append((first, second, np.array(agreed.move_m), agreed.weight))
    nodes = sorted({scene for edge in edges for scene in edge[:2]})
    index = {scene: k for k, scene in enumerate(nodes)}
    if not edges:
        return Offsets({}, {})
    first_of = np.array([index[edge[0]] for edge in edges])
    second_of = np.array([index[edge[1]] for edge in edges])
    between = np.array([edge[2] for edge in edges])
    root = np.sqrt(np.array([edge[3] for edge in edges]))
    rows = np.arange(len(edges))
    matrix = coo_matrix(
        (np.concatenate([root, -root]), (np.tile(rows, 2), np.concatenate([first_of, second_of]))),
        shape=(len(edges), len(nodes)),
    ).tocsr()
    solution = np.stack([lsmr(matrix, root * between[:, axis], atol=1e-12, btol=1e-12)[0] for axis in (0, 1)], axis=1)
    _, labels = connected_components(
        coo_matrix((np.ones(len(edges)), (first_of, second_of)), shape=(len(nodes), len(nodes))), directed=False
    )
    return Offsets(
        {scene: int(labels[k]) for scene, k in index.items()},
        {scene: (float(solution[k, 0]), float(solution[k, 1])) for scene, k in index.items()},
    )


def positions(place: Surveyed, offsets: Offsets, gsd_m: Mapping[str, float]) -> dict[str, Position]:
    """Where the images of a place go.

    Args:
        place: Its survey.
        offsets: Pooled offsets of the scenes.
        gsd_m: Scene id → GSD of its sensor.

    Returns:
        Scene id → position, for every image of the place.
    """
    own = _own_shifts(place)
    result: dict[str, Position] = {}
    for image in place.images:
        scene = image.scene_id
        if scene == place.reference:
            result[scene] = Position(_REFERENCE, 0.0, 0.0, 0.0, 1.0)
            continue
        coarser = max(gsd_m[scene], gsd_m[place.reference])
        pooled = offsets.shift(scene, place.reference)
        measured = own.get(scene)
        if pooled is None and measured is None:
            result[scene] = Position(_NOMINAL, 0.0, 0.0, None, 0.0)
            continue
        x, y = pooled if pooled is not None else measured.shift_m if measured is not None else (0.0, 0.0)
        residual: float | None = None
        if measured is not None:
            away = math.hypot(measured.shift_m[0] - x, measured.shift_m[1] - y)
            residual = (away if pooled is not None else measured.error_m) / coarser
        result[scene] = Position(_REGISTERED, x, y, residual, measured.quality if measured is not None else 0.5)
    return result


@dataclass(frozen=True)
class _Own:
    shift_m: tuple[float, float]
    error_m: float
    quality: float


def _own_shifts(place: Surveyed) -> dict[str, _Own]:
    """Shifts to the reference from the place's own trusted comparisons, by way of the hub and other images."""
    known: dict[str, _Own] = {place.hub: _Own((0.0, 0.0), 0.0, 1.0)}
    trusted: Sequence[PairMatch] = [pair for pair in place.matches if pair.trusted]
    grown = True
    while grown:
        grown = False
        for pair in trusted:
            if pair.moving in known or pair.fixed not in known:
                continue
            base, found = known[pair.fixed], pair.match
            known[pair.moving] = _Own(
                (base.shift_m[0] + found.shift_x_m, base.shift_m[1] + found.shift_y_m),
                math.hypot(base.error_m, found.error_m),
                min(base.quality, 1.0 - found.ratio),
            )
            grown = True
    if place.reference not in known:
        return {}
    to = known.pop(place.reference)
    return {
        scene: _Own(
            (own.shift_m[0] - to.shift_m[0], own.shift_m[1] - to.shift_m[1]),
            math.hypot(own.error_m, to.error_m),
            min(own.quality, to.quality),
        )
        for scene, own in known.items()
    }


def _signed(pair: PairMatch, first: str) -> tuple[float, float]:
    sign = 1.0 if pair.moving == first else -1.0
    return sign * pair.match.shift_x_m, sign * pair.match.shift_y_m
