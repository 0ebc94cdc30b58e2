import numpy as np
import pytest

from a2mae.tasks.palette import CLASS_RGB, class_colour, named_colours


def test_classes_can_be_told_apart_from_each_other():
    colours = np.array(CLASS_RGB, float)
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distance[~np.eye(len(colours), dtype=bool)].min() > 40


def test_a_class_keeps_its_colour_and_colours_repeat():
    assert class_colour(len(CLASS_RGB) + 2) == class_colour(2) == CLASS_RGB[2]


def test_named_classes_have_their_colours_and_the_others_keep_theirs():
    assert named_colours(("land", "water"), {"water": "#0a14FF"}) == (class_colour(0), (10, 20, 255))
    with pytest.raises(ValueError, match="no class sea: the classes are land, water"):
        named_colours(("land", "water"), {"sea": "#000000"})
