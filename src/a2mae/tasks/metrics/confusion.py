"""Confusion counts per place, the metrics that follow from them, and bootstrap intervals over places.

The interval of a score is a bootstrap over places (over images where no places are known), because pixels of one place
are not independent. Counts of each place are kept sparse, so that one matrix product gives all resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from a2mae.errors import InputError
from a2mae.tasks.datasets.task_data import IGNORE

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A value with its 95 % interval.

    Attributes:
        value: On all samples.
        low: 2.5 % quantile of the bootstrap; the lowest value possible where all samples are of one place, of which
            nothing follows for others.
        high: 97.5 % quantile; likewise the highest.
        n: Samples (images) behind it.
        groups: Independent groups (places) that were resampled.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int


def score_of(value: float, drawn: Floats, n: int, groups: int, *, least: float = 0.0, most: float = 1.0) -> Score:
    """Give a value the interval of its resamples.

    Args:
        value: On all samples.
        drawn: `(R,)` the same on resamples; what is not finite there is left out.
        n: Samples behind it.
        groups: Places that were resampled; one place says nothing of others, so the interval is all that is possible.
        least: The lowest value possible.
        most: The highest.
    """
    drawn = drawn[np.isfinite(drawn)]
    if groups < 2:
        return Score(value, least, most, n, groups)
    low, high = (float(v) for v in np.quantile(drawn, (0.025, 0.975))) if drawn.size else (value, value)
    return Score(value, low, high, n, groups)


class GroupedCounts:
    """Counts per group, resampled together.

    Attributes:
        counts: A row per group, flat.
        n: Samples that were counted.
    """

    def __init__(self, counts: sparse.csr_matrix, shape: tuple[int, ...], n: int) -> None:
        """Wrap counts.

        Args:
            counts: A row per group, flat.
            shape: Of a group's counts.
            n: Samples that were counted.
        """
        self.counts, self._shape, self.n = counts, shape, n

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.counts.shape[0])

    @property
    def matrix(self) -> Floats:
        """Counts summed over all groups."""
        return np.asarray(self.counts.sum(axis=0), dtype=np.float64).reshape(self._shape)

    def by_group(self) -> list[tuple[int, ...]]:
        """List what is not 0: the group's number, the place in its counts, and the count."""
        found = self.counts.tocoo()
        axes = [found.row, *np.unravel_index(found.col, self._shape), found.data.astype(np.int64)]
        return sorted(zip(*(axis.tolist() for axis in axes), strict=True))

    def resampled(self, resamples: int, seed: int) -> Floats:
        """Draw groups with replacement.

        Args:
            resamples: R.
            seed: Of the draws.

        Returns:
            `(R, ...)` counts.
        """
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(self.groups, np.full(self.groups, 1 / self.groups), size=resamples)
        product = sparse.csr_matrix(weights.astype(np.float64)) @ self.counts
        return np.asarray(product.todense(), dtype=np.float64).reshape(resamples, *self._shape)

    def score(self, metric: Callable[[Floats], Floats], resamples: int = 1000, seed: int = 0) -> Score:
        """Compute a metric with its interval.

        Args:
            metric: From counts `(..., K, K)` to values `(...)`.
            resamples: Of the bootstrap.
            seed: Of the bootstrap.
        """
        return score_of(float(metric(self.matrix)), metric(self.resampled(resamples, seed)), self.n, self.groups)


def numbered_groups(
    truth: npt.NDArray[np.generic],
    prediction: npt.NDArray[np.generic],
    groups: Sequence[object] | npt.NDArray[np.object_],
) -> tuple[npt.NDArray[np.int64], int]:
    """Number the groups of samples.

    Args:
        truth: `(N, ...)`.
        prediction: Of the same shape.
        groups: `(N,)` the place of each sample, any hashable values.

    Returns:
        The number of each value's group, of the shape of `truth`; how many groups there are.

    Raises:
        InputError: If shapes differ.
    """
    if truth.shape != prediction.shape:
        raise InputError(f"truth {truth.shape} and prediction {prediction.shape} differ in shape")
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return np.broadcast_to(group.reshape(-1, *[1] * (truth.ndim - 1)), truth.shape), len(names)


