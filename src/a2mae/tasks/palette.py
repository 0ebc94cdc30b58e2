"""Colours of classes that bring none of their own, in maps and in the report."""

from __future__ import annotations

from collections.abc import Sequence

# Wong's colours for colour-blind readers, then darker and lighter relatives; a class keeps its colour by its index.
CLASS_RGB = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (90, 90, 90),
    (122, 73, 32),
    (0, 73, 73),
    (146, 104, 255),
    (182, 219, 120),
    (255, 182, 193),
    (40, 40, 110),
)


def class_colour(index: int) -> tuple[int, int, int]:
    """RGB of a class by its index; colours repeat after the palette's end."""
    return CLASS_RGB[index % len(CLASS_RGB)]


def class_colours(own: Sequence[tuple[int, int, int]], count: int) -> list[tuple[int, int, int]]:
    """RGB of every class: the data's own colours where it has any, the same in examples and maps.

    Args:
        own: Of all classes, or empty.
        count: Number of classes.
    """
    return list(own) or [class_colour(index) for index in range(count)]
