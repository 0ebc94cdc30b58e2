"""Products with weights: each sum runs in the order of its weights, whatever the processor, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from a2mae.products import least_squares, weigh


def in_order(rows: NDArray[np.float32], image: NDArray[np.float32]) -> NDArray[np.float32]:
    """`rows @ image`, one rounded product after the other."""
    result = np.zeros((len(rows), image.shape[1]), image.dtype)
    for at, weights in enumerate(rows):
        for column, weight in enumerate(weights):
            if weight != 0:
                result[at] = result[at] + times(weight, image[column])
    return result


def times(weight: np.float32, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A complex product of four rounded ones; NumPy's own may round two of them at once."""
    if not np.iscomplexobj(values):
        return weight * values
    real = weight.real * values.real - weight.imag * values.imag
    return real + np.complex64(1j) * (weight.real * values.imag + weight.imag * values.real)


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.complex64]), st.integers(0, 3))
def test_law_a_product_is_the_sum_in_the_order_of_the_weights(seed: int, dtype: type, images: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, out_height, out_width = rng.integers(1, 40, 4)

    def drawn(*shape: int) -> NDArray[np.float32]:
        values = rng.normal(size=shape) * 10.0 ** rng.integers(-4, 5, shape)
        return (values + 1j * rng.normal(size=shape) if dtype is np.complex64 else values).astype(dtype)

    rows, columns = (drawn(*shape) * (rng.random(shape) < 0.3) for shape in ((out_height, height), (out_width, width)))
    rows, columns = rows.astype(dtype), columns.astype(dtype)
    source = drawn(*(2,) * images, height, width)
    found = weigh(sparse.csr_array(rows), source, sparse.csr_array(columns))
    assert found.dtype == dtype and found.shape == (*(2,) * images, out_height, out_width)
    for image, result in zip(source.reshape(-1, height, width), found.reshape(-1, out_height, out_width), strict=True):
        expected = in_order(columns, in_order(rows, image).T).T
        assert np.array_equal(result, expected)


@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_law_least_squares_are_numpys(seed: int, nodes: int) -> None:
    """On networks of comparisons, where only differences are known: the smallest solution, in each connected part."""
    rng = np.random.default_rng(seed)
    edges = np.array([sorted(rng.choice(nodes, 2, replace=False)) for _ in range(rng.integers(1, 3 * nodes))])
    weights = rng.uniform(0.1, 30, len(edges))
    dense = np.zeros((len(edges), nodes))
    dense[np.arange(len(edges)), edges[:, 0]], dense[np.arange(len(edges)), edges[:, 1]] = weights, -weights
    values = weights * rng.normal(0, 20, len(edges))
    expected = np.linalg.lstsq(dense, values, rcond=1e-12)[0]
    assert least_squares(sparse.csr_array(dense), values) == pytest.approx(expected, abs=1e-6)


def test_nothing_measured_moves_nothing() -> None:
    found = least_squares(sparse.csr_array(np.array([[1.0, -1.0]])), np.zeros(1))
    assert np.array_equal(found, [0, 0])
