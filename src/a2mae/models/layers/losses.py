"""Patches of pixels and the losses over them, always in float32 and over masked AND valid pixels only."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-6
"""Added to a patch's variance (MAE §3, A²-MAE loss)."""


def patchify(images: Tensor, patch: int) -> Tensor:
    """`(..., C, H, W)` to `(..., N, patch * patch * C)`, rows of pixels with the band fastest, as MAE orders them."""
    *_, height, width = images.shape
    x = torch.unflatten(images, -1, (width // patch, patch))  # (..., C, H, w, q)
    x = torch.unflatten(x, -3, (height // patch, patch))  # (..., C, h, p, w, q)
    return x.movedim(-5, -1).transpose(-4, -3).flatten(-3).flatten(-3, -2)  # (..., h, w, p, q, C) -> (..., N, p*q*C)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: `(..., N, patch * patch * C)` to `(..., C, H, W)`."""
    bands = patches.shape[-1] // (patch * patch)
    x = torch.unflatten(torch.unflatten(patches, -2, grid), -1, (patch, patch, bands))  # (..., h, w, p, q, C)
    return x.transpose(-4, -3).movedim(-1, -5).flatten(-2).flatten(-3, -2)


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """No autocast on the tensor's device; the meta device, on which FLOPs are counted, has none to switch off."""
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def token_validity(valid: Tensor, patch: int) -> Tensor:
    """`(..., H, W)` bool to `(..., N)` bool: True where a patch has at least one valid pixel."""
    return patchify(valid[..., None, :, :], patch).any(-1)


@dataclass(frozen=True)
class PatchLoss:
    """Result of `masked_patch_loss`.

    Attributes:
        loss: Scalar float32.
        token_loss: `(..., N)` detached mean error of each scored token.
        token_weight: `(..., N)` scored values behind it.
        mean: `(..., N, 1)` of each target patch over its valid values; 0 where targets are not normalised.
        std: `(..., N, 1)` likewise; 1 where targets are not normalised.
    """

    loss: Tensor
    token_loss: Tensor
    token_weight: Tensor
    mean: Tensor
    std: Tensor


def masked_patch_loss(
    prediction: Tensor, pixels: Tensor, valid: Tensor, hidden: Tensor, patch: int, *, normalize: bool = True
) -> PatchLoss:
    """Mean squared error of per-patch-normalised pixels over masked and valid values (MAE §3, A²-MAE loss).

    Args:
        prediction: `(..., N, patch * patch * C)`, any float type.
        pixels: `(..., C, H, W)` the images themselves.
        valid: `(..., C, H, W)` or, for all bands alike, `(..., 1, H, W)` bool.
        hidden: `(..., N)` bool, True = masked.
        patch: Side of a patch in pixels.
        normalize: Bring every patch of the target to mean 0 and variance 1 over its valid values.
    """
    with full_precision(pixels):  # in bf16 a peer lost 1.3 of loss (METHOD.md section 4)
        target = patchify(pixels.float(), patch)
        weight = patchify(valid.expand_as(pixels), patch).float()
        if normalize:
            count = weight.sum(-1, keepdim=True)
            mean = (target * weight).sum(-1, keepdim=True) / count.clamp(min=1)
            # Unbiased, as torch.var and so MAE's targets; one valid value has no variance.
            square = ((target - mean) ** 2 * weight).sum(-1, keepdim=True)
            std = (square / (count - 1).clamp(min=1) + EPSILON).sqrt()
        else:
            mean, std = torch.zeros_like(target[..., :1]), torch.ones_like(target[..., :1])
        error = (prediction.float() - (target - mean) / std) ** 2
        scored = weight * hidden[..., None]
        token_sum, token_weight = (error * scored).sum(-1), scored.sum(-1)
        loss = token_sum.sum() / token_weight.sum().clamp(min=1)
    return PatchLoss(loss, token_sum.detach() / token_weight.clamp(min=1), token_weight, mean, std)
