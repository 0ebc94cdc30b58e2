"""Fields: blocks of parcels in a few orientations, each parcel with its crop, tone and edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2mae.simulate.ground.biomes import Biome
from a2mae.simulate.ground.covers import CODE
from a2mae.simulate.noise import Floats

_SIGNED: Floats = np.linspace(-1, 1, 256, dtype=np.float32)


@dataclass(frozen=True)
class ParcelAt:
    """The parcel at each place, all `(H, W)`.

    Attributes:
        key: Random 16 bits of the parcel.
        across_m: Coordinate across the rows, metres.
        along_m: Coordinate along the rows, metres.
        edge_m: Distance to the parcel's edge, metres.
    """

    key: NDArray[np.uint16]
    across_m: Floats
    along_m: Floats
    edge_m: Floats

    @property
    def brightness(self) -> Floats:
        """Tone of the parcel's soil, -1..1."""
        return np.take(_SIGNED, self.key & 255)

    @property
    def green(self) -> Floats:
        """Vigour of the parcel's crop, -1..1."""
        return np.take(_SIGNED, self.key >> 8)

    @property
    def hedged(self) -> NDArray[np.bool_]:
        """Whether the parcel's edge carries a hedge."""
        return np.asarray((self.key & 3) == 0)

    @property
    def may_be_orchard(self) -> NDArray[np.bool_]:
        """Whether the parcel is an orchard where orchards are."""
        return np.asarray((self.key & 0x70) != 0)


@dataclass(frozen=True)
class Parcels:
    """Geometry of a region's fields: three domains, each a grid of its own angle and size.

    Attributes:
        angle_rad: `(3,)` direction of the rows.
        length_m: `(3,)` of a block along its rows.
        width_m: `(3,)` across.
        table: `(256, 256)` random 16-bit numbers that stand for a hash of cell indices.
    """

    angle_rad: Floats
    length_m: Floats
    width_m: Floats
    table: NDArray[np.uint16]

    @classmethod
    def draw(cls, rng: np.random.Generator, parcel_m: tuple[float, float]) -> Parcels:
        """Draw the geometry around a typical block size (length, width) in metres."""
        scale = rng.uniform(0.75, 1.3, size=(2, 3))
        return cls(
            angle_rad=np.asarray(rng.uniform(0, np.pi), dtype=np.float32)
            + np.array([0.0, 0.5, 1.2], dtype=np.float32) * np.float32(rng.uniform(0.8, 1.2)),
            length_m=(parcel_m[0] * scale[0]).astype(np.float32),
            width_m=(parcel_m[1] * scale[1]).astype(np.float32),
            table=rng.integers(0, 1 << 16, size=(256, 256), dtype=np.uint16),
        )

    @property
    def town_angle_rad(self) -> float:
        """Direction of the streets."""
        return float(self.angle_rad[0])

    def locate(self, x: Floats, y: Floats, domain: Floats) -> ParcelAt:
        """Find the parcel at each place.

        Args:
            x: Local metres east, broadcasting with `y` to `(H, W)`.
            y: Local metres north.
            domain: `(H, W)` field whose three levels are the domains.
        """
        kind = (domain > -0.4).astype(np.uint8) + (domain > 0.4)
        if kind.min() == kind.max():  # as in most of a fine scene's strips
            kind = kind[:1, :1]
        cos, sin = np.take(np.cos(self.angle_rad), kind), np.take(np.sin(self.angle_rad), kind)
        length, width = np.take(self.length_m, kind), np.take(self.width_m, kind)
        along = x * cos + y * sin
        across = y * cos - x * sin
        v = across / width
        row = np.floor(v)
        v -= row
        row_index = row.astype(np.int32) * 5 + kind
        u = along / length + self.table[row_index & 255, 7].astype(np.float32) / 65536
        column = np.floor(u)
        u -= column
        block = self.table[row_index & 255, column.astype(np.int32) & 255]
        # A block is ploughed as one to four parcels side by side.
        pieces = (1 + (block & 3)).astype(np.float32)
        v *= pieces
        piece = np.floor(v)
        v -= piece
        key = self.table[block & 255, (block >> 8).astype(np.uint8) + piece.astype(np.uint8)]
        edge = np.minimum(
            np.minimum(u, 1 - u) * length,
            np.minimum(v, 1 - v) * width / pieces,
        )
        return ParcelAt(key=key, across_m=across, along_m=along, edge_m=edge)


def crop_cover(biome: Biome, parcel: ParcelAt, *, year: int) -> NDArray[np.uint8]:
    """Cover code of each parcel's crop in a year: parcels rotate, so most carry another crop in another year."""
    names = list(biome.crops)
    share = np.cumsum([biome.crops[name] for name in names])
    bins = np.searchsorted(share / share[-1], (np.arange(256) + 0.5) / 256)
    codes = np.array([CODE[name] for name in names], dtype=np.uint8)[bins]
    turn = np.uint16((year * 40503 + 12345) & 0xFFFF)
    mixed = (parcel.key ^ turn) * np.uint16(40503)
    return np.asarray(codes[mixed >> np.uint16(8)])
