import numpy as np
import pytest

from a2mae.simulate.ground.changes import ChangeKind
from a2mae.simulate.ground.covers import CLASS_OF_COVER, CLASSES, CODE
from a2mae.simulate.ground.land_use import BIOMES
from a2mae.simulate.ground.landscape import make_landscape, with_changes
from a2mae.simulate.noise import Points


@pytest.fixture(scope="module")
def landscape():
    return with_changes(make_landscape(1, "place", BIOMES["temperate_plain"], 2160), 1, share=0.08)


def _axes(side=300, step=5.0, east=0.0, north=0.0):
    axis = (np.arange(side) - side / 2 + 0.5) * step
    return Points(axis + east, -axis + north)


def _ask(landscape, points, **kwargs):
    return landscape.states(points, **{"after": False, "year": 2020, "gsd_m": 5.0, **kwargs})


def test_the_same_places_are_the_same_ground_on_any_grid(landscape):
    whole = _ask(landscape, _axes())
    part = _ask(landscape, _axes(side=100, east=250, north=-400))
    assert np.array_equal(part, whole[100 + 80 : 200 + 80, 100 + 50 : 200 + 50])
    finer = _ask(landscape, _axes(side=900, step=5 / 3))
    assert np.mean(finer[1::3, 1::3] == whole) > 0.999  # the middle one of nine is the same place


def test_tilted_grids_see_the_same_ground(landscape):
    axes = _axes()
    x, y = np.meshgrid(axes.x_m, axes.y_m)
    for after in (False, True):
        same = _ask(landscape, axes, after=after) == _ask(landscape, Points(x, y), after=after)
        assert same.mean() > 0.999  # a difference of rounding at outlines


def test_classes_keep_their_share_at_any_resolution(landscape):
    shares = []
    for step in (2.0, 8.0, 24.0):
        side = int(4000 / step)
        covers = landscape.covers(_axes(side=side, step=step), after=False, year=2020, gsd_m=step)
        shares.append(np.bincount(CLASS_OF_COVER[covers].ravel(), minlength=11) / covers.size)
    assert np.abs(shares[0] - shares[1]).max() < 0.006
    assert np.abs(shares[0] - shares[2]).max() < 0.012


def test_crops_turn_with_the_year_but_classes_stay(landscape):
    points = _axes()
    one, two = (landscape.covers(points, after=False, year=year, gsd_m=5.0) for year in (2020, 2023))
    field = CLASS_OF_COVER[one] == 5
    assert np.array_equal(CLASS_OF_COVER[one], CLASS_OF_COVER[two])
    assert 0.2 < np.mean(one[field] != two[field]) < 0.95


def test_change_happens_within_reach_of_its_events_and_is_of_every_kind(landscape):
    points = _axes(side=860)
    before, after = (landscape.covers(points, after=after, year=2020, gsd_m=5.0) for after in (False, True))
    changed = CLASS_OF_COVER[before] != CLASS_OF_COVER[after]
    assert 0.05 < changed.mean() < 0.12
    near = np.zeros_like(changed)
    x, y = points.planes()
    for event in landscape.changes:
        near |= np.maximum(np.abs(x - event.x_m), np.abs(y - event.y_m)) <= event.reach_m + 5
    assert not np.any(changed & ~near)
    assert np.any(~near)
    kinds = {event.kind for event in landscape.changes}
    assert {ChangeKind.NEW_TOWN, ChangeKind.CLEAR_CUT, ChangeKind.FLOOD} <= kinds
    assert np.any(after == CODE["clear_cut"])
    assert not np.any(before == CODE["clear_cut"])


def test_another_seed_is_another_ground_and_a_name_decides_too():
    points = _axes()
    maps = [
        _ask(make_landscape(seed, name, BIOMES["boreal"], 2160), points) >> 8
        for seed, name in ((1, "a"), (2, "a"), (1, "b"))
    ]
    assert np.mean(maps[0] == maps[1]) < 0.6
    assert np.mean(maps[0] == maps[2]) < 0.6


@pytest.mark.parametrize("biome", sorted(BIOMES))
def test_every_biome_has_most_classes(biome):
    landscape = make_landscape(0, "somewhere", BIOMES[biome], 3120)
    covers = landscape.covers(_axes(side=600, step=10.0), after=False, year=2020, gsd_m=10.0)
    share = np.bincount(CLASS_OF_COVER[covers].ravel(), minlength=11)[1:] / covers.size
    assert share.sum() == pytest.approx(1)
    assert np.sum(share > 0.003) >= len(CLASSES) - 2
    assert share.max() < 0.8


def test_a_place_outside_is_refused(landscape):
    with pytest.raises(ValueError, match="outside the lattice"):
        _ask(landscape, _axes(east=10_000))
