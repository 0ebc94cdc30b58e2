"""Pool comparisons at many locations into one offset per scene, and turn the offsets into the shift of every image.

A scene is misplaced by nearly the same amount all over, so comparisons at several locations measure the same number.
Scenes are the nodes of a network and comparisons its edges. An edge counts where enough locations agree on it, and the
offsets of the scenes are the least-squares solution over all edges. An image is moved by its scene's pooled offset
relative to the reference of its location. Where the network does not connect the two, the location's own trusted
comparison is used; where there is none, the image stays where its provider put it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from a2mae.products import least_squares
from a2mae.registration.pairs import Agreement, PairMatch, agreement

_REFERENCE, _REGISTERED, _NOMINAL = "reference", "registered", "nominal"


@dataclass(frozen=True)
class Offsets:
    """Pooled offsets of scenes, each within its own connected part of the network.

    Attributes:
        part: Scene id to the number of its part.
        move_m: Scene id to its (east, north) move in metres; only differences within a part have a meaning.
    """

    part: Mapping[str, int]
    move_m: Mapping[str, tuple[float, float]]

    def shift(self, moving: str, fixed: str) -> tuple[float, float] | None:
        """Return the (east, north) move in metres that brings `moving` onto `fixed`; None if they are not connected."""
        if moving not in self.part or self.part[moving] != self.part.get(fixed):
            return None
        (x1, y1), (x0, y0) = self.move_m[moving], self.move_m[fixed]
        return x1 - x0, y1 - y0


@dataclass(frozen=True)
class Position:
    """Where an image of a location was put.

    Attributes:
        registration: "reference", "registered" or "nominal".
        shift_x_m: Move to the east, metres.
        shift_y_m: Move to the north, metres.
        residual_px: Distance between the location's own comparison and the shift that was applied, in pixels of the
            coarser sensor; the comparison's standard error if it was applied itself; None if the location has none.
        quality: 0 to 1: one minus the height of the second-best correlation peak over the best.
    """

    registration: str
    shift_x_m: float
    shift_y_m: float
    residual_px: float | None
    quality: float


def pool(locations: Iterable[Iterable[PairMatch]], *, min_locations: int) -> Offsets:
    """Solve for the offsets of scenes.

    Args:
        locations: Comparisons made at each location; those that are not trusted are passed over.
        min_locations: An edge counts where at least this many locations agree on it.

    Returns:
        Offsets of the scenes that have an edge.
    """
    pairs: dict[tuple[str, str], list[PairMatch]] = defaultdict(list)
    for matches in locations:
        for pair in matches:
            if pair.trusted:
                pairs[min(pair.moving, pair.fixed), max(pair.moving, pair.fixed)].append(pair)
    edges: dict[tuple[str, str], Agreement] = {}
    for (first, second), found in sorted(pairs.items()):
        moves = [_move_of(first, pair) for pair in found]
        errors = [pair.match.error_m for pair in found]
        agreed = agreement(moves, errors, found[0].coarser_gsd_m, min_count=min_locations)
        if agreed is not None:
            edges[first, second] = agreed
    if not edges:
        return Offsets({}, {})
    scenes = sorted({scene for edge in edges for scene in edge})
    index = {scene: k for k, scene in enumerate(scenes)}
    first_of, second_of = np.array([[index[first], index[second]] for first, second in edges]).T
    between = np.array([edge.move_m for edge in edges.values()])
    root = np.sqrt(np.array([edge.weight for edge in edges.values()]))
    rows = np.arange(len(edges))
    matrix = coo_array(
        (np.concatenate([root, -root]), (np.tile(rows, 2), np.concatenate([first_of, second_of]))),
        shape=(len(edges), len(scenes)),
    ).tocsr()
    east, north = (least_squares(matrix, root * between[:, axis]).tolist() for axis in (0, 1))
    graph = coo_array((np.ones(len(edges)), (first_of, second_of)), shape=(len(scenes), len(scenes)))
    _, part = connected_components(graph, directed=False)
    return Offsets(
        dict(zip(scenes, part.tolist(), strict=True)),
        dict(zip(scenes, zip(east, north, strict=True), strict=True)),
    )


def _move_of(first: str, pair: PairMatch) -> tuple[float, float]:
    """The move of `first` onto the other scene of a pair."""
    sign = 1.0 if pair.moving == first else -1.0
    return sign * pair.match.shift_x_m, sign * pair.match.shift_y_m


def positions(
    scenes: Iterable[str],
    matches: Sequence[PairMatch],
    offsets: Offsets,
    gsd_m: Mapping[str, float],
    *,
    reference: str,
    hub: str,
) -> dict[str, Position]:
    """Decide where the images of a location go.

    Args:
        scenes: Scene ids of the images.
        matches: Comparisons made at the location.
        offsets: Pooled offsets of the scenes.
        gsd_m: Scene id to the GSD of its sensor, metres.
        reference: Scene id of the image that the others are moved to.
        hub: Scene id of the image that the others were compared with first.

    Returns:
        Scene id to position, for every image.
    """
    own = _own_shifts(matches, reference=reference, hub=hub)
    result: dict[str, Position] = {}
    for scene in scenes:
        if scene == reference:
            result[scene] = Position(_REFERENCE, 0.0, 0.0, 0.0, 1.0)
            continue
        coarser = max(gsd_m[scene], gsd_m[reference])
        pooled = offsets.shift(scene, reference)
        measured = own.get(scene)
        if pooled is not None and measured is not None:
            away = math.hypot(measured.shift_m[0] - pooled[0], measured.shift_m[1] - pooled[1])
            result[scene] = Position(_REGISTERED, *pooled, away / coarser, measured.quality)
        elif pooled is not None:
            result[scene] = Position(_REGISTERED, *pooled, None, 0.5)
        elif measured is not None:
            result[scene] = Position(_REGISTERED, *measured.shift_m, measured.error_m / coarser, measured.quality)
        else:
            result[scene] = Position(_NOMINAL, 0.0, 0.0, None, 0.0)
    return result


@dataclass(frozen=True)
class _Own:
    shift_m: tuple[float, float]
    error_m: float
    quality: float


def _own_shifts(matches: Sequence[PairMatch], *, reference: str, hub: str) -> dict[str, _Own]:
    """Shifts to the reference by the location's own trusted comparisons, by way of the hub and other images."""
    known: dict[str, _Own] = {hub: _Own((0.0, 0.0), 0.0, 1.0)}
    trusted = [pair for pair in matches if pair.trusted]
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
    if reference not in known:
        return {}
    to = known.pop(reference)
    return {
        scene: _Own(
            (own.shift_m[0] - to.shift_m[0], own.shift_m[1] - to.shift_m[1]),
            math.hypot(own.error_m, to.error_m),
            min(own.quality, to.quality),
        )
        for scene, own in known.items()
    }
