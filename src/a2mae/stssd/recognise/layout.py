"""Choose squares and kinds of image sets for what a folder holds, so that sets come out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from a2mae.sensors import Sensor
from a2mae.stssd.recognise.facts import Product, round_gsd

_SIDES_M = (1920.0, 960.0, 480.0, 240.0, 120.0, 60.0, 30.0, 24.0, 15.0, 12.0)
_SIDES_IN_SCENE = 2.2
"""A scene of so many sides holds a square of the grid, wherever it begins."""
_FEW_SQUARES = 3
_COARSE_PX = 64
"""Squares of pixels of half a kilometre are so many of them wide, where scenes are large enough."""
_SWITCHED_OFF = ("grid", "gf1", "gf2", "aerial")
"""Recipes of conf/base, which ask for sensors by name."""


@dataclass(frozen=True)
class Layout:
    """Squares and recipes.

    Attributes:
        footprint_m: Side of the squares, metres.
        min_scenes: That must cover one.
        recipes: As `coregister.recipes` takes them.
        pool_locations: As `coregister.registration.pool_locations`; None keeps the default.
        why: Sentences that say what was chosen, and what will be in no set.
    """

    footprint_m: float
    min_scenes: int
    recipes: Mapping[str, Mapping[str, object] | None]
    pool_locations: int | None
    why: tuple[str, ...]


def lay_out(products: Sequence[Product], sensors: Sequence[Sensor | None]) -> Layout:
    """Choose squares and recipes.

    Args:
        products: At least one.
        sensors: Of each, None where it is not known yet.
    """
    gsds = [round_gsd(p.gsd_m) if s is None else s.gsd_m for p, s in zip(products, sensors, strict=True)]
    side_m = min(product.side_m for product in products)
    footprint_m = footprint_for(gsds, side_m)
    why = [
        f"squares of {footprint_m:g} m: whole pixels of {', '.join(f'{g:g} m' for g in sorted(set(gsds)))}, and the"
        f" smallest scene is {side_m:.0f} m wide"
    ]
    if footprint_m * _SIDES_IN_SCENE > side_m * 1.01:
        why.append(f"scenes of {side_m:.0f} m are small for such squares: some may hold none")
    dated = [product for product in products if _repeats(product)]
    pairs = [pair for pair in itertools.combinations(products, 2) if _meet(*pair)]
    recipes: dict[str, Mapping[str, object] | None] = dict.fromkeys(_SWITCHED_OFF)
    if pairs:
        recipes["any"] = {"min_sources": 2, "images_per_source": 3, "min_images": 2}
        why.append(f"sets of two sources of one place: {' with '.join(p.name for p in pairs[0])}")
    if dated:
        recipes["dates"] = {
            "single_source": True, "min_sources": 1, "images_per_source": 6, "min_images": 2, "spread": "time",
        }  # fmt: skip
        why.append(f"sets of several dates of one source: {', '.join(p.name for p in dated)}")
    together = {product.name for pair in pairs for product in pair} | {product.name for product in dated}
    alone = [product.name for product in products if product.name not in together]
    if not together:
        recipes["single"] = {"single_source": True, "min_sources": 1, "images_per_source": 1, "min_images": 1}
        why.append("every place is seen once: sets are single images; add dates or a second source of the same place")
    elif alone:
        why.append(f"in no set, because nothing else shows the same place: {', '.join(alone)}")
    return Layout(
        footprint_m=footprint_m,
        min_scenes=2 if together else 1,
        recipes=recipes,
        pool_locations=1 if side_m < _FEW_SQUARES * footprint_m * _SIDES_IN_SCENE else None,
        why=tuple(why),
    )


def footprint_for(gsds_m: Sequence[float], side_m: float) -> float:
    """Choose the side of the squares: a whole number of all pixels, and small enough for the smallest scene.

    Args:
        gsds_m: Pixel sizes of all sensors.
        side_m: Shortest side of the smallest scene.
    """
    step = math.lcm(*(round(gsd * 1000) for gsd in gsds_m)) / 1000
    limit = side_m / _SIDES_IN_SCENE
    for side in _SIDES_M if min(gsds_m) * _COARSE_PX <= _SIDES_M[0] else ():
        if side <= limit and abs(side / step - round(side / step)) < 1e-9:
            return side
    most = max(_SIDES_M[0], _COARSE_PX * min(gsds_m))
    return max(step, math.floor(min(limit, most) / step) * step)


def _repeats(product: Product) -> bool:
    """Whether two dates of a product show one place."""
    return any(
        a != b and one.intersects(other) for (one, a), (other, b) in itertools.combinations(product.outlines[:50], 2)
    )


def _meet(one: Product, other: Product) -> bool:
    return any(
        a.intersection(b).area > 0 for (a, _), (b, _) in itertools.product(one.outlines[:50], other.outlines[:50])
    )
