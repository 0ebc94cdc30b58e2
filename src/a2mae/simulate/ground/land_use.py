"""Land use of a region: biomes (how much of what, and what grows when), fields and settlements.

Fields are blocks of parcels in a few orientations, each parcel with its crop, tone and edges. Settlements are streets,
lots, houses, gardens and works. Both are arithmetic on coordinates, exact at any scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from a2mae.simulate.ground.covers import CODE
from a2mae.simulate.noise import Floats, Points


@dataclass(frozen=True, slots=True)
class Biome:
    """Composition and seasons of a kind of landscape.

    Shares are of the land left over by what comes before in the order rivers, lakes, settlements, bare, forest, fields.

    Attributes:
        soil: Its soil, a key of `MATERIALS`.
        grass: Cover code name of what grows where nothing else does.
        bare_cover: "rock" or "sand".
        lake, urban, bare, forest, fields: Shares 0–1.
        conifer, orchard, wetland: Shares 0–1 of the forest, of the fields, of the land near water.
        river_width_m: Mean width of its rivers.
        relief_m: Standard deviation of elevation.
        parcel_m: Length and width of a typical block of fields.
        crops: Relative frequency of each crop, by cover name.
        growing_day: Day of the northern year on which the growing-season scenes are centred.
        dormant_day: The same for the other season.
    """

    soil: str
    grass: str = "meadow"
    bare_cover: str = "rock"
    lake: float = 0.02
    urban: float = 0.10
    bare: float = 0.04
    forest: float = 0.30
    conifer: float = 0.35
    fields: float = 0.65
    orchard: float = 0.08
    wetland: float = 0.35
    river_width_m: float = 45.0
    relief_m: float = 25.0
    parcel_m: tuple[float, float] = (420.0, 260.0)
    crops: Mapping[str, float] = field(default_factory=lambda: {"winter_cereal": 4.0, "maize": 3.0, "rapeseed": 2.0})
    growing_day: int = 165
    dormant_day: int = 300


BIOMES: Mapping[str, Biome] = MappingProxyType(
    {
        "temperate_plain": Biome(
            "loam", crops={"winter_cereal": 4, "maize": 2.5, "rapeseed": 2, "roots": 2, "fallow": 0.5}, wetland=0.45
        ),
        "alpine_foreland": Biome(
            *("loam", "meadow", "rock"),
            lake=0.05, urban=0.11, bare=0.09, forest=0.38, conifer=0.65, fields=0.5, orchard=0.12, relief_m=130,
            parcel_m=(260, 180), crops={"winter_cereal": 3, "maize": 3, "roots": 1, "fallow": 0.5},
        ),
        "boreal": Biome(
            *("dark_soil", "meadow", "rock"),
            lake=0.08, urban=0.07, bare=0.05, forest=0.55, conifer=0.6, fields=0.45, orchard=0.03, wetland=0.6,
            relief_m=45, crops={"winter_cereal": 3, "rapeseed": 1.5, "roots": 1, "fallow": 1},
            growing_day=190, dormant_day=285,
        ),
        "mediterranean": Biome(
            *("red_soil", "range", "sand"),
            lake=0.015, urban=0.12, bare=0.08, forest=0.20, conifer=0.45, fields=0.62, orchard=0.42, wetland=0.25,
            relief_m=60, parcel_m=(300, 220), river_width_m=35,
            crops={"winter_cereal": 4, "maize": 1, "fallow": 1.5, "roots": 1}, growing_day=125, dormant_day=245,
        ),
        "corn_belt": Biome(
            *("dark_soil", "meadow", "sand"),
            lake=0.02, urban=0.08, bare=0.03, forest=0.14, conifer=0.12, fields=0.85, orchard=0.04, wetland=0.35,
            relief_m=14, parcel_m=(800, 400), river_width_m=60,
            crops={"maize": 5, "roots": 4, "winter_cereal": 0.7, "fallow": 0.4}, growing_day=205, dormant_day=120,
        ),
        "steppe": Biome(
            *("loam", "range", "sand"),
            lake=0.015, urban=0.06, bare=0.18, forest=0.08, conifer=0.4, fields=0.5, orchard=0.08, wetland=0.3,
            relief_m=35, parcel_m=(600, 420),
            crops={"winter_cereal": 4, "fallow": 2, "maize": 1}, growing_day=140, dormant_day=250,
        ),
        "subtropical": Biome(
            *("red_soil", "meadow", "sand"),
            lake=0.04, urban=0.14, bare=0.04, forest=0.28, conifer=0.15, fields=0.62, orchard=0.25, wetland=0.5,
            relief_m=40, parcel_m=(240, 150), river_width_m=70,
            crops={"maize": 3, "roots": 3, "winter_cereal": 2, "fallow": 0.7}, growing_day=195, dormant_day=60,
        ),
        "river_delta": Biome(
            *("dark_soil", "meadow", "sand"),
            lake=0.07, urban=0.16, bare=0.04, forest=0.10, conifer=0.2, fields=0.75, orchard=0.12, wetland=0.75,
            relief_m=4, river_width_m=120, parcel_m=(280, 160),
            crops={"roots": 4, "maize": 2, "winter_cereal": 3, "fallow": 0.5}, growing_day=180, dormant_day=80,
        ),
    }
)  # fmt: skip
"""The built-in biomes by name."""

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
    """Choose the cover code of each parcel's crop in a year: parcels rotate, so most carry another one each year."""
    names = list(biome.crops)
    share = np.cumsum([biome.crops[name] for name in names])
    bins = np.searchsorted(share / share[-1], (np.arange(256) + 0.5) / 256)
    codes = np.array([CODE[name] for name in names], dtype=np.uint8)[bins]
    turn = np.uint16((year * 40503 + 12345) & 0xFFFF)
    mixed = (parcel.key ^ turn) * np.uint16(40503)
    return np.asarray(codes[mixed >> np.uint16(8)])


