import itertools
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2mae.tasks import tiling
from a2mae.tasks.tiling import blend_weight, blended_strips, starts


@given(length=st.integers(1, 300), size=st.integers(1, 64), data=st.data())
def test_windows_cover_every_pixel_and_stay_inside(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    covered = np.zeros(max(length, size), int)
    positions = starts(length, size, overlap)
    for start in positions:
        covered[start : start + size] += 1
    assert covered[:length].min() >= 1
    assert positions == sorted(set(positions))
    if length >= size:
        assert positions[-1] + size == length
        assert all(b - a <= size - overlap for a, b in itertools.pairwise(positions))


def test_overlap_as_large_as_the_window_is_refused():
    with pytest.raises(ValueError, match="overlap must be 0 to 7"):
        starts(100, 8, 8)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(4, 24),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_strips_equal_blending_in_memory_and_resume_anywhere(height, width, size, seed, data):
    overlap = data.draw(st.integers(0, size // 2))
    first_row = data.draw(st.integers(0, height))
    truth = np.random.default_rng(seed).normal(size=(2, max(height, size), max(width, size))).astype(np.float32)

    def predict(row, columns):
        # Every window disagrees by its own constant, so that wrong blending shows.
        return np.stack([truth[:, row : row + size, col : col + size] + np.float32(row * 7 + col) for col in columns])

    total, weights = np.zeros_like(truth), np.zeros(truth.shape[1:], np.float32)
    for row in starts(height, size, overlap):
        for col in starts(width, size, overlap):
            window = (slice(row, row + size), slice(col, col + size))
            weights[window] += blend_weight(size, overlap)
            total[:, *window] += (truth[:, *window] + np.float32(row * 7 + col)) * blend_weight(size, overlap)
    expected = (total / np.where(weights > 0, weights, 1))[:, :height, :width]

    def run(from_row, to_row=None):
        out = np.full((2, height, width), np.nan, np.float32)
        for row, strip in blended_strips(
            height, width, 2, size=size, overlap=overlap, predict=predict, batch=3,
            first_row=from_row, last_row=to_row,
        ):  # fmt: skip
            assert np.isnan(out[:, row : row + strip.shape[1]]).all()  # no row twice
            out[:, row : row + strip.shape[1]] = strip
        return out

    np.testing.assert_allclose(run(0), expected, rtol=1e-4, atol=1e-4)
    resumed = run(first_row)
    assert np.isnan(resumed[:, :first_row]).all()
    np.testing.assert_array_equal(resumed[:, first_row:], run(0)[:, first_row:])
    begin, end = sorted(data.draw(st.sampled_from([*starts(height, size, overlap), height])) for _ in range(2))
    band = run(begin, end)
    np.testing.assert_array_equal(band[:, begin:end], run(0)[:, begin:end])
    assert np.isnan(band[:, :begin]).all() and np.isnan(band[:, end:]).all()


def test_a_large_raster_says_its_time_after_the_first_windows_and_every_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """60,000 rows and columns in windows of 512: a batch of eight takes two seconds of this clock."""
    now = [0.0]
    monkeypatch.setattr(tiling.time, "monotonic", lambda: now[0])
    progress = tiling._Progress("segment map", 126 * 126)
    with caplog.at_level(logging.INFO, logger=tiling.__name__):
        for _ in range(126 * 126 // 4):
            now[0] += 2.0
            progress.add(4)
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "segment map: 4 of 15,876 windows, about 2.2 h left"
    assert told[1] == "segment map: 124 of 15,876 windows, about 2.2 h left"
    assert len(told) == 1 + 126 * 126 // 4 * 2 // 60
    caplog.clear()
    with caplog.at_level(logging.INFO, logger=tiling.__name__):
        tiling._Progress("segment map", 4).add(4)
    assert not caplog.records, "a map of a moment says nothing"


def test_strips_count_the_windows_that_are_left(caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    counted: list[tuple[int, int]] = []
    monkeypatch.setattr(tiling._Progress, "add", lambda self, done: counted.append((self._windows, done)))
    predict = lambda row, columns: np.ones((len(columns), 1, 8, 8), np.float32)  # noqa: E731
    for first_row in (0, 20):
        counted.clear()
        list(blended_strips(40, 30, 1, size=8, overlap=2, predict=predict, batch=3, first_row=first_row))
        assert {total for total, _ in counted} == {sum(done for _, done in counted)}
