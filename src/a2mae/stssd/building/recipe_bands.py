"""Which of the stored bands an image is to be used with: what the recipe of its set names, or all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def bands_of_images(images: pd.DataFrame, bands: Mapping[str, Sequence[str]]) -> NDArray[np.bool_] | None:
    """Which bands of its sensor each image has.

    Args:
        images: Image table.
        bands: The stored bands of each sensor, in order.

    Returns:
        `(N, B)`; None where every image has all of them.

    Raises:
        ValueError: If the table names a band that is not stored.
    """
    if "bands" not in images or images["bands"].isna().all():
        return None
    mask = np.ones((len(images), max(len(bands[name]) for name in images["sensor"].unique())), dtype=np.bool_)
    some = np.flatnonzero(images["bands"].notna())
    for sensor, names in images.iloc[some].groupby("sensor", sort=False)["bands"]:
        rows = some[(images["sensor"].iloc[some] == sensor).to_numpy()]
        kinds = names.map(tuple)
        for kind in kinds.unique():  # a recipe's: few
            unknown = sorted(set(kind) - set(bands[str(sensor)]))
            if unknown:
                raise ValueError(
                    f"images.parquet names bands of {sensor} that the store does not have ({', '.join(unknown)}):"
                    " both must be of one run of coregister"
                )
            mask[np.ix_(rows[(kinds == kind).to_numpy()], range(len(bands[str(sensor)])))] = [
                name in kind for name in bands[str(sensor)]
            ]
    return None if mask.all() else mask


def with_bands(
    images: pd.DataFrame,
    mask: NDArray[np.bool_],
    bands: Mapping[str, Sequence[str]],
    needed: Mapping[str, Sequence[str]],
) -> NDArray[np.bool_]:
    """`(N,)`: which images have a band at all, and those that are needed.

    Args:
        images: Image table.
        mask: Of `bands_of_images`.
        bands: The stored bands of each sensor, in order.
        needed: Bands by sensor.
    """
    keep = np.zeros(len(images), dtype=np.bool_)
    for sensor in images["sensor"].unique():
        of_sensor = (images["sensor"] == sensor).to_numpy()
        wanted = [list(bands[sensor]).index(name) for name in needed.get(sensor, ())]
        has = mask[:, wanted].all(axis=1) if wanted else mask[:, : len(bands[sensor])].any(axis=1)
        keep |= of_sensor & has
    return keep
