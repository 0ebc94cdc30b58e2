import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2mae.simulate.view.sensor import halo, kernel, reduce

FACTORS = st.integers(2, 9)


@given(FACTORS)
def test_weights_are_symmetric_and_sum_to_one(factor):
    weights = kernel(factor)
    assert len(weights) == factor + 2 * halo(factor)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert np.allclose(weights, weights[::-1], atol=1e-7)


@given(FACTORS, st.integers(0, 1000))
def test_brightness_and_place_are_kept(factor, seed):
    rng = np.random.default_rng(seed)
    side, margin = 9, halo(factor)
    fine = np.zeros((side * factor + 2 * margin, side * factor + 2 * margin), dtype=np.float32)
    row, column = rng.integers(3 * factor, 6 * factor, size=2) + margin
    fine[row, column] = 1.0
    seen = reduce(fine, factor)
    assert seen.shape == (side, side)
    assert seen.sum() == pytest.approx(1 / factor**2, rel=0.12)  # a pixel's weights are sampled, not integrated
    y, x = np.mgrid[:side, :side] + 0.5
    place = np.array([(seen * y).sum(), (seen * x).sum()]) / seen.sum() * factor
    assert place == pytest.approx([row - margin + 0.5, column - margin + 0.5], abs=0.08 * factor)


@given(FACTORS)
def test_level_ground_stays_level(factor):
    size = 5 * factor + 2 * halo(factor)
    assert reduce(np.full((size, size), 0.3, np.float32), factor) == pytest.approx(np.full((5, 5), 0.3), abs=1e-6)


def test_modulation_at_the_nyquist_frequency_is_that_of_real_instruments():
    factor = 9
    size = 40 * factor + 2 * halo(factor)
    wave = np.cos(np.pi * (np.arange(size) - halo(factor) + 0.5) / factor - np.pi / 2)
    seen = reduce(np.broadcast_to(wave, (size, size)).astype(np.float32), factor)
    assert 0.2 < np.abs(seen[5, 5:-5]).mean() < 0.35
