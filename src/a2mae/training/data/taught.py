"""A teacher's features of the images of a run, as they lie on disk, and of the part of an image that a sample sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from a2mae.training.data.draw import Draw

TEACHER_FILE = "teacher.safetensors"
"""Of a run directory: `features` `(images, GRID * GRID, D)` float16, cell by cell in rows; zeros: not computed."""
GRID = 4
"""Cells per side of an image."""


class TeacherFeatures:
    """Reads features image by image; the file is mapped, not held in memory."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Args:
            path: Written by `a2mae.training.teacher`.
        """
        file: Any = safe_open(path, framework="pt")  # its types know no slices
        self._features = file.get_slice("features")

    def of(self, draws: Sequence[Draw]) -> Tensor:
        """Give the mean over what each anchor shows, `(B, D)` float32; zeros for an anchor that has none.

        Args:
            draws: B draws; the first image of each is its anchor.
        """
        found = []
        for draw in draws:
            anchor = int(draw.images[0])
            cells = self._features[anchor : anchor + 1][0].float()  # (GRID * GRID, D)
            found.append(torch.from_numpy(shares(draw.window)) @ cells)
        return torch.stack(found)


def shares(window: tuple[float, float, float]) -> NDArray[np.float32]:
    """Say how much of a window lies in each cell of an image, `(GRID * GRID,)`, in sum 1.

    Args:
        window: Left, top and side, as shares of the image's side.
    """
    left, top, side = window
    edges = np.arange(GRID + 1) / GRID
    along = [
        np.clip(np.minimum(start + side, edges[1:]) - np.maximum(start, edges[:-1]), 0, None) for start in (top, left)
    ]
    weights: NDArray[np.float64] = np.outer(*along).ravel()
    return np.asarray(weights / weights.sum(), np.float32)


def identity_of(path: Path) -> str | None:
    """Read which teacher's features of which images a file holds; None where there is none, or half of one."""
    try:
        with safe_open(path, framework="pt") as file:
            facts: Mapping[str, str] = file.metadata() or {}
    except (FileNotFoundError, SafetensorError):
        return None
    return facts.get("identity")
