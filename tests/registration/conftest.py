"""Images of fields with known displacements."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree


def scene(seed: int, side: int = 720) -> np.ndarray:
    """Fields of 5 m pixels: patches with sharp borders and some texture, three bands."""
    rng = np.random.default_rng(seed)
    points = rng.random((160, 2)) * side
    _, label = cKDTree(points).query(np.stack(np.mgrid[:side, :side], axis=-1))
    values = rng.random((3, 160))
    return values[:, label] + 0.05 * ndimage.gaussian_filter(rng.normal(size=(3, side, side)), (0, 2, 2))


def cut(image: np.ndarray, factor: int, down: int = 0, right: int = 0, side: int = 384) -> np.ndarray:
    """A square of `side` pixels at a coarser GSD whose content is displaced by whole fine pixels."""
    part = image[:, 60 - down : 60 - down + side, 60 - right : 60 - right + side]
    return part.reshape(len(part), side // factor, factor, side // factor, factor).mean(axis=(2, 4)).astype(np.float32)
