"""A folder per class of pictures that any classifier can tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def two_classes(folder: Path, count: int, suffix: str = ".png") -> Path:
    """Write so many noisy dark and light pictures of 16 x 16 pixels; the same on every call.

    Args:
        folder: Gets `dark/` and `light/`.
        count: Of each.
        suffix: Says the format.
    """
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal(level, 10, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{number}{suffix}")
    return folder
