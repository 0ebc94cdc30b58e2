"""What a pretraining model returns, and how to read the loss by source without waiting for the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MASK_GROUPS = ("anchor", "same_source", "other_source")


@dataclass(frozen=True)
class PretrainOutput:
    """Result of one training forward.

    The leading dimensions `...` are `B, K` for an `ImageSetBatch` and `B` for plain images.

    Attributes:
        loss: Scalar float32, over masked and valid pixels only.
        prediction: Named tensors; `pixels` `(..., C, H, W)` is the reconstruction on the input's scale.
        hidden: `(..., N)` bool, True = masked.
        token_loss: `(..., N)` float32, detached: mean error of each token; 0 where the token is not scored.
        token_weight: `(..., N)` float32: pixels times bands behind `token_loss`; 0 where the token is not scored.
    """

    loss: Tensor
    prediction: dict[str, Tensor]
    hidden: Tensor
    token_loss: Tensor
    token_weight: Tensor


def loss_by_group(
    output: PretrainOutput, sensor_id: Tensor, same_source_as_anchor: Tensor, sensors: int
) -> tuple[Tensor, Tensor]:
    """Loss per source and mask group, as tensors on the device: add them up and read them when you log.

    Args:
        output: Of a forward on an `ImageSetBatch`.
        sensor_id: `(B, K)`.
        same_source_as_anchor: `(B, K)`.
        sensors: How many sensors the run has.

    Returns:
        `total` and `weight`, both `(sensors, 3)` float32, columns as `MASK_GROUPS`; `total / weight` is the mean loss,
        and a weight of 0 says that no such token was scored.
    """
    images = torch.arange(sensor_id.shape[1], device=sensor_id.device)
    group = torch.where(images == 0, 0, torch.where(same_source_as_anchor, 1, 2))  # (B, K)
    cell = (sensor_id * len(MASK_GROUPS) + group).flatten()  # (B*K,)
    weight = output.token_weight.sum(-1).flatten()
    total = (output.token_loss * output.token_weight).sum(-1).flatten()
    size = (sensors * len(MASK_GROUPS),)
    return (
        total.new_zeros(size).index_add(0, cell, total).view(sensors, -1),
        weight.new_zeros(size).index_add(0, cell, weight).view(sensors, -1),
    )
