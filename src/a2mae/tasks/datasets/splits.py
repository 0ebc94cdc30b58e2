"""Splits by place: a hash decides, and scenes of one ground stay together.

The hash of a name is the same on every machine, and a split stays as it is when files are added.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from a2mae.files import utf8

BLOCK_DEG = 0.05
"""Georeferenced scenes whose centres lie in one square of this side are one place (about 5 km)."""
SAME_GROUND = 0.5
"""Scenes that share more than this of the smaller one's box show the same ground."""

Box = tuple[float, float, float, float]
"""West, south, east and north in degrees."""


def split_of(name: str, *, test_share: float = 0.2, val_share: float = 0.1) -> str:
    """Return the split of a place from a hash of its name.

    Args:
        name: Of the place, or `Class/Class_12` without a suffix, so that a JPEG and a GeoTIFF of one place fall into
            one split.
        test_share: Of all names.
        val_share: Of all names.
    """
    position = position_of(name)
    if position < test_share:
        return "test"
    return "val" if position < test_share + val_share else "train"


def position_of(name: str) -> float:
    """Map a name to 0 to 1, evenly spread, by its hash."""
    return int.from_bytes(hashlib.sha256(utf8(name)).digest()[:8], "big") / 2**64


def square_of(lon: float, lat: float) -> str:
    """Return the place of a scene whose split nobody has stated: its square of `BLOCK_DEG`.

    Args:
        lon: Of the centre, degrees.
        lat: Of the centre, degrees.
    """
    return f"{math.floor(lon / BLOCK_DEG)}:{math.floor(lat / BLOCK_DEG)}"


class Grounds:
    """Where the scenes lie that were read so far.

    Attributes:
        across: Scenes that lie on the ground of a scene of another split, in the order of reading.
    """

    def __init__(self) -> None:
        self.across: list[str] = []
        self._boxes = np.empty((0, 4))
        self._seen: list[tuple[str, str]] = []

    def place(self, name: str, split: str, box: Box) -> str:
        """Return the place of a scene: that of the first scene of its split on the same ground, else its own.

        Args:
            name: Of the scene.
            split: That the folder or the table states.
            box: Of the scene.
        """
        shared = np.flatnonzero(_shared(self._boxes, np.array(box)) > SAME_GROUND)
        there = [self._seen[index] for index in shared]
        if any(other != split for other, _ in there):
            self.across.append(f"{split}/{name}")
        place = next((place for other, place in there if other == split), f"{split}/{name}")
        self._boxes = np.vstack([self._boxes, box])
        self._seen.append((split, place))
        return place


def _shared(boxes: npt.NDArray[np.float64], box: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Overlap of a box with others `(N, 4)`, as a share of the smaller of both."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    smaller = np.minimum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), (box[2:] - box[:2]).prod())
    shares: npt.NDArray[np.float64] = sides.clip(min=0).prod(axis=1) / smaller
    return shares
