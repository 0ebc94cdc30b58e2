"""Training, validation and test by place: blocks of the map, never single images or neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pandas as pd

SPLITS = ("train", "val", "test")


def split_by_place(locations: pd.DataFrame, *, block_m: float, fractions: Mapping[str, float], seed: int) -> pd.Series:
    """Assign locations to splits, all of a block to the same.

    Blocks are squares of the UTM grid. In the order of a seeded hash each goes to the split that lacks most of its
    share, so that small data sets get their fractions too.

    Args:
        locations: `LOCATION_COLUMNS` of the places in use.
        block_m: Side of a block, metres.
        fractions: Share of the locations per split; they add up to 1.
        seed: Of the hash.

    Returns:
        Split by `location_id`.
    """
    column = np.floor((locations["x_m"] + locations["footprint_m"] / 2) / block_m).astype(np.int64)
    row = np.floor((locations["y_m"] - locations["footprint_m"] / 2) / block_m).astype(np.int64)
    block = locations["crs"].astype(str) + ":" + column.astype(str) + ":" + row.astype(str)
    sizes = block.value_counts().sort_index()
    ranks = {name: hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in sizes.index}
    total, got = len(locations), dict.fromkeys(SPLITS, 0)
    chosen: dict[str, str] = {}
    for name in sorted(sizes.index, key=ranks.__getitem__):
        lacking = {split: fractions.get(split, 0.0) * total - got[split] for split in SPLITS}
        best = max(SPLITS, key=lambda split: (lacking[split], fractions.get(split, 0.0)))
        chosen[name] = best
        got[best] += int(sizes[name])
    return pd.Series(block.map(chosen).to_numpy(), index=locations["location_id"].to_numpy(), name="split")
