"""A split follows from the name alone; scenes share a ground where their boxes overlap by more than half."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from a2mae.tasks.datasets.splits import SAME_GROUND, Grounds, split_of

BOX = (8.0, 47.0, 8.02, 47.01)


def test_split_is_by_name_alone_and_in_proportion() -> None:
    names = [f"Forest/Forest_{number}" for number in range(5000)]
    splits = [split_of(name) for name in names]
    assert splits == [split_of(name) for name in names]
    assert 0.18 < splits.count("test") / 5000 < 0.22
    assert 0.08 < splits.count("val") / 5000 < 0.12


@given(east=st.floats(-2, 2), north=st.floats(-2, 2), size=st.floats(0.1, 1))
def test_the_share_decides(east: float, north: float, size: float) -> None:
    west, south = BOX[0] + 0.02 * east, BOX[1] + 0.01 * north
    other = (west, south, west + 0.02 * size, south + 0.01 * size)
    overlap = [max(0.0, min(1, at + size) - max(0, at)) / size for at in (east, north)]
    share = overlap[0] * overlap[1]
    grounds = Grounds()
    assert grounds.place("a", "test", BOX) == "test/a"
    if abs(share - SAME_GROUND) > 1e-6:
        assert grounds.place("b", "test", other) == ("test/a" if share > SAME_GROUND else "test/b")
    assert not grounds.across


def test_a_ground_of_another_split_is_told_and_is_no_place_of_this_one() -> None:
    grounds = Grounds()
    grounds.place("a", "train", BOX)
    assert grounds.place("b", "test", BOX) == "test/b" and grounds.place("c", "test", BOX) == "test/b"
    assert grounds.across == ["test/b", "test/c"]
