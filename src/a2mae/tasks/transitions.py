"""Labels of semantic change: a number for what a pixel was and became, so that maps, files and counts hold one layer.

0 is unchanged ground whose class is not known, 1 + before * K + after the ground that was of one class and is of
another (or still of it). Maps and predictions hold 0 wherever nothing changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

UNCHANGED = 0
MOST_CLASSES = 15
"""K of which every pair has a number below 255."""
UNKNOWN = 255
"""What stands for no class, and for no transition."""
UNCHANGED_COLOR = (235, 235, 235)

Codes = npt.NDArray[np.uint8]


def encode(before: npt.NDArray[np.integer[Any]], after: npt.NDArray[np.integer[Any]], classes: int) -> Codes:
    """Number what pixels were and became.

    Args:
        before: Classes of the first date, `UNKNOWN` where not known.
        after: Of the second date, same shape.
        classes: K, at most `MOST_CLASSES`.

    Returns:
        The same shape; `UNKNOWN` where either is not known.
    """
    known = (before != UNKNOWN) & (after != UNKNOWN)
    codes = 1 + before.astype(np.int64) * classes + after.astype(np.int64)
    return np.where(known, codes, UNKNOWN).astype(np.uint8)


def decode(codes: npt.NDArray[np.integer[Any]], classes: int) -> tuple[Codes, Codes]:
    """Give the class before and the class after, `UNKNOWN` where they are not known: the inverse of `encode`."""
    known = (codes != UNCHANGED) & (codes != UNKNOWN)
    pair = np.where(known, codes, 1).astype(np.int64) - 1
    before, after = (np.where(known, half, UNKNOWN).astype(np.uint8) for half in (pair // classes, pair % classes))
    return before, after


def changes_alone(codes: Codes, classes: int) -> Codes:
    """Make every unchanged pixel `UNCHANGED`, also where its class is known."""
    before, after = decode(codes, classes)
    return np.where((before == after) & (codes != UNKNOWN), np.uint8(UNCHANGED), codes)


def is_changed(codes: Codes, classes: int) -> npt.NDArray[np.bool_]:
    """Tell where the class has changed."""
    before, after = decode(codes, classes)
    return np.asarray(before != after)


def transition_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Name every number of `encode`, K² + 1."""
    pairs = ((before, after) for before in class_names for after in class_names)
    return ("unchanged", *(f"{before} → {after}" if before != after else f"{before} stays" for before, after in pairs))


def transition_colors(colors: Sequence[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Give every number of `encode` a colour: that of the class after, tinted by the class before.

    Args:
        colors: RGB of each class.
    """
    tints = []
    for before in colors:
        for after in colors:
            red, green, blue = (round(0.3 * was + 0.7 * became) for was, became in zip(before, after, strict=True))
            tints.append((red, green, blue))
    return (UNCHANGED_COLOR, *tints)
