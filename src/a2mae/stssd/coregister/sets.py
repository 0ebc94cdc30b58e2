"""Choose the scenes of a location that make its image sets.

A recipe names the sources of a set. The scenes of each source are tried in an order that spreads them over seasons or
over time, until enough of them pass the quality gate. Nothing is read here: the caller's `accept` does that.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from a2mae.scenes import Scene
from a2mae.stssd.parameters import Recipe, SourceRule

_REMEMBERED = 256  # groups of candidates whose order is kept
_ONE_OVERPASS = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PlannedSet:
    """Scenes that form a set at a location.

    Attributes:
        kind: The recipe's name.
        number: Counts the sets of one kind at the location, from 0.
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
    """Form the sets of one location.

    Args:
        candidates: Scenes that cover the location.
        recipes: Recipes by kind; None switches a kind off.
        lat: Latitude of the location in degrees, which decides when its growing season is.
        max_candidates: Scenes tried per source and set.
        accept: Whether a scene is good enough at the location. It reads the scene, so it is called only for scenes
            that a set may need.

    Returns:
        The sets, recipe by recipe, each in time order. A scene may serve several kinds, but no set has it twice.
    """
    sets: list[PlannedSet] = []
    for kind, recipe in recipes.items():
        if recipe is None:
            continue
        sources = _ordered_sources(candidates, recipe, northern=lat >= 0)
        number = 0
        for together in [[source] for source in sources] if recipe.single_source else [sources]:
            for scenes in _sets_of(together, recipe, lat=lat, max_candidates=max_candidates, accept=accept):
                sets.append(PlannedSet(kind, number, tuple(scene.scene_id for scene in scenes)))
                number += 1
    return sets


def is_complete(scenes: Sequence[Scene], recipe: Recipe, *, lat: float) -> bool:
    """Check whether scenes make a set of a recipe: enough images, and at least one of every source.

    Args:
        scenes: Members of the set.
        recipe: Its recipe.
        lat: Latitude of the location, degrees.
    """
    if len(scenes) < max(recipe.min_images, len(recipe.sources)):
        return False
    if recipe.sources:
        return all(any(_fits(rule, scene, lat) for scene in scenes) for rule in recipe.sources)
    return len({scene.sensor for scene in scenes}) >= recipe.min_sources


def order(scenes: Iterable[Scene], *, lat: float, spread: Literal["seasons", "time"]) -> list[Scene]:
    """Sort the scenes of one source into the order in which they are tried.

    Ties go to the less cloudy scene, then to the earlier one, then to the smaller id. Scenes without a provider's cloud
    cover count as half cloudy, and among them the dates are spread over time: the newest are not the ones left out.

    Args:
        scenes: Scenes of one source, in any order.
        lat: Latitude of the location, degrees.
        spread: `seasons`: the least cloudy of the growing season, of the dormant season, and so on in turn. `time`:
            the first, the last, then always the one that is farthest in time from all before it.
    """

    def by_cloud(scene: Scene) -> tuple[float, dt.datetime, str]:
        return (50.0 if scene.cloud_cover_pct is None else scene.cloud_cover_pct, scene.datetime, scene.scene_id)

    ranked = sorted(scenes, key=by_cloud)
    if spread == "seasons":
        growing = [scene for scene in ranked if in_growing_season(scene.datetime, lat)]
        dormant = [scene for scene in ranked if not in_growing_season(scene.datetime, lat)]
        return _in_turn([_unknown_spread(growing, by_cloud), _unknown_spread(dormant, by_cloud)])
    return _spread(ranked, by_cloud)


_Key = Callable[[Scene], tuple[float, dt.datetime, str]]


def _unknown_spread(ranked: Sequence[Scene], by_cloud: _Key) -> list[Scene]:
    """Spread the scenes without a cloud cover over time, in their place among the others."""
    known = [scene for scene in ranked if scene.cloud_cover_pct is not None]
    unknown = _spread([scene for scene in ranked if scene.cloud_cover_pct is None], by_cloud)
    before = [scene for scene in known if by_cloud(scene)[0] < 50.0]
    after = [scene for scene in known if by_cloud(scene)[0] >= 50.0]
    return [*before, *unknown, *after]


def _spread(ranked: Sequence[Scene], by_cloud: _Key) -> list[Scene]:
    """Sort scenes as far apart in time as possible: the first, the last, then the farthest from all before it."""
    by_time = sorted(ranked, key=lambda scene: (scene.datetime, *by_cloud(scene)))
    chosen, rest = [*by_time[:1], *by_time[1:][-1:]], by_time[1:-1]
    times = {scene.scene_id: scene.datetime.timestamp() for scene in by_time}
    gap = {s.scene_id: min(abs(times[s.scene_id] - times[c.scene_id]) for c in chosen) for s in rest}
    while rest:
        best = max(rest, key=lambda scene: (gap[scene.scene_id], -by_cloud(scene)[0]))
        chosen.append(best)
        rest.remove(best)
        for scene in rest:
            gap[scene.scene_id] = min(gap[scene.scene_id], abs(times[scene.scene_id] - times[best.scene_id]))
    return chosen


