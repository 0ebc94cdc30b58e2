"""PR-AUC against scikit-learn and the calibration error against a second writing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from a2mae.tasks.metrics.probabilities import (
    CONFIDENCES,
    STEPS,
    ProbabilityCounts,
    average_precision,
    calibration_error,
)

SHARES = st.lists(st.tuples(st.booleans(), st.integers(0, STEPS)), min_size=1, max_size=60)


def counted(yes, probability, places=None):
    counts = ProbabilityCounts(places or ["a"] * len(yes), 1)
    counts.add(slice(None), np.array(yes)[:, None], np.array(probability)[:, None], np.ones(len(yes), bool))
    return counts.of_class(0)


@given(SHARES)
def test_law_pr_auc_equals_scikit_learns(cases):
    yes, step = (np.array(part) for part in zip(*cases, strict=True))
    found = float(average_precision(counted(yes, step / STEPS).matrix))
    if not yes.any():
        assert np.isnan(found)
        return
    assert found == pytest.approx(average_precision_score(yes, step / STEPS), abs=1e-9)


def test_it_equals_it_on_many_random_cases():
    rng = np.random.default_rng(0)
    largest = 0.0
    for share in np.linspace(0.01, 0.9, 40):
        yes = rng.random(3000) < share
        yes[0] = True
        probability = np.round(np.clip(rng.normal(0.3 + 0.2 * yes, 0.2), 0, 1), 3)
        found = float(average_precision(counted(yes, probability).matrix))
        largest = max(largest, abs(found - average_precision_score(yes, probability)))
    assert largest < 1e-9


def ece_of(right, sure):
    total, error = len(right), 0.0
    for index in range(CONFIDENCES):
        low, high = index / CONFIDENCES, (index + 1) / CONFIDENCES
        here = [(r, s) for r, s in zip(right, sure, strict=True) if low < s <= high or (index == 0 and s == 0)]
        if here:
            accuracy = sum(r for r, _ in here) / len(here)
            error += len(here) / total * abs(accuracy - sum(s for _, s in here) / len(here))
    return error


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), min_size=1, max_size=60))
def test_law_calibration_error_equals_a_second_writing(cases):
    right, step = (np.array(part) for part in zip(*cases, strict=True))
    sure = step / 3001  # a prime: none but 0 lies on an edge of the ranges, where rounding decides on which side it is
    counts = ProbabilityCounts(["a"] * len(right), 1)
    counts.add_answers(slice(None), right, sure, np.ones(len(right), bool))
    assert float(calibration_error(counts.answers().matrix)) == pytest.approx(ece_of(right, sure), abs=1e-9)


def test_batches_add_up_by_place_and_unknown_labels_do_not_count():
    rng = np.random.default_rng(2)
    yes, probability = rng.random((4, 2, 3, 3)) < 0.4, rng.random((4, 2, 3, 3))
    known = rng.random((4, 3, 3)) < 0.7
    counts = ProbabilityCounts(list("abab"), 2)
    for start in (0, 2):
        part = slice(start, start + 2)
        counts.add(part, yes[part], probability[part], known[part])
        counts.add_answers(part, yes[part, 0], probability[part, 0], known[part])
    for index in (0, 1):
        found = float(average_precision(counts.of_class(index).matrix))
        wanted = average_precision_score(yes[:, index][known], np.round(probability[:, index][known], 3))
        assert found == pytest.approx(wanted, abs=1e-9)
    assert counts.of_class(0).groups == 2 and counts.of_class(0).matrix.sum() == known.sum()
    assert counts.answers().matrix[:, 0].sum() == known.sum()
    drawn = counts.of_class(1).resampled(50, 0)
    assert average_precision(drawn).shape == (50,) and np.isfinite(average_precision(drawn)).all()
