"""Make a trained model's probabilities honest on the validation split, and choose from which one a rare class is there.

Temperature scaling (Guo et al. 2017, arXiv 1706.04599) divides all logits by one number; it changes no order.
"""

from __future__ import annotations

import dataclasses
import logging
import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from a2mae.tasks.datasets.inputs import TaskInputs
from a2mae.tasks.datasets.task_data import IGNORE
from a2mae.tasks.finetune.model import HeadConfig, TaskModel
from a2mae.tasks.finetune.train import outputs_of
from a2mae.tasks.finetune.transitions import split_codes

logger = logging.getLogger(__name__)

_MOST_LABELS = 50_000
"""Of which temperature and thresholds are computed: more change no digit that matters."""
_RANGE = (0.25, 10.0)
_STEPS = np.arange(1, 100) / 100
"""Probabilities that a threshold is chosen from."""


def calibrate(
    model: TaskModel, inputs: TaskInputs, rows: npt.NDArray[np.int64], *, seed: int, device: torch.device
) -> None:
    """Fit the temperature of a model's probabilities, and thresholds of labels and changes by their F1.

    Args:
        model: Of classes; its configuration is changed. Values have no probabilities.
        inputs: The data.
        rows: Validation rows; without any, all stays as it is.
        seed: Of the labels that are drawn.
        device: Where the model runs.
    """
    config = model.config
    if config.scaling is not None:
        return
    if not len(rows):
        logger.info("%s: no validation split, so probabilities are as the model gives them", config.task)
        return
    outputs, labels = _drawn(model, inputs, rows, seed, device)
    if not len(labels):
        return

    def loss(log_temperature: float) -> float:
        return float(_surprise(config, outputs / math.exp(log_temperature), labels))

    found = minimize_scalar(loss, bounds=(math.log(_RANGE[0]), math.log(_RANGE[1])), method="bounded")
    config = dataclasses.replace(config, temperature=round(math.exp(float(found.x)), 4))
    thresholds = _thresholds(config, outputs, labels)
    model.config = dataclasses.replace(config, thresholds=thresholds)
    logger.info(
        "%s: temperature %.3g by %d validation labels (log loss %.4f -> %.4f)%s",
        config.task, config.temperature, len(labels), loss(0.0), float(found.fun),
        f", yes from a probability of {', '.join(f'{one:g}' for one in thresholds)}" if thresholds else "",
    )  # fmt: skip


def _drawn(
    model: TaskModel, inputs: TaskInputs, rows: npt.NDArray[np.int64], seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Outputs `(M, outputs)` and labels `(M,)` or `(M, K)` of validation, drawn where there are many."""
    rng = np.random.default_rng(seed)
    outputs, labels = [], []
    for numbers, batch in outputs_of(model, inputs, rows, batch_size=64, device=device):
        target = torch.from_numpy(inputs.data.read_targets(numbers).astype(np.int64))
        flat = batch.float().cpu().movedim(1, -1).reshape(-1, batch.shape[1])
        target = target if model.config.multi_label else target.reshape(-1)
        known = np.arange(len(flat)) if model.config.multi_label else np.flatnonzero(target.numpy() != IGNORE)
        most = max(_MOST_LABELS * len(batch) // len(rows), 1)
        chosen = torch.from_numpy(np.sort(rng.permutation(known)[:most]))
        outputs.append(flat[chosen])
        labels.append(target[chosen])
    return torch.cat(outputs), torch.cat(labels)


def _surprise(config: HeadConfig, logits: Tensor, labels: Tensor) -> Tensor:
    """The mean log loss of labels."""
    if config.multi_label:
        return F.binary_cross_entropy_with_logits(logits, labels.float())
    targets = split_codes(labels, config.classes) if config.task.kind.transitions else (labels,)
    losses = [
        F.cross_entropy(part, target, ignore_index=IGNORE)
        for part, target in zip(config.parts(logits), targets, strict=True)
        if bool((target != IGNORE).any())
    ]
    return torch.stack(losses).sum()


def _thresholds(config: HeadConfig, outputs: Tensor, labels: Tensor) -> tuple[float, ...]:
    """From which probability each label, or a change, is best said to be there; other tasks take the likeliest."""
    probabilities = config.probabilities(outputs)
    if config.multi_label:
        yes = labels.numpy() == 1
        return tuple(best_threshold(yes[:, k], probabilities[:, k].numpy()) for k in range(config.classes))
    if config.task.kind.transitions:
        return (best_threshold(split_codes(labels, config.classes)[2].numpy() == 1, probabilities[:, -1].numpy()),)
    if config.task.kind.dates == 2:
        return (best_threshold(labels.numpy() == 1, probabilities[:, 1].numpy()),)
    return ()


def best_threshold(yes: npt.NDArray[np.bool_], probability: npt.NDArray[np.floating]) -> float:
    """Choose the hundredth from which saying yes has the best F1; of equal ones that nearest to 0.5.

    Args:
        yes: `(M,)` what is true.
        probability: `(M,)` of a yes.

    Returns:
        The threshold; 0.5 where nothing is a yes.
    """
    if not yes.any():
        return 0.5
    f1 = []
    for step in _STEPS:
        said = probability > step
        f1.append(2 * int((said & yes).sum()) / (int(said.sum()) + int(yes.sum())))
    best = np.flatnonzero(np.array(f1) >= max(f1) - 1e-12)
    return float(_STEPS[best[np.argmin(np.abs(_STEPS[best] - 0.5))]])
