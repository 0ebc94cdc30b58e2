"""Errors of values equal scikit-learn's, and their intervals are over places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from a2mae.tasks.metrics import values


@given(seed=st.integers(0, 2**32 - 1), level=st.sampled_from([0.0, 1.0, -300.0, 1e5]))
def test_scores_equal_scikit_learn(seed, level):
    rng = np.random.default_rng(seed)
    truth = (level + rng.normal(0, 3, (6, 4, 4))).astype(np.float32)
    prediction = (truth + rng.normal(1, 2, truth.shape)).astype(np.float32)
    truth[0, 0, :2] = np.nan
    sums = values.ValueSums(truth, prediction, ["a", "a", "b", "c", "c", "d"]).matrix
    known = np.isfinite(truth)
    t, p = truth[known].astype(np.float64), prediction[known].astype(np.float64)
    assert values.rmse(sums) == pytest.approx(root_mean_squared_error(t, p), rel=1e-9)
    assert values.mae(sums) == pytest.approx(mean_absolute_error(t, p), rel=1e-9)
    assert values.r2(sums) == pytest.approx(r2_score(t, p), rel=1e-9, abs=1e-9)
    assert values.bias(sums) == pytest.approx((p - t).mean(), rel=1e-9)


def test_the_resampled_scores_are_those_of_the_places_that_were_drawn():
    rng = np.random.default_rng(3)
    truth, prediction = rng.normal(50, 9, (2, 12, 5))
    places = np.repeat(["a", "b", "c"], 4)
    drawn = values.ValueSums(truth, prediction, places).resampled(40, seed=8)
    weights = np.random.default_rng(8).multinomial(3, np.full(3, 1 / 3), size=40)
    for sums, weight in zip(drawn, weights, strict=True):
        rows = np.concatenate(
            [np.flatnonzero(places == place).repeat(n) for place, n in zip("abc", weight, strict=True)]
        )
        t, p = truth[rows].ravel(), prediction[rows].ravel()
        assert values.r2(sums) == pytest.approx(r2_score(t, p), rel=1e-9)
        assert values.rmse(sums) == pytest.approx(root_mean_squared_error(t, p), rel=1e-9)


def test_values_that_do_not_vary_have_no_r2_and_nothing_known_is_an_error():
    same = np.full((2, 3), 4.0)
    assert np.isnan(values.r2(values.ValueSums(same, same + 1, ["a", "b"]).matrix))
    with pytest.raises(ValueError, match="every label is unknown"):
        values.ValueSums(np.full((2, 3), np.nan), same, ["a", "b"])
    with pytest.raises(ValueError, match="differ in shape"):
        values.ValueSums(same, same[:1], ["a", "b"])
