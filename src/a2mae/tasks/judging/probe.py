"""Linear probe: logistic regression by L-BFGS on frozen features, its regularisation chosen on validation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


@dataclass(frozen=True)
class ProbeResult:
    """What the probe said.

    Attributes:
        prediction: `(N,)` classes of the test features.
        c: The inverse regularisation that won on validation.
        validation_accuracy: With it.
    """

    prediction: npt.NDArray[np.int64]
    c: float
    validation_accuracy: float


def linear_probe(
    train: npt.NDArray[np.float32],
    train_labels: npt.NDArray[np.int64],
    validation: npt.NDArray[np.float32],
    validation_labels: npt.NDArray[np.int64],
    test: npt.NDArray[np.float32],
    *,
    c_grid: Sequence[float] = (0.01, 0.1, 1.0, 10.0),
    max_iter: int = 200,
) -> ProbeResult:
    """Fit on train, choose C on validation, predict test.

    Args:
        train: `(M, D)` features; standardised by their own mean and deviation.
        train_labels: `(M,)`.
        validation: `(V, D)`; with none, the middle of `c_grid` is used.
        validation_labels: `(V,)`.
        test: `(N, D)`.
        c_grid: Inverse strengths of the L2 penalty to try.
        max_iter: Of L-BFGS, per value.
    """
    scaler = StandardScaler().fit(train)
    candidates = list(c_grid) if len(validation) else [sorted(c_grid)[len(c_grid) // 2]]
    best: tuple[float, float, LogisticRegression] | None = None
    inputs = scaler.transform(train)
    for c in candidates:
        model = LogisticRegression(C=c, max_iter=max_iter)
        with warnings.catch_warnings():
            # A probe stopped by max_iter is still a probe: validation decides whether it is the best one.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(inputs, train_labels)
        accuracy = float(model.score(scaler.transform(validation), validation_labels)) if len(validation) else 0.0
        if best is None or accuracy > best[0]:
            best = (accuracy, c, model)
    assert best is not None
    accuracy, c, model = best
    return ProbeResult(model.predict(scaler.transform(test)).astype(np.int64), float(c), accuracy)
