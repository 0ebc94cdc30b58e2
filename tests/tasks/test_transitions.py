"""Numbers of transitions: there and back, their names and colours."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from a2mae.tasks.transitions import (
    MOST_CLASSES,
    UNCHANGED,
    UNKNOWN,
    changes_alone,
    decode,
    encode,
    is_changed,
    transition_colors,
    transition_names,
)


@given(st.data(), st.integers(2, MOST_CLASSES))
def test_law_what_was_and_became_comes_back_wherever_both_are_known(data, classes):
    of_date = arrays.arrays(np.uint8, (4, 5), elements=st.sampled_from([*range(classes), UNKNOWN]))
    before, after = data.draw(of_date), data.draw(of_date)
    codes = encode(before, after, classes)
    known = (before != UNKNOWN) & (after != UNKNOWN)
    was, became = decode(codes, classes)
    assert (was[known] == before[known]).all() and (became[known] == after[known]).all()
    assert (codes[~known] == UNKNOWN).all() and (was[~known] == UNKNOWN).all() and (became[~known] == UNKNOWN).all()
    assert (codes[known] > UNCHANGED).all() and (codes[known] < UNKNOWN).all()
    assert (is_changed(codes, classes) == (known & (before != after))).all()
    alone = changes_alone(codes, classes)
    assert (alone[known & (before == after)] == UNCHANGED).all() and (alone[~known] == UNKNOWN).all()
    assert (alone[before != after] == codes[before != after]).all()


def test_unchanged_ground_of_no_known_class_is_no_change():
    codes = np.array([UNCHANGED, UNKNOWN, 1], np.uint8)
    assert is_changed(codes, 3).tolist() == [False, False, False]
    assert [part.tolist() for part in decode(codes, 3)] == [[UNKNOWN, UNKNOWN, 0]] * 2


def test_every_number_has_a_name_and_a_colour():
    names, colors = transition_names(("field", "wood")), transition_colors([(100, 0, 0), (0, 200, 0)])
    assert names == ("unchanged", "field stays", "field → wood", "wood → field", "wood stays")
    assert len(colors) == len(names) and colors[2] == (30, 140, 0) and colors[3] == (70, 60, 0)
    assert names[encode(np.array([0]), np.array([1]), 2)[0]] == "field → wood"