class ConfusionCounts(GroupedCounts):
    """Confusion counts per group, `(K, K)`: rows are truth, columns prediction."""

    def __init__(
        self,
        truth: npt.NDArray[np.integer],
        prediction: npt.NDArray[np.integer],
        groups: Sequence[object] | npt.NDArray[np.object_],
        classes: int,
    ) -> None:
        """Count.

        Args:
            truth: `(N, ...)` class indices; `IGNORE` is left out.
            prediction: `(N, ...)` class indices, same shape.
            groups: `(N,)` the place of each sample, any hashable values.
            classes: K.

        Raises:
            InputError: If shapes differ or nothing is left to score.
        """
        group, count = numbered_groups(truth, prediction, groups)
        scored = truth != IGNORE
        if not scored.any():
            raise InputError("nothing to score: every label is ignored")
        cell = truth[scored].astype(np.int64) * classes + prediction[scored].astype(np.int64)
        counts = sparse.coo_matrix(
            (np.ones(cell.size), (group[scored], cell)), shape=(count, classes * classes)
        ).tocsr()
        counts.sum_duplicates()
        super().__init__(counts, (classes, classes), len(truth))


def accuracy(counts: Floats) -> Floats:
    """Return the share that is right (top-1, or pixel accuracy): `(..., K, K)` → `(...)`."""
    return np.asarray(ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum((-2, -1))))


def per_class_accuracy(counts: Floats) -> Floats:
    """Return the recall of each class, `(..., K)`; NaN for a class without truth."""
    return ratio(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1))


def mean_class_accuracy(counts: Floats) -> Floats:
    """Return the mean recall of the classes that have truth."""
    return mean_present(per_class_accuracy(counts))


def per_class_iou(counts: Floats) -> Floats:
    """Return the intersection over union of each class, `(..., K)`; NaN for a class without truth.

    What is wrongly predicted as such a class still counts against the classes that are there.
    """
    hit, there = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1)
    return np.asarray(np.where(there > 0, ratio(hit, there + counts.sum(-2) - hit), np.nan))


def mean_iou(counts: Floats) -> Floats:
    """Return the mean IoU of the classes that have truth."""
    return mean_present(per_class_iou(counts))


def change_precision(counts: Floats) -> Floats:
    """Return the share of the pixels predicted as changed (class 1) that did change."""
    return ratio(counts[..., 1, 1], counts[..., :, 1].sum(-1))


def change_recall(counts: Floats) -> Floats:
    """Return the share of the changed pixels (class 1) that were found."""
    return ratio(counts[..., 1, 1], counts[..., 1, :].sum(-1))


def change_f1(counts: Floats) -> Floats:
    """Return the harmonic mean of precision and recall of change."""
    hit = counts[..., 1, 1]
    return ratio(2 * hit, counts[..., :, 1].sum(-1) + counts[..., 1, :].sum(-1))


def change_iou(counts: Floats) -> Floats:
    """Return the intersection over union of change; NaN where none was, and none was found."""
    hit = counts[..., 1, 1]
    return ratio(hit, counts[..., :, 1].sum(-1) + counts[..., 1, :].sum(-1) - hit)


def ratio(part: Floats, whole: Floats) -> Floats:
    """Divide where there is something to divide by; NaN elsewhere."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(whole > 0, part / whole, np.nan))


def mean_present(values: Floats) -> Floats:
    """Return the mean of what is a number along the last axis; NaN where nothing is."""
    present = np.isfinite(values)
    return ratio(np.where(present, values, 0).sum(-1), present.sum(-1))


class LabelCounts(GroupedCounts):
    """Counts of yes and no per label and group, `(K, 2, 2)`: rows are truth, columns prediction."""

    def __init__(
        self,
        truth: npt.NDArray[np.integer],
        prediction: npt.NDArray[np.integer],
        groups: Sequence[object] | npt.NDArray[np.object_],
    ) -> None:
        """Count.

        Args:
            truth: `(N, K)` of 0 and 1.
            prediction: `(N, K)` of 0 and 1.
            groups: `(N,)` the place of each sample.

        Raises:
            InputError: If shapes differ.
        """
        group, count = numbered_groups(truth, prediction, groups)
        labels = truth.shape[1]
        cell = np.arange(labels) * 4 + truth.astype(np.int64) * 2 + prediction.astype(np.int64)
        rows, shape = group.ravel(), (count, 4 * labels)
        counts = sparse.coo_matrix((np.ones(cell.size), (rows, cell.ravel())), shape=shape).tocsr()
        super().__init__(counts, (labels, 2, 2), len(truth))


def label_f1(counts: Floats) -> Floats:
    """Return the F1 of each label: `(..., K, 2, 2)` → `(..., K)`; NaN for a label without truth."""
    return np.asarray(np.where(counts[..., 1, :].sum(-1) > 0, change_f1(counts), np.nan))


def macro_f1(counts: Floats) -> Floats:
    """Return the mean F1 of the labels that have truth."""
    return mean_present(label_f1(counts))


def micro_f1(counts: Floats) -> Floats:
    """Return the F1 over all labels together, also of those without truth: what is wrongly found counts."""
    return change_f1(counts.sum(axis=-3))
