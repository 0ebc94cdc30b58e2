import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2mae.tasks.palette import CLASS_RGB, class_colour, named_colours


def test_classes_can_be_told_apart_from_each_other():
    colours = np.array(CLASS_RGB, float)
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distance[~np.eye(len(colours), dtype=bool)].min() > 40


def test_a_class_keeps_its_colour_and_colours_repeat():
    assert class_colour(len(CLASS_RGB) + 2) == class_colour(2) == CLASS_RGB[2]


@given(st.lists(st.sampled_from(range(10)), unique=True, max_size=8), st.permutations(CLASS_RGB))
def test_an_automatic_colour_is_no_given_one(named: list[int], colours) -> None:
    """Whatever of the palette's own colours the user gives to whichever classes."""
    names = [f"class {number}" for number in range(10)]
    stated = {names[number]: "#{:02x}{:02x}{:02x}".format(*colours[k]) for k, number in enumerate(named)}
    found = named_colours(names, stated)
    assert len(set(found)) == len(names)
    assert [found[number] for number in named] == [colours[k] for k in range(len(named))]


def test_named_classes_have_their_colours_and_the_others_keep_theirs():
    assert named_colours(("land", "water"), {"water": "#0a14FF"}) == (class_colour(0), (10, 20, 255))
    with pytest.raises(ValueError, match="no class sea: the classes are land, water"):
        named_colours(("land", "water"), {"sea": "#000000"})
