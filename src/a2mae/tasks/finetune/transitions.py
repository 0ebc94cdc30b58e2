"""Semantic change: the loss that class before, class after and change are learnt by, and what is decided of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.tasks.datasets.task_data import IGNORE
from a2mae.tasks.transitions import UNCHANGED

_CONSISTENCY = 0.5
"""Weight of unlike classes on unchanged ground beside the losses of the two classes and the change."""


def split_codes(codes: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give class before, class after (`IGNORE` where not known) and changed (0, 1, `IGNORE`) of `(B, H, W)` numbers.

    Args:
        codes: As `a2mae.tasks.transitions.encode` has them.
        classes: K.
    """
    known = (codes != UNCHANGED) & (codes != IGNORE)
    pair = torch.where(known, codes, 1) - 1
    before, after = (torch.where(known, half, IGNORE) for half in (pair // classes, pair % classes))
    return before, after, torch.where(codes == IGNORE, IGNORE, (before != after).long())


def split_outputs(outputs: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split `(B, 2 K + 2, ...)` into what is said of the class before, the class after, and unchanged and changed.

    Args:
        outputs: Of a model, or probabilities.
        classes: K.
    """
    before, after, change = torch.split(outputs, [classes, classes, 2], dim=1)
    return before, after, change


class TransitionLoss(nn.Module):
    """The losses of both classes and of the change, and how unlike the two classes are on unchanged ground.

    The last is 1 less the cosine of the two dates' probabilities, after Ding et al. 2022 (10.1109/TGRS.2022.3154390).
    It needs no class there, only that nothing changed.
    """

    def __init__(self, of_classes: nn.Module, of_change: nn.Module, classes: int) -> None:
        """Make the loss.

        Args:
            of_classes: Loss of `(B, K, H, W)` logits and classes of one date.
            of_change: Loss of `(B, 2, H, W)` logits and 0 or 1.
            classes: K.
        """
        super().__init__()
        self.of_classes, self.of_change, self.classes = of_classes, of_change, classes

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of `(B, 2 K + 2, H, W)` outputs and `(B, H, W)` numbers of transitions."""
        was, became, change = split_outputs(outputs.float(), self.classes)
        before, after, changed = split_codes(target.long(), self.classes)
        loss: Tensor = (self.of_classes(was, before) + self.of_classes(became, after)) / 2
        loss = loss + self.of_change(change, changed)
        unchanged = changed == 0
        if bool(unchanged.any()):
            unlike = 1 - F.cosine_similarity(was.softmax(dim=1), became.softmax(dim=1), dim=1)
            loss = loss + _CONSISTENCY * unlike[unchanged].mean()
        return loss


def decided(before: Tensor, after: Tensor, change: Tensor, *, least: float = 0.5) -> tuple[Tensor, Tensor]:
    """Decide first whether a pixel changed, then from which class to which, the most probable pair of two classes.

    Args:
        before: `(B, K, ...)` probabilities of the class at the first date.
        after: Likewise, at the second.
        change: `(B, 2, ...)` of unchanged and changed.
        least: Probability of a change from which it is one.

    Returns:
        Numbers of transitions `(B, ...)` uint8, 0 where unchanged; and the probability of what they say: of the
        change times that of the pair among all pairs of two classes.
    """
    classes = before.shape[1]
    best, pair = torch.full_like(change[:, 1], -1.0), torch.zeros_like(change[:, 1], dtype=torch.int64)
    for was in range(classes):  # K maps at a time, not K²
        others = before[:, [was]] * after
        others[:, was] = -1.0
        found = others.max(dim=1)
        pair = torch.where(found.values > best, was * classes + found.indices, pair)
        best = torch.maximum(best, found.values)
    differ = (1 - (before * after).sum(dim=1)).clamp_min(float(np.finfo(np.float32).tiny))
    changed = change[:, 1] > least
    codes = torch.where(changed, 1 + pair, UNCHANGED).to(torch.uint8)
    return codes, torch.where(changed, change[:, 1] * (best / differ).clamp(0, 1), change[:, 0])
