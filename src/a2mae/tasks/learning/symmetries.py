"""The square's eight symmetries: what a satellite image may be turned and flipped by without losing its meaning."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Symmetry:
    """Quarter turns, then a mirror.

    Attributes:
        turns: Quarter turns, counter-clockwise.
        mirror: Left and right exchanged after the turns.
    """

    turns: int
    mirror: bool

    def move(self, images: Tensor) -> Tensor:
        """`(..., H, W)` moved; its sides change places with an odd number of turns."""
        moved = torch.rot90(images, self.turns, (-2, -1))
        return (moved.flip(-1) if self.mirror else moved).contiguous()

    def undo(self, images: Tensor) -> Tensor:
        """`(..., H, W)` moved back: the inverse of `move`."""
        moved = images.flip(-1) if self.mirror else images
        return torch.rot90(moved, -self.turns, (-2, -1)).contiguous()


def symmetries(height: int, width: int) -> tuple[Symmetry, ...]:
    """Those that keep an image's shape: eight of a square, else four; the first changes nothing."""
    turns = range(4) if height == width else (0, 2)
    return tuple(Symmetry(turn, mirror) for mirror, turn in itertools.product((False, True), turns))