_BLOCK_M = (104.0, 68.0)  # street to street
_STREET_M = 4.5  # half width
_LOTS = (5, 2)  # per block


def _hash(i: NDArray[np.int32], j: NDArray[np.int32], salt: int) -> NDArray[np.uint32]:
    """Mix two indices into 32 bits."""
    h = i.astype(np.uint32) * np.uint32(0x9E3779B1) ^ j.astype(np.uint32) * np.uint32(0x85EBCA77) ^ np.uint32(salt)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(12)
    return h


def block_centers(x: Floats, y: Floats, angle_rad: float) -> tuple[Floats, Floats]:
    """Find the centre of the street block in which each place lies, so that a town can grow by whole blocks.

    Args:
        x: Local metres east, broadcasting with `y`.
        y: Local metres north.
        angle_rad: Direction of the streets.
    """
    cos, sin = np.float32(np.cos(angle_rad)), np.float32(np.sin(angle_rad))
    u = (np.floor((x * cos + y * sin) / np.float32(_BLOCK_M[0])) + np.float32(0.5)) * np.float32(_BLOCK_M[0])
    v = (np.floor((y * cos - x * sin) / np.float32(_BLOCK_M[1])) + np.float32(0.5)) * np.float32(_BLOCK_M[1])
    return np.asarray(u * cos - v * sin, np.float32), np.asarray(u * sin + v * cos, np.float32)


def paint_town(
    cover: NDArray[np.uint8], town: NDArray[np.bool_], points: Points, *, angle_rad: float, fine: Floats, patch: Floats
) -> None:
    """Write the settlement's covers where `town` is true.

    Args:
        cover: `(H, W)` cover codes, changed in place.
        town: `(H, W)` where the settlement is.
        points: The places.
        angle_rad: Direction of the streets.
        fine: `(H, W)` fine texture, -1..1.
        patch: `(H, W)` coarser texture, -1..1.
    """
    rows, columns = np.nonzero(town)
    if rows.size == 0:
        return
    if points.separable:
        x, y = points.x_m[columns].astype(np.float32), points.y_m[rows].astype(np.float32)
    else:
        x, y = points.x_m[rows, columns].astype(np.float32), points.y_m[rows, columns].astype(np.float32)
    cos, sin = np.float32(np.cos(angle_rad)), np.float32(np.sin(angle_rad))
    u, v = (x * cos + y * sin) / np.float32(_BLOCK_M[0]), (y * cos - x * sin) / np.float32(_BLOCK_M[1])
    i, j = np.floor(u), np.floor(v)
    u, v = (u - i) * np.float32(_BLOCK_M[0]), (v - j) * np.float32(_BLOCK_M[1])  # metres within the block
    i, j = i.astype(np.int32), j.astype(np.int32)
    street = (np.minimum(u, _BLOCK_M[0] - u) < _STREET_M) | (np.minimum(v, _BLOCK_M[1] - v) < _STREET_M)
    # Larger quarters of works: decided for groups of 3 x 3 blocks.
    works = _hash(i // 3, j // 3, 11) % np.uint32(5) == 0

    lot_u, lot_v = _BLOCK_M[0] / _LOTS[0], _BLOCK_M[1] / _LOTS[1]
    lot_i, lot_j = np.floor(u / lot_u).astype(np.int32), np.floor(v / lot_v).astype(np.int32)
    inside_u, inside_v = u - lot_i * np.float32(lot_u), v - lot_j * np.float32(lot_v)
    key = _hash(i * _LOTS[0] + lot_i, j * _LOTS[1] + lot_j, 23)
    half_u = 4.0 + (key & np.uint32(7)).astype(np.float32) * 0.5
    half_v = 4.5 + ((key >> np.uint32(3)) & np.uint32(7)).astype(np.float32) * 0.7
    centre_u = lot_u / 2 + (((key >> np.uint32(6)) & np.uint32(7)).astype(np.float32) - 3.5) * 0.4
    centre_v = lot_v / 2 + (((key >> np.uint32(9)) & np.uint32(7)).astype(np.float32) - 3.5) * 0.8
    house = (np.abs(inside_u - centre_u) < half_u) & (np.abs(inside_v - centre_v) < half_v)
    house &= (key >> np.uint32(12)) % np.uint32(9) != 0

    hall_key = _hash(i, j, 37)
    hall_u = 26 + (hall_key & np.uint32(15)).astype(np.float32)
    hall_v = 14 + ((hall_key >> np.uint32(4)) & np.uint32(7)).astype(np.float32) * 1.4
    hall = (np.abs(u - _BLOCK_M[0] / 2) < hall_u) & (np.abs(v - _BLOCK_M[1] / 2) < hall_v)

    garden_tree = patch[rows, columns] + 0.8 * fine[rows, columns] > 0.35
    roof = np.where(key >> np.uint32(16) & np.uint32(3), CODE["tile_roof"], CODE["slate_roof"])
    result = np.where(house, roof, np.where(garden_tree, CODE["garden_tree"], CODE["lawn"]))
    paved = (inside_v < 9) & (np.abs(inside_u - centre_u) < 1.8)
    result = np.where(paved & ~house, CODE["yard"], result)
    hall_roof = np.where(hall_key >> np.uint32(16) & np.uint32(1), CODE["metal_roof"], CODE["slate_roof"])
    result = np.where(works, np.where(hall, hall_roof, CODE["yard"]), result)
    result = np.where(street, CODE["road"], result)
    cover[rows, columns] = result.astype(np.uint8)
