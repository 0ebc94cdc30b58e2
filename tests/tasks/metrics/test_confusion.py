"""Metrics from confusion counts, and their intervals over places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, recall_score

from a2mae.tasks.datasets.task_data import IGNORE
from a2mae.tasks.metrics import confusion as metrics


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 5))
def test_scores_equal_scikit_learn(seed, classes):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (6, 4, 4)).astype(np.uint8)
    prediction = rng.integers(0, classes, truth.shape).astype(np.uint8)
    truth[0, 0, 0] = IGNORE
    scored = truth != IGNORE
    counts = metrics.ConfusionCounts(truth, prediction, np.arange(6), classes).matrix
    t, p = truth[scored], prediction[scored]
    assert metrics.accuracy(counts) == pytest.approx(accuracy_score(t, p))
    in_truth = sorted(set(t))
    assert metrics.mean_iou(counts) == pytest.approx(jaccard_score(t, p, labels=in_truth, average="macro"))
    assert metrics.mean_class_accuracy(counts) == pytest.approx(recall_score(t, p, labels=in_truth, average="macro"))
    if classes == 2:
        assert metrics.change_f1(counts) == pytest.approx(f1_score(t, p))
        assert metrics.change_iou(counts) == pytest.approx(jaccard_score(t, p))


def test_interval_holds_the_value_and_shrinks_with_groups():
    rng = np.random.default_rng(0)

    def score(groups):
        truth = np.ones(groups, np.uint8)
        prediction = (rng.random(groups) < 0.8).astype(np.uint8)
        return metrics.ConfusionCounts(truth, prediction, np.arange(groups), 2).score(metrics.accuracy)

    few, many = score(50), score(5000)
    assert few.low < few.value < few.high
    assert many.high - many.low < 0.2 * (few.high - few.low)
    # 95 % of a binomial share: 1.96 * sqrt(p q / n)
    assert many.high - many.low == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 5000), rel=0.2)


def test_pixels_of_one_place_are_resampled_together():
    truth = np.ones((40, 100), np.uint8)
    prediction = np.zeros_like(truth)
    prediction[:20] = 1  # each image all right or all wrong
    by_image = metrics.ConfusionCounts(truth, prediction, np.arange(40), 2).score(metrics.accuracy)
    one_place = metrics.ConfusionCounts(truth, prediction, ["a"] * 40, 2).score(metrics.accuracy)
    assert by_image.high - by_image.low > 0.25  # far wider than 4000 independent pixels would give (0.03)
    assert (one_place.groups, one_place.low, one_place.high) == (1, 0.0, 1.0)  # nothing follows for other places


def test_nothing_to_score_is_an_error():
    nothing = np.full((2, 3), IGNORE, np.uint8)
    with pytest.raises(ValueError, match="every label is ignored"):
        metrics.ConfusionCounts(nothing, nothing, ["a", "b"], 2)


def test_a_class_that_test_does_not_have_is_in_no_mean():
    """It was counted with 0 wherever the model had named it once."""
    truth = np.array([[0, 0, 0, 1, 1, 1]], np.uint8)
    prediction = np.array([[0, 0, 2, 1, 1, 1]], np.uint8)
    counts = metrics.ConfusionCounts(truth, prediction, ["a"], 3).matrix
    assert np.isnan(metrics.per_class_iou(counts)).tolist() == [False, False, True]
    assert metrics.mean_iou(counts) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.mean_class_accuracy(counts) == pytest.approx((2 / 3 + 1) / 2)
    several = np.array([[1, 1, 0], [1, 0, 0]], np.uint8)
    found = np.array([[1, 1, 1], [0, 0, 0]], np.uint8)
    labels = metrics.LabelCounts(several, found, ["a", "b"]).matrix
    assert metrics.macro_f1(labels) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.micro_f1(labels) == pytest.approx(2 * 2 / (3 + 3)), "what was wrongly found is counted there"


def test_change_that_was_only_found_scores_nothing():
    still, changed = np.zeros((1, 4), np.uint8), np.ones((1, 4), np.uint8)
    counts = metrics.ConfusionCounts(still, changed, ["a"], 2).matrix
    assert metrics.change_iou(counts) == 0 and metrics.change_f1(counts) == 0
