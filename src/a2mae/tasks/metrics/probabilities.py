"""How good probabilities are: PR-AUC of rare classes and the calibration error, with intervals over places.

Both follow from counts per place, so the bootstrap over places that gives the intervals of all scores gives theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse

from a2mae.tasks.metrics.confusion import Floats, GroupedCounts, ratio

STEPS = 1000
"""Probabilities are counted in thousandths; equal ones rank alike."""
_WIDTH = 2 * (STEPS + 1)
CONFIDENCES = 15
"""Ranges of equal width that the calibration error is taken over, as by Guo et al. 2017 (arXiv 1706.04599)."""


def average_precision(counts: Floats) -> Floats:
    """Return the area under the precision-recall curve, as scikit-learn's `average_precision_score` has it.

    Args:
        counts: `(..., 2, S)` of no and yes by rising score.

    Returns:
        `(...)`; NaN where there is no yes.
    """
    falling = counts[..., ::-1]
    found = falling.cumsum(axis=-1)
    precision = ratio(found[..., 1, :], found.sum(axis=-2))
    yes = falling[..., 1, :]
    total = yes.sum(axis=-1)
    return ratio(np.where(yes > 0, yes * np.nan_to_num(precision), 0).sum(axis=-1), total)


def calibration_error(counts: Floats) -> Floats:
    """Return the expected calibration error: how far shares that are right lie from what was promised, on average.

    Args:
        counts: `(..., B, 3)` by ranges of confidence: answers, sum of their confidences, how many are right.
    """
    return ratio(np.abs(counts[..., 2] - counts[..., 1]).sum(axis=-1), counts[..., 0].sum(axis=-1))


class ProbabilityCounts:
    """Counts of probabilities per place, added up batch by batch."""

    def __init__(self, places: Sequence[object] | npt.NDArray[np.object_], classes: int) -> None:
        """Begin to count.

        Args:
            places: `(N,)` the place of each sample that will be added.
            classes: K' whose probabilities are counted.
        """
        names, self._group = np.unique(np.asarray(places, dtype=str), return_inverse=True)
        self._groups, self._classes, self._samples = len(names), classes, len(self._group)
        self._cells: list[npt.NDArray[np.int64]] = []
        self._counts: list[npt.NDArray[np.int64]] = []
        self._sums = np.zeros((len(names), CONFIDENCES, 3))

    def add(
        self,
        samples: slice,
        yes: npt.NDArray[np.bool_],
        probability: npt.NDArray[np.floating],
        known: npt.NDArray[np.bool_],
    ) -> None:
        """Add what was and how probable it was said to be.

        Args:
            samples: Which of the samples.
            yes: `(B, K', ...)` whether it is of the class.
            probability: `(B, K', ...)` that it is.
            known: `(B, ...)` whether there is a label.
        """
        step = np.clip(np.round(probability.astype(np.float64) * STEPS), 0, STEPS).astype(np.int64)
        shape = (-1, 1, *[1] * (probability.ndim - 2))
        group = self._group[samples].reshape(shape)
        kind = np.arange(self._classes).reshape(1, -1, *[1] * (probability.ndim - 2))
        cell = ((group * self._classes + kind) * 2 + yes) * (STEPS + 1) + step
        found, count = np.unique(cell[np.broadcast_to(known[:, None], cell.shape)], return_counts=True)
        self._cells.append(found)
        self._counts.append(count)

    def add_answers(
        self,
        samples: slice,
        right: npt.NDArray[np.bool_],
        confidence: npt.NDArray[np.floating],
        known: npt.NDArray[np.bool_],
    ) -> None:
        """Add answers with how sure they were.

        Args:
            samples: Which of the samples.
            right: `(B, ...)` whether an answer is right.
            confidence: `(B, ...)` the probability that it was given.
            known: `(B, ...)` whether there is a label.
        """
        group = np.broadcast_to(self._group[samples].reshape(-1, *[1] * (right.ndim - 1)), right.shape)[known]
        sure = confidence[known].astype(np.float64)
        place = np.clip(np.ceil(sure * CONFIDENCES) - 1, 0, CONFIDENCES - 1).astype(np.int64)
        cell, size = group * CONFIDENCES + place, self._sums[..., 0].size
        for number, weight in enumerate((None, sure, right[known].astype(np.float64))):
            self._sums[..., number] += np.bincount(cell, weight, minlength=size).reshape(self._sums.shape[:2])

    def of_class(self, index: int) -> GroupedCounts:
        """Give the counts of a class for `average_precision`, `(2, STEPS + 1)` per place."""
        part = self._joined[:, index * _WIDTH : (index + 1) * _WIDTH].tocsr()
        return GroupedCounts(part, (2, STEPS + 1), self._samples)

    @cached_property
    def _joined(self) -> sparse.csc_matrix:
        """All that was added, a row per place; it is asked for when nothing more comes."""
        cells, counts = np.concatenate(self._cells), np.concatenate(self._counts).astype(np.float64)
        shape = (self._groups, self._classes * _WIDTH)
        return sparse.csc_matrix((counts, np.unravel_index(cells, shape)), shape=shape)

    def answers(self) -> GroupedCounts:
        """Give the counts for `calibration_error`, `(CONFIDENCES, 3)` per place."""
        flat = sparse.csr_matrix(self._sums.reshape(self._groups, -1))
        return GroupedCounts(flat, (CONFIDENCES, 3), self._samples)
