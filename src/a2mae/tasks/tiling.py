"""Windows over a raster of any size, and their seamless joining with constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tile:
    """A window in pixels; it may reach past the raster's lower and right edges only where the raster is smaller.

    Attributes:
        row: First row.
        col: First column.
        size: Side in pixels.
    """

    row: int
    col: int
    size: int


def starts(length: int, size: int, overlap: int) -> list[int]:
    """First pixels of windows that cover `length`: equally strided, the last one moved back to end at the edge.

    Raises:
        ValueError: If the overlap is not smaller than the window.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be 0 to {size - 1} pixels for windows of {size}, found {overlap}")
    if length <= size:
        return [0]
    positions = list(range(0, length - size, size - overlap))
    return [*positions, length - size]


def blend_weight(size: int, overlap: int) -> Floats:
    """`(size, size)` weights: 1 inside, falling linearly to the edge over the overlap, never 0."""
    ramp = np.minimum(np.arange(size) + 1, np.arange(size, 0, -1)).astype(np.float32)
    line = np.minimum(ramp / np.float32(overlap + 1), np.float32(1))
    return np.outer(line, line).astype(np.float32)


def blended_strips(
    height: int,
    width: int,
    classes: int,
    *,
    size: int,
    overlap: int,
    predict: Callable[[list[Tile]], Floats],
    batch: int = 8,
    first_row: int = 0,
) -> Iterator[tuple[int, Floats]]:
    """Predict a raster window by window and yield finished rows, top to bottom.

    Memory is one strip of `size` rows; the raster's height does not matter.

    Args:
        height: Rows of the raster.
        width: Columns.
        classes: Channels K that `predict` returns.
        size: Side of a window, pixels.
        overlap: Pixels shared by neighbouring windows, blended linearly.
        predict: Tiles → `(len(tiles), K, size, size)` float32; it pads what lies beyond the raster.
        batch: Tiles per call.
        first_row: Rows before this one were finished by an earlier run: neither predicted (but for those that overlap)
            nor yielded.

    Yields:
        `(row, (K, rows, width))`: blended predictions of finished rows.
    """
    weight = blend_weight(size, overlap)
    rows = starts(height, size, overlap)
    padded = max(width, size)
    total = np.zeros((classes, size, padded), np.float32)
    weights = np.zeros((size, padded), np.float32)
    for number, row in enumerate(rows):
        end = rows[number + 1] if number + 1 < len(rows) else height
        if row + size > first_row:
            tiles = [Tile(row, col, size) for col in starts(width, size, overlap)]
            for start in range(0, len(tiles), batch):
                some = tiles[start : start + batch]
                for tile, scores in zip(some, predict(some), strict=True):
                    total[:, :, tile.col : tile.col + size] += scores * weight
                    weights[:, tile.col : tile.col + size] += weight
        done = end - row
        if end > first_row:
            skip = max(first_row - row, 0)
            yield row + skip, (total[:, skip:done] / weights[skip:done])[:, :, :width]
        total = _scrolled(total, done)
        weights = _scrolled(weights, done)


def _scrolled(strip: Floats, rows: int) -> Floats:
    """The strip moved up by some rows, zeros below."""
    moved = np.zeros_like(strip)
    kept = strip.shape[-2] - rows
    if kept > 0:
        moved[..., :kept, :] = strip[..., rows:, :]
    return moved
