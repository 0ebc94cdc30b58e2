"""Semantic change: counts of from-to transitions per place, and the metrics of the field.

SeK and mIoU are those of SECOND (Yang et al. 2021, arXiv 2010.05687), F_scd that of Ding et al. 2022
(10.1109/TGRS.2022.3154390). All follow from `(K + 1, K + 1)` counts of both dates together, in which 0 is unchanged
ground and k + 1 ground that has changed and is of class k at the date; truth by rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from a2mae.tasks.datasets.task_data import IGNORE
from a2mae.tasks.metrics.confusion import ConfusionCounts, Floats, GroupedCounts, per_class_iou, ratio
from a2mae.tasks.transitions import changes_alone, decode


class TransitionCounts(GroupedCounts):
    """Counts of both dates per group, `(K + 1, K + 1)`.

    Attributes:
        pairs: The same ground as one pair per pixel: counts of `a2mae.tasks.transitions` numbers, truth by rows.
    """

    def __init__(
        self,
        truth: npt.NDArray[np.uint8],
        prediction: npt.NDArray[np.uint8],
        groups: Sequence[object] | npt.NDArray[np.object_],
        classes: int,
    ) -> None:
        """Count.

        Args:
            truth: `(N, H, W)` numbers of transitions; `IGNORE` is left out.
            prediction: Likewise, every pixel with a number.
            groups: `(N,)` the place of each sample.
            classes: K.

        Raises:
            InputError: If shapes differ or nothing is left to score.
        """
        numbers = classes * classes + 1
        self.pairs = ConfusionCounts(changes_alone(truth, classes), changes_alone(prediction, classes), groups, numbers)
        side = classes + 1
        dates = [np.where(part == IGNORE, -1, part.astype(np.int64)) + 1 for part in _both(classes)]
        cells = [(date[:, None] * side + date[None, :]).ravel() for date in dates]
        rows = np.tile(np.arange(numbers * numbers), 2)
        to_dates = sparse.coo_matrix(
            (np.ones(rows.size), (rows, np.concatenate(cells))), shape=(numbers * numbers, side * side)
        )
        super().__init__((self.pairs.counts @ to_dates.tocsr()).tocsr(), (side, side), len(truth))


def _both(classes: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Class before and after of every number; of unchanged ground none."""
    return decode(changes_alone(np.arange(classes * classes + 1, dtype=np.uint8), classes), classes)


def _unchanged_changed(counts: Floats) -> Floats:
    """IoU of unchanged and of changed ground, whatever its classes: `(..., 2)`."""
    total, both = counts.sum((-2, -1)), counts[..., 0, 0]
    either = counts[..., 0, :].sum(-1) + counts[..., :, 0].sum(-1) - both
    changed = counts[..., 1:, 1:].sum((-2, -1))
    return np.stack([ratio(both, either), ratio(changed, total - both)], axis=-1)


def change_miou(counts: Floats) -> Floats:
    """Return the mean IoU of unchanged and changed ground: `(..., K + 1, K + 1)` → `(...)`."""
    return np.asarray(_unchanged_changed(counts).mean(axis=-1))


def sek(counts: Floats) -> Floats:
    """Return SECOND's separated kappa: Cohen's kappa without what is rightly unchanged, times e^(IoU of change - 1)."""
    separated = counts.copy()
    separated[..., 0, 0] = 0
    total = separated.sum((-2, -1))
    agreed = ratio(np.trace(separated, axis1=-2, axis2=-1), total)
    by_chance = ratio((separated.sum(-1) * separated.sum(-2)).sum(-1), total**2)
    kappa = ratio(agreed - by_chance, 1 - by_chance)
    return np.asarray(np.exp(_unchanged_changed(counts)[..., 1] - 1) * kappa)


def f_scd(counts: Floats) -> Floats:
    """Return the F1 of changed ground whose class is right, over both dates."""
    right = np.trace(counts, axis1=-2, axis2=-1) - counts[..., 0, 0]
    said, there = counts[..., :, 1:].sum((-2, -1)), counts[..., 1:, :].sum((-2, -1))
    return ratio(2 * right, said + there)


def iou_of_changed(counts: Floats) -> Floats:
    """Return the IoU of each class on changed ground, over both dates: `(..., K)`."""
    return per_class_iou(counts)[..., 1:]
