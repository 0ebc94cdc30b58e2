"""Features as colours: what varies most in them, as red, green and blue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from a2mae.reporting.pictures import BytesImage, unit_to_bytes

_SHOWN_PCT = (2.0, 98.0)


def components_as_colours(features: NDArray[np.float32], valid: NDArray[np.bool_]) -> BytesImage:
    """The first three principal components of features, each stretched for itself.

    Args:
        features: `(D, H, W)`.
        valid: `(H, W)`; grey where not.

    Returns:
        `(H, W, 3)`.
    """
    shown = np.zeros((3, *valid.shape), np.float32)
    vectors = features[:, valid].astype(np.float64)
    if vectors.shape[1] > 1:
        vectors -= vectors.mean(axis=1, keepdims=True)
        with threadpool_limits(1):  # the same bytes, however many threads BLAS has
            axes = np.linalg.eigh(vectors @ vectors.T)[1][:, :-4:-1]
            axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # either sign is an axis
            components = axes.T @ vectors
        low, high = np.percentile(components, _SHOWN_PCT, axis=1)[:, :, None]
        shown[: len(components), valid] = (components - low) / np.maximum(high - low, 1e-9)
    return unit_to_bytes(shown, valid)
