"""Errors of estimated values: sums per place, and the metrics that follow from them.

Sums are kept per place as counts of classes are, so the same bootstrap over places gives the intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from a2mae.errors import InputError
from a2mae.tasks.metrics.confusion import Floats, GroupedCounts, numbered_groups, ratio

_N, _ERROR, _ABSOLUTE, _SQUARE, _TRUTH, _TRUTH_SQUARE = range(6)


class ValueSums(GroupedCounts):
    """Per group `(6,)`: number, sum of errors, of their absolute values and squares, of the truth and its squares."""

    def __init__(
        self,
        truth: npt.NDArray[np.floating],
        prediction: npt.NDArray[np.floating],
        groups: Sequence[object] | npt.NDArray[np.object_],
    ) -> None:
        """Sum up.

        Args:
            truth: `(N, ...)` values; NaN is left out.
            prediction: `(N, ...)` values, same shape.
            groups: `(N,)` the place of each sample, any hashable values.

        Raises:
            InputError: If shapes differ or nothing is left to score.
        """
        group, count = numbered_groups(truth, prediction, groups)
        scored = np.isfinite(truth)
        if not scored.any():
            raise InputError("nothing to score: every label is unknown")
        there = truth[scored].astype(np.float64)
        error = prediction[scored].astype(np.float64) - there
        there -= there.mean()  # squares of large numbers, less the square of their mean, would leave no digits
        terms = (np.ones(there.size), error, np.abs(error), error**2, there, there**2)
        sums = [np.bincount(group[scored], weights=term, minlength=count) for term in terms]
        super().__init__(sparse.csr_matrix(np.stack(sums, axis=1)), (len(terms),), len(truth))


def bias(sums: Floats) -> Floats:
    """Return the mean error, prediction less truth: `(..., 6)` → `(...)`."""
    return _mean(sums, _ERROR)


def mae(sums: Floats) -> Floats:
    """Return the mean absolute error."""
    return _mean(sums, _ABSOLUTE)


def rmse(sums: Floats) -> Floats:
    """Return the root of the mean squared error."""
    return np.asarray(np.sqrt(_mean(sums, _SQUARE)))


def r2(sums: Floats) -> Floats:
    """Return the share of the truth's variance that is explained; below 0 where its mean would do better.

    NaN where the truth does not vary.
    """
    total = sums[..., _TRUTH_SQUARE] - sums[..., _TRUTH] ** 2 / np.maximum(sums[..., _N], 1)
    return np.asarray(1 - ratio(sums[..., _SQUARE], total))


def _mean(sums: Floats, term: int) -> Floats:
    return ratio(sums[..., term], sums[..., _N])
