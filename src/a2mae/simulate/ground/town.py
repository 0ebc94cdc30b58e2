"""Settlements: streets, lots, houses, gardens and works, as arithmetic on coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from a2mae.simulate.ground.covers import CODE
from a2mae.simulate.noise import Floats, Points

_BLOCK_M = (104.0, 68.0)  # street to street
_STREET_M = 4.5  # half width
_LOTS = (5, 2)  # per block


def _hash(i: NDArray[np.int32], j: NDArray[np.int32], salt: int) -> NDArray[np.uint32]:
    """Well-mixed 32 bits of two indices."""
    h = i.astype(np.uint32) * np.uint32(0x9E3779B1) ^ j.astype(np.uint32) * np.uint32(0x85EBCA77) ^ np.uint32(salt)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(12)
    return h


def block_centers(x: Floats, y: Floats, angle_rad: float) -> tuple[Floats, Floats]:
    """Centre of the street block in which each place lies, so that a town can grow by whole blocks.

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
