"""Pooled offsets of scenes: known ones are recovered, and what does not agree moves nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2mae.registration.correlate import Match
from a2mae.registration.network import Offsets, Position, pool, positions
from a2mae.registration.pairs import PairMatch

GSD_M = 10.0
Shift = tuple[float, float]


def compared(moving: str, fixed: str, shift_m: Shift, *, error_m: float = 0.5, trusted: bool = True) -> PairMatch:
    match = Match(
        *shift_m,
        error_m,
        significance=10.0,
        ratio=0.2,
        correlation=0.8,
        gain=0.1,
        known_fraction=1.0,
        at_edge=False,
    )
    return PairMatch(moving, fixed, GSD_M, match, trusted)


def difference(truth: dict[str, Shift], moving: str, fixed: str) -> Shift:
    """How far `moving` has to be moved to lie on `fixed`, where the truth says how far each has to be moved."""
    return truth[moving][0] - truth[fixed][0], truth[moving][1] - truth[fixed][1]


def measured(truth: dict[str, Shift], moving: str, fixed: str, **options: float) -> PairMatch:
    return compared(moving, fixed, difference(truth, moving, fixed), **options)


TRUTH = {"a": (0.0, 0.0), "b": (12.0, -7.0), "c": (-5.0, 3.0), "d": (1.0, 20.0)}


def test_known_offsets_are_recovered_along_paths_that_nobody_measured() -> None:
    place = [measured(TRUTH, "b", "a"), measured(TRUTH, "b", "c"), measured(TRUTH, "d", "c")]
    offsets = pool([place] * 3, min_locations=3)
    for moving in TRUTH:
        for fixed in TRUTH:
            assert offsets.shift(moving, fixed) == pytest.approx(difference(TRUTH, moving, fixed), abs=1e-6)


def test_a_pair_counts_the_same_whichever_of_the_two_was_moved() -> None:
    one = pool([[compared("b", "a", (4.0, -2.0))]], min_locations=1)
    other = pool([[compared("a", "b", (-4.0, 2.0))]], min_locations=1)
    assert one.shift("b", "a") == pytest.approx((4.0, -2.0))
    assert other.shift("b", "a") == pytest.approx((4.0, -2.0)) and other.shift("a", "b") == pytest.approx((-4.0, 2.0))
    both = pool([[compared("b", "a", (4.0, -2.0))], [compared("a", "b", (-5.0, 3.0))]], min_locations=2)
    assert both.shift("b", "a") == pytest.approx((4.5, -2.5))


def test_a_place_that_says_otherwise_moves_nothing() -> None:
    right = [measured(TRUTH, "b", "a"), measured(TRUTH, "c", "a")]
    wrong = [compared("b", "a", (-30.0, 30.0)), compared("c", "a", (25.0, 25.0))]
    offsets = pool([right, right, right, wrong], min_locations=3)
    assert offsets.shift("b", "a") == pytest.approx(difference(TRUTH, "b", "a"), abs=1e-6)
    assert offsets.shift("c", "b") == pytest.approx(difference(TRUTH, "c", "b"), abs=1e-6)


def test_an_edge_counts_only_where_enough_places_agree_and_are_trusted() -> None:
    pair = measured(TRUTH, "b", "a")
    doubted = dataclasses.replace(pair, trusted=False)
    assert pool([[pair]] * 2, min_locations=3) == Offsets({}, {})
    assert pool([[pair], [pair], [doubted]], min_locations=3) == Offsets({}, {})
    assert pool([[pair]] * 3, min_locations=3).shift("b", "a") == pytest.approx(TRUTH["b"])
    split = [[compared("b", "a", (x, 0.0))] for x in (0.0, 0.0, 20.0, 20.0, 40.0, 40.0)]
    assert pool(split, min_locations=2) == Offsets({}, {})  # less than half of them agree on anything
    assert pool([], min_locations=1) == Offsets({}, {})


def test_parts_that_hang_together_by_nothing_say_nothing_of_each_other() -> None:
    offsets = pool([[measured(TRUTH, "b", "a"), measured(TRUTH, "d", "c")]], min_locations=1)
    assert offsets.part["a"] == offsets.part["b"] != offsets.part["c"] == offsets.part["d"]
    assert offsets.shift("d", "c") == pytest.approx(difference(TRUTH, "d", "c"))
    assert offsets.shift("c", "a") is None and offsets.shift("a", "elsewhere") is None


def test_an_edge_counts_by_its_error() -> None:
    """Two ways round a triangle contradict each other: the solution lies nearer to what was measured better."""
    edges = [compared("b", "a", (10.0, 0.0), error_m=0.2), compared("c", "b", (0.0, 0.0), error_m=0.2)]
    offsets = pool([[*edges, compared("c", "a", (11.0, 0.0), error_m=2.0)]], min_locations=1)
    east, _ = offsets.shift("c", "a") or (np.nan, np.nan)
    assert 10.0 < east < 10.1


@st.composite
def networks(draw: st.DrawFn) -> tuple[dict[str, Shift], list[tuple[str, str]]]:
    """True moves of some scenes, and which of them were compared: a tree and further edges, either way round."""
    count = draw(st.integers(2, 12))
    metres = st.floats(-40, 40, allow_nan=False)
    truth = {f"s{k}": (draw(metres), draw(metres)) for k in range(count)}
    edges = [(f"s{k}", f"s{draw(st.integers(0, k - 1))}") for k in range(1, count)]
    more = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=10))
    edges += [(f"s{i}", f"s{j}") for i, j in more if i != j]
    turned = [edge[::-1] if draw(st.booleans()) else edge for edge in edges]
    return truth, draw(st.permutations(turned))


@settings(deadline=None, max_examples=60)
@given(networks(), st.integers(0, 2**31))
def test_law_a_connected_network_gives_every_difference(
    network: tuple[dict[str, Shift], list[tuple[str, str]]], seed: int
) -> None:
    """Exactly without noise, and with it never further than the noise adds up to along the edges."""
    truth, edges = network
    exact = pool([[measured(truth, *edge) for edge in edges]], min_locations=1)
    rng = np.random.default_rng(seed)
    noisy = pool(
        [
            [
                compared(*edge, tuple((np.array(difference(truth, *edge)) + rng.uniform(-0.5, 0.5, 2)).tolist()))
                for edge in edges
            ]
        ],
        min_locations=1,
    )
    assert set(exact.part.values()) == {0}
    for scene in truth:
        expected = difference(truth, scene, "s0")
        assert exact.shift(scene, "s0") == pytest.approx(expected, abs=1e-5)
        assert noisy.shift(scene, "s0") == pytest.approx(expected, abs=0.5 * np.sqrt(2) * len(edges) + 1e-5)


SCENES = {"a": 10.0, "b": 10.0, "c": 30.0, "d": 10.0}


def test_an_image_goes_by_the_network_then_by_its_own_comparison_and_else_stays() -> None:
    offsets = Offsets({"a": 0, "b": 0}, {"a": (0.0, 0.0), "b": (4.0, 3.0)})
    matches = [
        compared("b", "a", (4.0, 4.0)),
        compared("c", "a", (6.0, -3.0), error_m=3.0),
        compared("d", "a", (1.0, 1.0), trusted=False),
    ]
    put = positions(SCENES, matches, offsets, SCENES, reference="a", hub="a")
    assert put == {
        "a": Position("reference", 0.0, 0.0, 0.0, 1.0),
        "b": Position("registered", 4.0, 3.0, pytest.approx(0.1), 0.8),  # a metre from its own, in pixels of 10 m
        "c": Position("registered", 6.0, -3.0, pytest.approx(0.1), 0.8),  # its own error, in pixels of 30 m
        "d": Position("nominal", 0.0, 0.0, None, 0.0),
    }


def test_own_comparisons_lead_to_the_reference_by_way_of_the_hub() -> None:
    """What was compared is the hub with everything; the reference is another image, and `d` hangs on `c` alone."""
    matches = [measured(TRUTH, "d", "c"), measured(TRUTH, "b", "a"), measured(TRUTH, "c", "a")]
    put = positions(SCENES, matches, Offsets({}, {}), SCENES, reference="b", hub="a")
    for scene in ("a", "c", "d"):
        assert (put[scene].shift_x_m, put[scene].shift_y_m) == pytest.approx(difference(TRUTH, scene, "b"))
        assert put[scene].registration == "registered"
    alone = positions(SCENES, matches[:1], Offsets({}, {}), SCENES, reference="b", hub="a")
    assert {scene: position.registration for scene, position in alone.items()} == {
        "a": "nominal", "b": "reference", "c": "nominal", "d": "nominal",
    }  # fmt: skip


def test_the_network_without_an_own_comparison_has_no_residual() -> None:
    offsets = Offsets({"a": 0, "b": 0}, {"a": (1.0, 0.0), "b": (4.0, 3.0)})
    put = positions(["b"], [], offsets, SCENES, reference="a", hub="a")
    assert put == {"b": Position("registered", 3.0, 3.0, None, 0.5)}
