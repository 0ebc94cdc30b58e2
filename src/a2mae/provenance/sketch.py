"""Sketches of columns: a few sums that tell later, without the values, how many have changed and by how much.

Every value is added, with a sign, to one of a few sums; sum and sign are drawn from a hash of its position. The squares
of the differences of two such rows of sums add up to about the sum of the squares of the changes (Charikar, Chen and
Farach-Colton 2002, "Finding frequent items in data streams"). One changed value is known to the digit, of many the size
to about a fifth. A second row, drawn from position and value, counts how many differ, and serves for names and classes,
which have no size; a sum of the hashes says for certain whether any does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
_Hashes = npt.NDArray[np.uint64]

_SUMS = 16
_CHUNK = 2**18
_DIGITS = 9


@dataclass(frozen=True)
class Difference:
    """How a column differs from the one that a sketch was made of.

    Attributes:
        differing: About how many values differ.
        size: Root mean square of the change of those that differ; 0 for names and classes.
        scale: Root mean square of the column's values.
        count: How many values there are.
    """

    differing: float
    size: float
    scale: float
    count: int

    @property
    def share(self) -> float:
        """Share of the values that differ."""
        return min(self.differing / max(self.count, 1), 1.0)

    @property
    def relative(self) -> float:
        """The change of those that differ over the scale; 0 where nothing has one."""
        return self.size / self.scale if self.scale else math.inf if self.size else 0.0

    @property
    def overall(self) -> float:
        """Root mean square of all changes, also those of nothing, over the scale."""
        return self.relative * math.sqrt(self.share)


@dataclass
class Sketch:
    """Sums over the values of a column, file after file.

    Attributes:
        count: How many values.
        missing: How many of them are not finite.
        squares: Sum of the squares; None for names and classes.
        sums: Of values, by position; zeros for names and classes.
        equal: Of ones, by position and value.
        hashes: Sum of the hashes of position and value, modulo 2^64.
    """

    count: int = 0
    missing: int = 0
    squares: float | None = None
    sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(_SUMS))
    equal: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_SUMS, np.int64))
    hashes: int = 0

    @property
    def known(self) -> int:
        """How many values are not missing."""
        return self.count - self.missing

    @property
    def scale(self) -> float:
        """Root mean square of the known values; 0 for names and classes."""
        return math.sqrt((self.squares or 0.0) / max(self.known, 1))

    def add(self, values: Values | Sequence[object], place: str, *, classes: bool = False) -> None:
        """Add the values of one file.

        Args:
            values: Numbers or booleans of any shape, or names.
            place: Tells these values from those of other files, for example the file's name.
            classes: Whole numbers stand for classes: how far they are apart says nothing.
        """
        array = np.asarray(values).ravel()
        is_number = array.dtype.kind in "biuf" and not classes
        if is_number and self.squares is None:
            self.squares = 0.0
        seed = np.uint64(int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest()))
        for start in range(0, len(array), _CHUNK):
            part = array[start : start + _CHUNK]
            drawn = _mixed(np.arange(start, start + len(part), dtype=np.uint64) + seed)
            self.count += len(part)
            if is_number:
                numbers = part.astype(np.float64)
                known = np.isfinite(numbers)
                numbers = np.where(known, numbers, 0.0)
                self.missing += int(len(part) - known.sum())
                self.squares = (self.squares or 0.0) + float(np.dot(numbers, numbers))
                self.sums += _added(drawn, numbers)
                hashes = np.where(known, numbers + 0.0, np.nan).view(np.uint64)  # -0.0 is 0.0
            elif classes:
                hashes = part.astype(np.uint64)
            else:
                hashes = np.array([_of_text(str(one)) for one in part], np.uint64)
            mixed = _mixed(drawn ^ hashes)
            self.equal += np.rint(_added(mixed, np.ones(len(part)))).astype(np.int64)
            self.hashes = (self.hashes + int(mixed.sum(dtype=np.uint64))) % 2**64

    def __add__(self, other: Sketch) -> Sketch:
        """Sketch the values of both, which lie at other places."""
        squares = None if self.squares is None or other.squares is None else self.squares + other.squares
        return Sketch(
            self.count + other.count,
            self.missing + other.missing,
            squares,
            self.sums + other.sums,
            self.equal + other.equal,
            (self.hashes + other.hashes) % 2**64,
        )

    def to_json(self) -> list[object]:
        """Return it as a short list; `sketch_of_json` reads it back."""
        equal = [int(one) for one in self.equal]
        if self.squares is None:
            return [self.count, equal, self.hashes]
        sums = [float(f"{one:.{_DIGITS}g}") for one in self.sums]
        return [self.count, equal, self.hashes, self.missing, float(f"{self.squares:.{_DIGITS}g}"), sums]

    def difference(self, other: Sketch) -> Difference:
        """Compare with the sketch of as many values of the same kind at the same places."""
        differing = float(np.square((self.equal - other.equal).astype(np.float64)).sum()) / 2
        differing = 0.0 if self.hashes == other.hashes else max(differing, 1.0)
        total = float(np.square(self.sums - other.sums).sum())
        # The sums are kept to some digits: what is smaller than these tell is no change of a value.
        total = 0.0 if differing == 0 else total
        return Difference(differing, math.sqrt(total / max(differing, 1.0)), other.scale, self.count)


def sketch_of_json(content: Sequence[Any]) -> Sketch:
    """Read `Sketch.to_json` back."""
    count, equal, hashes, *numbers = content
    found = Sketch(int(count), equal=np.array(equal, np.int64), hashes=int(hashes))
    if numbers:
        found.missing, found.squares, found.sums = int(numbers[0]), float(numbers[1]), np.array(numbers[2], np.float64)
    return found


def _added(hashes: _Hashes, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Add values `(N,)` up in the sums, and with the signs, that their hashes say."""
    sign = ((hashes >> np.uint64(32)) & np.uint64(1)).astype(np.float64) * 2 - 1
    which = (hashes % np.uint64(_SUMS)).astype(np.intp)
    return np.asarray(np.bincount(which, weights=values * sign, minlength=_SUMS), np.float64)


def _mixed(numbers: _Hashes) -> _Hashes:
    """Spread 64-bit numbers over all 64-bit numbers (the last steps of SplitMix64); the same on any machine."""
    with np.errstate(over="ignore"):
        mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def _of_text(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
