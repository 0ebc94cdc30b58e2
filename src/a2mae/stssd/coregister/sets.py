"""Which scenes of a place make an image set: recipes, seasons, the order in which candidates are tried."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from a2mae.scenes import Scene
from a2mae.stssd.parameters import Recipe

_REMEMBERED = 256  # groups of candidates whose order is kept


@dataclass(frozen=True, slots=True)
class PlannedSet:
    """Scenes that form a set at a place.

    Attributes:
        kind: The recipe's name.
        number: Counts the sets of one kind at the place.
        scenes: Scene ids, in time order.
    """

    kind: str
    number: int
    scenes: tuple[str, ...]


def group(
    candidates: Sequence[Scene],
    recipes: Mapping[str, Recipe | None],
    *,
    lat: float,
    max_candidates: int,
    accept: Callable[[Scene], bool],
) -> list[PlannedSet]:
    """Form the sets of one place.

    Args:
        candidates: Scenes that cover the place.
        recipes: By kind; None switches a kind off.
        lat: Latitude of the place, which decides when its growing season is.
        max_candidates: Scenes tried per source and set.
        accept: Reads the scene at the place and says whether it is good enough; asked only when it matters.

    Returns:
        The sets, recipe by recipe; a scene may serve several kinds.
    """
    sets: list[PlannedSet] = []
    for kind, recipe in recipes.items():
        if recipe is None:
            continue
        sources = _ordered_sources(candidates, recipe, northern=lat >= 0)
        number = 0
        for together in [[source] for source in sources] if recipe.single_source else [sources]:
            for scenes in _sets_of(together, recipe, max_candidates=max_candidates, accept=accept):
                sets.append(PlannedSet(kind, number, scenes))
                number += 1
    return sets


def _sets_of(
    sources: Sequence[tuple[list[Scene], int]],
    recipe: Recipe,
    *,
    max_candidates: int,
    accept: Callable[[Scene], bool],
) -> Iterator[tuple[str, ...]]:
    needed = len(recipe.sources) or recipe.min_sources
    if len(sources) < needed:
        return  # nothing is read at a place that cannot make the set
    picked = [
        _pick(scenes, wanted * recipe.max_sets, tries=max_candidates * recipe.max_sets, accept=accept)
        for scenes, wanted in sources
    ]
    for number in range(recipe.max_sets):
        parts = [
            scenes[number * wanted : (number + 1) * wanted] for scenes, (_, wanted) in zip(picked, sources, strict=True)
        ]
        parts = [part for part in parts if part]
        chosen = _in_turn(parts)[: recipe.max_images]
        if len(parts) < needed or len(chosen) < recipe.min_images:
            return
        ordered = sorted(chosen, key=lambda scene: (scene.datetime, scene.scene_id))
        yield tuple(scene.scene_id for scene in ordered)


def order(scenes: Iterable[Scene], *, lat: float, spread: Literal["seasons", "time"]) -> list[Scene]:
    """The order in which scenes of one source are tried.

    `seasons`: the least cloudy of the growing season, of the other, and so on in turn. `time`: the first, the last,
    then always the one farthest in time from all before it. Ties go to the less cloudy, then to the smaller id.
    """

    def by_cloud(scene: Scene) -> tuple[float, dt.datetime, str]:
        return (50.0 if scene.cloud_cover_pct is None else scene.cloud_cover_pct, scene.datetime, scene.scene_id)

    ranked = sorted(scenes, key=by_cloud)
    if spread == "seasons":
        growing = [scene for scene in ranked if in_growing_season(scene.datetime, lat)]
        dormant = [scene for scene in ranked if not in_growing_season(scene.datetime, lat)]
        return _in_turn([growing, dormant])
    left = sorted(ranked, key=lambda scene: (scene.datetime, *by_cloud(scene)))
    chosen: list[Scene] = []
    for scene in (left[0], left[-1]) if left else ():
        if scene not in chosen:
            chosen.append(scene)
    times = {scene.scene_id: scene.datetime.timestamp() for scene in left}
    rest = [scene for scene in left if scene not in chosen]
    gap = {s.scene_id: min((abs(times[s.scene_id] - times[c.scene_id]) for c in chosen), default=0.0) for s in rest}
    while rest:
        best = max(rest, key=lambda scene: (gap[scene.scene_id], *(-by_cloud(scene)[0],)))
        chosen.append(best)
        rest.remove(best)
        for scene in rest:
            gap[scene.scene_id] = min(gap[scene.scene_id], abs(times[scene.scene_id] - times[best.scene_id]))
    return chosen


def in_growing_season(when: dt.datetime, lat: float) -> bool:
    """April to September north of the equator, October to March south of it."""
    northern_summer = 4 <= when.month <= 9
    return northern_summer if lat >= 0 else not northern_summer


_remembered: OrderedDict[tuple[object, ...], tuple[object, list[tuple[list[Scene], int]]]] = OrderedDict()


def _ordered_sources(candidates: Sequence[Scene], recipe: Recipe, *, northern: bool) -> list[tuple[list[Scene], int]]:
    """Scenes of every source in the order they are tried, and wanted number; neighbouring places share them."""
    key = (id(recipe), northern, *map(id, candidates))
    if key in _remembered:
        _remembered.move_to_end(key)
        return _remembered[key][1]
    lat = 1.0 if northern else -1.0
    found = [
        (order(scenes, lat=lat, spread=recipe.spread), wanted) for scenes, wanted in _sources(candidates, recipe, lat)
    ]
    _remembered[key] = ((recipe, tuple(candidates)), found)  # kept alive, so that an id stays theirs
    if len(_remembered) > _REMEMBERED:
        _remembered.popitem(last=False)
    return found


def _sources(candidates: Sequence[Scene], recipe: Recipe, lat: float) -> list[tuple[list[Scene], int]]:
    """Scenes and wanted number per source; fewer than asked for if a source is absent."""
    if not recipe.sources:
        sensors = sorted({scene.sensor for scene in candidates})
        return [([s for s in candidates if s.sensor == sensor], recipe.images_per_source) for sensor in sensors]
    found = [
        (
            [
                s
                for s in candidates
                if rule.fits(s.sensor)
                and (rule.season == "any" or in_growing_season(s.datetime, lat) == (rule.season == "growing"))
            ],
            rule.images,
        )
        for rule in recipe.sources
    ]
    return [(scenes, wanted) for scenes, wanted in found if scenes]


def _pick(ordered: Sequence[Scene], wanted: int, *, tries: int, accept: Callable[[Scene], bool]) -> list[Scene]:
    picked: list[Scene] = []
    for scene in ordered[:tries]:
        if len(picked) == wanted:
            break
        # Two products of one overpass (overlapping tiles) are one image of the place.
        if any(scene.sensor == p.sensor and abs(scene.datetime - p.datetime) < dt.timedelta(hours=1) for p in picked):
            continue
        if accept(scene):
            picked.append(scene)
    return picked


def _in_turn(lists: Sequence[Sequence[Scene]]) -> list[Scene]:
    longest = max((len(scenes) for scenes in lists), default=0)
    return [scenes[k] for k in range(longest) for scenes in lists if k < len(scenes)]
