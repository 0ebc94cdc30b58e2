import numpy as np

from a2mae.tasks.palette import CLASS_RGB, class_colour


def test_classes_can_be_told_apart_from_each_other():
    colours = np.array(CLASS_RGB, float)
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distance[~np.eye(len(colours), dtype=bool)].min() > 40


def test_a_class_keeps_its_colour_and_colours_repeat():
    assert class_colour(len(CLASS_RGB) + 2) == class_colour(2) == CLASS_RGB[2]
