"""Colours of classes, in pictures and maps alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from a2mae.errors import InputError

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


_ALIKE = 60  # sum over the channels


def class_colour(index: int) -> tuple[int, int, int]:
    """Return the RGB of a class by its index; colours repeat after the palette's end."""
    return CLASS_RGB[index % len(CLASS_RGB)]


def class_colours(own: Sequence[tuple[int, int, int]], count: int) -> list[tuple[int, int, int]]:
    """Return the RGB of every class: the data's own colours where it has any.

    Args:
        own: Of all classes, or empty.
        count: Number of classes.
    """
    return list(own) or [class_colour(index) for index in range(count)]


def hex_colour(rgb: tuple[int, int, int]) -> str:
    """Write a colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def named_colours(class_names: Sequence[str], named: Mapping[str, str]) -> tuple[tuple[int, int, int], ...]:
    """Return the RGB of every class where the user has named some; the others keep theirs, unless it looks the same.

    Args:
        class_names: One per class index.
        named: Class name to `#rrggbb`.

    Raises:
        InputError: If a class is named that is not there.
    """
    unknown = sorted(set(named) - set(class_names))
    if unknown:
        raise InputError(f"no class {', '.join(unknown)}: the classes are {', '.join(class_names)}")
    given = [_rgb(colour) for colour in named.values()]
    own = {name: _rgb(named[name]) if name in named else class_colour(index) for index, name in enumerate(class_names)}
    for name, colour in own.items():
        if name not in named and _like_one_of(colour, given):
            taken = [*given, *(other for another, other in own.items() if another != name)]
            own[name] = next((free for free in CLASS_RGB if not _like_one_of(free, taken)), colour)
    return tuple(own.values())


def _like_one_of(colour: tuple[int, int, int], others: Sequence[tuple[int, int, int]]) -> bool:
    return any(sum(abs(a - b) for a, b in zip(colour, other, strict=True)) < _ALIKE for other in others)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