def in_growing_season(when: dt.datetime, lat: float) -> bool:
    """Check whether a time lies in the growing season.

    That is April to September north of the equator, October to March south of it [ours].

    Args:
        when: The time, UTC.
        lat: Latitude of the location, degrees.
    """
    northern_summer = 4 <= when.month <= 9
    return northern_summer if lat >= 0 else not northern_summer


def _sets_of(
    sources: Sequence[tuple[list[Scene], int]],
    recipe: Recipe,
    *,
    lat: float,
    max_candidates: int,
    accept: Callable[[Scene], bool],
) -> Iterator[list[Scene]]:
    """Yield the sets of one recipe, each in time order, from sorted scenes and the wanted number of each source."""
    if len(sources) < (len(recipe.sources) or recipe.min_sources):
        return  # nothing is read where the set cannot be made
    picked: list[list[Scene]] = []
    for scenes, wanted in sources:
        taken = [scene for before in picked for scene in before]
        tries = max_candidates * recipe.max_sets
        picked.append(_pick(scenes[:tries], wanted * recipe.max_sets, taken=taken, accept=accept))
    for number in range(recipe.max_sets):
        parts = [
            scenes[number * wanted : (number + 1) * wanted] for scenes, (_, wanted) in zip(picked, sources, strict=True)
        ]
        chosen = _in_turn(parts)[: recipe.max_images]
        if not is_complete(chosen, recipe, lat=lat):
            return
        yield sorted(chosen, key=lambda scene: (scene.datetime, scene.scene_id))


_remembered: OrderedDict[tuple[object, ...], tuple[object, list[tuple[list[Scene], int]]]] = OrderedDict()


def _ordered_sources(candidates: Sequence[Scene], recipe: Recipe, *, northern: bool) -> list[tuple[list[Scene], int]]:
    """Sort the scenes of every source; the result is kept for neighbouring locations, which have the same scenes."""
    key = (id(recipe), northern, *map(id, candidates))
    if key in _remembered:
        _remembered.move_to_end(key)
        return _remembered[key][1]
    lat = 1.0 if northern else -1.0
    found = [
        (order(scenes, lat=lat, spread=recipe.spread), wanted) for scenes, wanted in _sources(candidates, recipe, lat)
    ]
    _remembered[key] = ((recipe, tuple(candidates)), found)  # kept alive, so that no other object gets their id
    if len(_remembered) > _REMEMBERED:
        _remembered.popitem(last=False)
    return found


def _sources(candidates: Sequence[Scene], recipe: Recipe, lat: float) -> list[tuple[list[Scene], int]]:
    """Find the scenes and the wanted number of every source that has scenes."""
    if not recipe.sources:
        sensors = sorted({scene.sensor for scene in candidates})
        return [([s for s in candidates if s.sensor == sensor], recipe.images_per_source) for sensor in sensors]
    found = [([scene for scene in candidates if _fits(rule, scene, lat)], rule.images) for rule in recipe.sources]
    return [(scenes, wanted) for scenes, wanted in found if scenes]


def _fits(rule: SourceRule, scene: Scene, lat: float) -> bool:
    in_season = rule.season == "any" or in_growing_season(scene.datetime, lat) == (rule.season == "growing")
    return rule.fits(scene.sensor) and in_season


def _pick(
    scenes: Sequence[Scene], wanted: int, *, taken: Sequence[Scene], accept: Callable[[Scene], bool]
) -> list[Scene]:
    """Take the first scenes that are accepted, but none of an overpass that another source of the set has taken."""
    picked: list[Scene] = []
    for scene in scenes:
        if len(picked) == wanted:
            break
        # Two products of one overpass (overlapping tiles) are one image of the location.
        same = (p for p in (*taken, *picked) if p.sensor == scene.sensor)
        if any(abs(scene.datetime - p.datetime) < _ONE_OVERPASS for p in same):
            continue
        if accept(scene):
            picked.append(scene)
    return picked


def _in_turn(lists: Sequence[Sequence[Scene]]) -> list[Scene]:
    """Take the first of every list, then the second of every list, and so on."""
    longest = max((len(scenes) for scenes in lists), default=0)
    return [scenes[k] for k in range(longest) for scenes in lists if k < len(scenes)]
