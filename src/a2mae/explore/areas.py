"""Area per class: what the map shows, and what follows once the errors of the map are known.

A map that confuses classes shows wrong areas, however large it is. The stratified estimator of Olofsson et al. (2014,
doi 10.1016/j.rse.2014.02.015, equations 1 to 13) corrects them by an error matrix. It is unbiased, with the interval
that it states, where the matrix is of a sample drawn at random within each mapped class. Test places are none: their
estimate is given with an interval over places, and both are called what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from a2mae.errors import InputError

Floats = npt.NDArray[np.float64]

Z95 = 1.96
"""Of a normal 95 % interval, as published."""
AREA_COLUMNS = (
    "class",
    "mapped_ha",
    "mapped_share",
    "estimated_ha",
    "estimated_low_ha",
    "estimated_high_ha",
    "users_accuracy",
    "producers_accuracy",
    "samples",
    "design",
)
"""Columns of `areas.csv`."""
RANDOM = "stratified random sample"
PLACES = "test places, no probability sample of this map"
NOTHING = "not estimated"


@dataclass(frozen=True)
class StratifiedEstimate:
    """Areas and accuracies by class; all arrays are `(K,)`.

    Attributes:
        share: Share of the total area.
        share_error: Its standard error.
        users: User's accuracy: how much of what is mapped as the class is of it.
        users_error: Its standard error.
        producers: Producer's accuracy: how much of the class is mapped as it.
        producers_error: Its standard error.
        overall: Overall accuracy.
        overall_error: Its standard error.
    """

    share: Floats
    share_error: Floats
    users: Floats
    users_error: Floats
    producers: Floats
    producers_error: Floats
    overall: float
    overall_error: float


def stratified(counts: Floats, weights: Floats) -> StratifiedEstimate:
    """Estimate areas and accuracies from a stratified random sample (Olofsson et al. 2014, equations 1 to 13).

    Args:
        counts: `(K, K)` sample units: mapped classes by rows, reference classes by columns.
        weights: `(K,)` share of the map that each class has; they sum to 1.

    Raises:
        InputError: If a class that the map shows has fewer than two sample units: nothing follows for its errors.
    """
    n = counts.sum(axis=1)
    shown = weights > 0
    if (n[shown] < 2).any():
        few = np.flatnonzero(shown & (n < 2)).tolist()
        raise InputError(
            f"the mapped classes {few} have fewer than two reference points: draw at least two in every class that the"
            " map shows"
        )
    each, less = np.maximum(n, 1), np.maximum(n - 1, 1)
    p = weights[:, None] * counts / each[:, None]
    share = p.sum(axis=0)
    share_error = np.sqrt(((weights[:, None] * p - p**2) / less[:, None]).sum(axis=0))
    hit = np.diagonal(counts)
    users = np.where(shown, hit / each, np.nan)
    users_error = np.where(shown, np.sqrt(users * (1 - users) / less), np.nan)
    conditional = counts / each[:, None]
    spread = weights[:, None] ** 2 * conditional * (1 - conditional) / less[:, None]
    elsewhere = spread.sum(axis=0) - np.diagonal(spread)
    with np.errstate(invalid="ignore", divide="ignore"):
        producers = np.diagonal(p) / share
        producers_error = np.sqrt((1 - producers) ** 2 * np.diagonal(spread) + producers**2 * elsewhere) / share
    overall = float(np.trace(p))
    overall_error = float(np.sqrt(np.nansum(weights**2 * users * (1 - users) / less)))
    return StratifiedEstimate(
        share, share_error, users, users_error, producers, producers_error, overall, overall_error
    )


def corrected_shares(counts: Floats, weights: Floats) -> Floats:
    """Correct the shares of a map by error matrices.

    Args:
        counts: `(..., K, K)`: mapped classes by rows, reference classes by columns.
        weights: `(K,)` share of the map that each class has.

    Returns:
        `(..., K)` shares. A class of which no prediction was tested keeps what is mapped.
    """
    n = counts.sum(axis=-1, keepdims=True)
    conditional = np.where(n > 0, counts / np.maximum(n, 1), np.eye(counts.shape[-1]))
    return np.asarray(np.einsum("i,...ij->...j", weights, conditional))


def area_table(
    names: Sequence[str],
    mapped_m2: Floats,
    *,
    reference: Floats | None = None,
    tested: Floats | None = None,
    drawn: Floats | None = None,
) -> pd.DataFrame:
    """Make the table of areas by class.

    Args:
        names: Of the K classes.
        mapped_m2: `(K,)` ground that is mapped as each class, square metres.
        reference: `(K, K)` counts of points drawn at random within each mapped class, mapped classes by rows.
        tested: `(K, K)` counts of the model's test places, likewise; of use where there is no reference.
        drawn: `(R, K, K)` the same on resamples of places.

    Returns:
        `AREA_COLUMNS`, a row per class. Areas in hectares; intervals are of 95 %.
    """
    total = float(mapped_m2.sum())
    weights = mapped_m2 / total if total else np.zeros(len(names))
    known = {"users_accuracy": np.nan, "producers_accuracy": np.nan}
    columns: dict[str, object] = {
        "class": list(names),
        "mapped_ha": mapped_m2 / 10_000,
        "mapped_share": weights,
        **{name: np.nan for name in AREA_COLUMNS[3:6]},
        **known,
        "samples": 0,
        "design": NOTHING,
    }
    ha = total / 10_000
    if reference is not None and total:
        found = stratified(reference, weights)
        margin = Z95 * found.share_error
        columns |= _estimate(found.share, found.share - margin, found.share + margin, ha)
        columns |= {"users_accuracy": found.users, "producers_accuracy": found.producers}
        columns |= {"samples": reference.sum(axis=1).astype(int), "design": RANDOM}
    elif tested is not None and total and tested.sum():
        share = corrected_shares(tested, weights)
        low, high = np.full((2, len(names)), np.nan)
        if drawn is not None and len(drawn):
            low, high = np.quantile(corrected_shares(drawn, weights), (0.025, 0.975), axis=0)
        n = tested.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            users = np.diagonal(tested) / n
            producers = weights * users / share
        columns |= _estimate(share, low, high, ha)
        columns |= {"users_accuracy": users, "producers_accuracy": producers}
        columns |= {"samples": n.astype(int), "design": PLACES}
    return pd.DataFrame(columns)[list(AREA_COLUMNS)]


def _estimate(share: Floats, low: Floats, high: Floats, ha: float) -> Mapping[str, Floats]:
    return {
        "estimated_ha": share * ha,
        "estimated_low_ha": np.maximum(low, 0) * ha,
        "estimated_high_ha": np.minimum(high, 1) * ha,
    }
