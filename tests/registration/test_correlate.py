"""The correlation itself, against another implementation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from skimage.registration import phase_cross_correlation

from a2mae.registration.correlate import match, structure

from .conftest import cut, scene


def test_whole_lags_agree_with_scikit_image() -> None:
    image = scene(3)
    one, other = (
        structure(cut(image, 2, d, r), np.ones((192, 192), bool), gsd_m=10, work_gsd=10, blur_gsd_m=10)
        for d, r in ((0, 0), (6, -4))
    )
    expected, _, _ = phase_cross_correlation(
        np.abs(one.field), np.abs(other.field), reference_mask=one.known, moving_mask=other.known
    )
    found = match(one, other, max_shift_m=60)
    assert found is not None
    np.testing.assert_allclose([-found.shift_y_m / 10, found.shift_x_m / 10], expected, atol=0.1)


def test_grids_must_agree() -> None:
    make: Callable[[float], object] = lambda g: structure(  # noqa: E731
        cut(scene(5), 2), np.ones((192, 192), bool), gsd_m=10, work_gsd=g, blur_gsd_m=10
    )
    with pytest.raises(ValueError, match="different grids"):
        match(make(10.0), make(20.0), max_shift_m=30)
