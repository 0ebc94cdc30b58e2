"""Metrics of semantic change against a second writing, and their counts per place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from a2mae.tasks.metrics.transitions import TransitionCounts, change_miou, f_scd, iou_of_changed, sek
from a2mae.tasks.transitions import UNKNOWN, changes_alone, decode, encode

K = 3


def second_writing(truth, prediction):
    """SECOND's and F_scd's formulas, pixel by pixel, from maps of each date in which 0 is unchanged."""
    pairs = []
    for there, found in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if there == UNKNOWN:
            continue
        labels = []
        for code in (there, found):
            was, became = divmod(code - 1, K)
            labels.append((was + 1, became + 1) if code and was != became else (0, 0))
        pairs += list(zip(*labels, strict=True))
    q = [[sum(pair == (i, j) for pair in pairs) for i in range(K + 1)] for j in range(K + 1)]  # predicted j, true i
    total = len(pairs)
    nothing = sum(1 for there, found in pairs if there == 0 or found == 0)
    both_changed = sum(1 for there, found in pairs if there and found)
    iou_nc = q[0][0] / nothing if nothing else np.nan
    iou_c = both_changed / (total - q[0][0]) if total > q[0][0] else np.nan
    q[0][0] = 0
    rest = sum(map(sum, q))
    rho = sum(q[i][i] for i in range(K + 1)) / rest if rest else np.nan
    eta = sum(sum(q[i]) * sum(row[i] for row in q) for i in range(K + 1)) / rest**2 if rest else np.nan
    kappa = (rho - eta) / (1 - eta) if rest and eta < 1 else np.nan
    right = sum(1 for there, found in pairs if there and there == found)
    said, meant = sum(1 for _, found in pairs if found), sum(1 for there, _ in pairs if there)
    precision, recall = (right / said if said else np.nan), (right / meant if meant else np.nan)
    both = precision + recall
    f = 2 * precision * recall / both if said and meant and both else (0.0 if said + meant else np.nan)
    return {"miou": (iou_nc + iou_c) / 2, "sek": np.exp(iou_c - 1) * kappa, "f_scd": f}


CODES = st.sampled_from([*range(K * K + 1), UNKNOWN])


@given(
    arrays.arrays(np.uint8, (4, 3, 3), elements=CODES),
    arrays.arrays(np.uint8, (4, 3, 3), elements=st.integers(0, K * K)),
)
def test_law_sek_f_scd_and_miou_equal_a_second_writing(truth, prediction):
    if (truth == UNKNOWN).all():
        return
    counts = TransitionCounts(truth, prediction, list("aabc"), K).matrix
    wanted = second_writing(truth, prediction)
    found = {"miou": change_miou(counts), "sek": sek(counts), "f_scd": f_scd(counts)}
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_they_equal_it_on_many_random_cases():
    rng = np.random.default_rng(0)
    largest = 0.0
    for _ in range(50):
        truth = encode(*rng.integers(0, K, (2, 5, 8, 8)), K)
        prediction = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, K * K + 1, truth.shape))
        truth[rng.random(truth.shape) < 0.1] = UNKNOWN
        prediction = np.where(prediction == UNKNOWN, 0, prediction).astype(np.uint8)
        counts = TransitionCounts(truth, prediction, range(5), K).matrix
        wanted = second_writing(truth, prediction)
        found = (float(change_miou(counts)), float(sek(counts)), float(f_scd(counts)))
        largest = max(largest, *(abs(a - b) for a, b in zip(found, wanted.values(), strict=True)))
    assert largest < 1e-9


def test_what_is_all_right_scores_one_and_unchanged_classes_count_for_nothing():
    truth = encode(np.array([[[0, 1], [2, 2]]]), np.array([[[0, 2], [1, 2]]]), K)
    counts = TransitionCounts(truth, changes_alone(truth, K), ["place"], K)
    assert (change_miou(counts.matrix), sek(counts.matrix), f_scd(counts.matrix)) == (1.0, 1.0, 1.0)
    assert np.isnan(iou_of_changed(counts.matrix)[0]) and iou_of_changed(counts.matrix)[1:].tolist() == [1.0, 1.0]
    assert counts.pairs.by_group() == [(0, 0, 0, 2), (0, 6, 6, 1), (0, 8, 8, 1)]


def test_counts_of_places_add_up_and_are_resampled():
    rng = np.random.default_rng(1)
    truth = encode(*rng.integers(0, K, (2, 6, 4, 4)), K)
    prediction = encode(*rng.integers(0, K, (2, 6, 4, 4)), K)
    counts = TransitionCounts(truth, prediction, list("aabbcc"), K)
    alone = [TransitionCounts(truth[i : i + 2], prediction[i : i + 2], ["a"] * 2, K).matrix for i in (0, 2, 4)]
    assert (sum(alone) == counts.matrix).all() and counts.groups == 3
    assert counts.matrix.sum() == 2 * truth.size, "two dates"
    assert (counts.resampled(20, 0).sum((-2, -1)) == 2 * truth.size).all(), "places are of one size"
    was, _ = decode(changes_alone(truth, K), K)
    assert counts.matrix[0].sum() == 2 * (was == UNKNOWN).sum()
