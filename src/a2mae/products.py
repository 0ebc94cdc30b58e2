"""Products of images with weights whose sums run in one order: the same bytes on every processor.

NumPy's `@` hands its sums to BLAS, which picks another kernel, and with it another order, on another processor. SciPy's
sparse products add in the order of the stored weights, and where an image is resampled or blurred most weights are 0.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Number = TypeVar("Number", np.float32, np.complex64)


def weigh(rows: sparse.csr_array, images: NDArray[Number], columns: sparse.csr_array) -> NDArray[Number]:
    """Weigh the rows and columns of images: `rows @ image @ columns.T`.

    Args:
        rows: `(H, h)` weights, of the images' type.
        images: `(..., h, w)`.
        columns: `(W, w)` weights.

    Returns:
        `(..., H, W)`.
    """
    return _weigh_rows(columns, _weigh_rows(rows, images).swapaxes(-1, -2)).swapaxes(-1, -2)


def _weigh_rows(rows: sparse.csr_array, images: NDArray[Number]) -> NDArray[Number]:
    """`rows @ image` of each image: all images stand side by side in one product."""
    first = np.moveaxis(images, -2, 0)
    weighed = rows @ first.reshape(len(first), -1)
    return np.moveaxis(np.asarray(weighed).reshape(len(weighed), *first.shape[1:]), 0, -2)


def least_squares(matrix: sparse.csr_array, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve `matrix @ x = values` in the least-squares sense; of several solutions the smallest.

    Conjugate gradients on the normal equations (Hestenes and Stiefel 1952). SciPy's own solvers take their sums from
    BLAS.

    Args:
        matrix: `(M, N)`.
        values: `(M,)`.

    Returns:
        `(N,)`, to a relative 1e-12 of the gradient.
    """
    back = matrix.T.tocsr()
    solution, residual = np.zeros(matrix.shape[1]), values
    gradient = back @ residual
    direction, size = gradient, np.square(gradient).sum()
    enough = 1e-24 * size
    for _ in range(10 * matrix.shape[1]):  # N without rounding
        if size <= enough:
            break
        ahead = matrix @ direction
        step = size / np.square(ahead).sum()
        solution, residual = solution + step * direction, residual - step * ahead
        gradient = back @ residual
        size, before = np.square(gradient).sum(), size
        direction = gradient + (size / before) * direction
    return solution
