"""Which patches are hidden, and the losses over them.

Which patches of an image set are hidden: five strategies, without a loop over the batch and without a host sync.

Our own rule keeps the same share of EVERY image visible and puts every token back where it came from. The released
A²-MAE code does neither (METHOD.md section 2; reproduced in tests/models/test_released_defects.py).

Patches of pixels and the losses over them, always in float32 and over masked AND valid pixels only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

STRATEGIES = ("anchor", "independent", "same", "random", "anchor_visible")
"""`anchor`: another date of the anchor's source has its own mask, another source has the anchor's.
`independent`: every image its own. `same`: every image the anchor's. `random`: over all tokens of the set.
`anchor_visible`: only the anchor is seen (what the released code does by accident, made a choice)."""


@dataclass(frozen=True)
class Mask:
    """A drawn mask. V is the number of encoder slots per sample, the same for the whole batch.

    Attributes:
        ids: `(B, V)` int64, which token of the flattened `K * N` sequence sits in each slot; unique within a row.
        shown: `(B, V)` bool, False where the slot is only padding: its token has no valid pixel.
        hidden: `(B, K, N)` bool, True where the encoder sees nothing.
    """

    ids: Tensor
    shown: Tensor
    hidden: Tensor

    def select(self, tokens: Tensor) -> Tensor:
        """The tokens of the slots: `(B, K, N, D)` to `(B, V, D)`."""
        return tokens.flatten(1, 2).gather(1, self.ids[..., None].expand(-1, -1, tokens.shape[-1]))

    def restore(self, encoded: Tensor, mask_token: Tensor) -> Tensor:
        """Put encoded tokens back where they came from and the mask token everywhere else.

        Args:
            encoded: `(B, V, D)` in slot order.
            mask_token: `(1, 1, D)`.

        Returns:
            `(B, K, N, D)`.
        """
        batch, images, patches = self.hidden.shape
        encoded = torch.where(self.shown[..., None], encoded, mask_token.to(encoded.dtype))
        full = mask_token.to(encoded.dtype).expand(batch, images * patches, -1)
        # Scattering to the slots' own indices is the true inverse of `select`, whatever their order.
        full = full.scatter(1, self.ids[..., None].expand_as(encoded), encoded)
        return torch.unflatten(full, 1, (images, patches))

    def padding(self, fully_valid: bool | None = None) -> Tensor | None:
        """Attention needs `shown` only where a slot may be padding; None lets the fast kernels run.

        Args:
            fully_valid: True if the caller knows that every pixel of the batch is valid; None looks at the values where
                that is free (on the CPU) and otherwise assumes padding, since looking would wait for the device.
        """
        if fully_valid is None and self.shown.device.type == "cpu":
            fully_valid = bool(self.shown.all())
        return None if fully_valid else self.shown


def kept_count(patches: int, keep_ratio: float) -> int:
    """How many of an image's patches stay visible: at least one, never all.

    Raises:
        ValueError: If the ratio is not between 0 and 1 or the image has fewer than two patches.
    """
    if not 0 < keep_ratio < 1:
        raise ValueError(f"keep_ratio must lie between 0 and 1, both excluded, found {keep_ratio}")
    if patches < 2:
        raise ValueError(f"masking needs at least two patches per image, found {patches}: use a larger image")
    return min(max(int(patches * keep_ratio + 1e-6), 1), patches - 1)


def draw_mask(
    strategy: str,
    token_valid: Tensor,
    same_source_as_anchor: Tensor,
    keep_ratio: float,
    generator: torch.Generator | None = None,
) -> Mask:
    """Draw a mask (A²-MAE, anchor-aware masking; alternatives in `STRATEGIES`).

    Tokens without a valid pixel are the last to be chosen; a slot that has to hold one all the same is padding.

    Args:
        strategy: One of `STRATEGIES`.
        token_valid: `(B, K, N)` bool, True where a patch has at least one valid pixel.
        same_source_as_anchor: `(B, K)` bool, True for the anchor itself.
        keep_ratio: Share of every image (of the set for `random` and `anchor_visible`) that stays visible.
        generator: On the device of `token_valid`; the global one if None.

    Raises:
        ValueError: If the strategy or the ratio is unknown.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown masking strategy {strategy!r}; choose one of {', '.join(STRATEGIES)}")
    batch, images, patches = token_valid.shape
    kept = kept_count(patches, keep_ratio)
    noise = torch.rand(batch, images, patches, generator=generator, device=token_valid.device)
    key = noise + 2.0 * ~token_valid  # (B, K, N); ascending order is the order of choice, the invalid come last

    if strategy == "random":
        ids = key.flatten(1).argsort(dim=1)[:, : images * kept]
    elif strategy == "anchor_visible":
        ids = key[:, 0].argsort(dim=1)[:, : min(images * kept, patches)]
    else:
        shared = {
            "anchor": ~same_source_as_anchor,
            "independent": torch.zeros_like(same_source_as_anchor),
            "same": torch.ones_like(same_source_as_anchor),
        }[strategy]
        key = torch.where(shared[..., None], key[:, :1], key)  # π₁ for those that share the anchor's mask
        order = key.argsort(dim=2)[:, :, :kept]  # (B, K, kept)
        ids = (order + patches * torch.arange(images, device=order.device)[:, None]).flatten(1)
    return _mask(ids, token_valid.flatten(1).gather(1, ids), token_valid.shape)


def mask_from_hidden(hidden: Tensor, token_valid: Tensor) -> Mask:
    """The mask that hides exactly what the caller says (and what has no valid pixel).

    Args:
        hidden: `(B, K, N)` bool, True = masked; the count may differ between samples.
        token_valid: `(B, K, N)` bool.

    Raises:
        ValueError: If the shapes or the type do not fit.
    """
    if hidden.dtype != torch.bool or hidden.shape != token_valid.shape:
        raise ValueError(
            f"hidden must be bool of shape {tuple(token_valid.shape)} (True = masked),"
            f" found {hidden.dtype} of shape {tuple(hidden.shape)}"
        )
    shown = (~hidden & token_valid).flatten(1)
    slots = max(int((~hidden).flatten(1).sum(1).max()), 1)
    ids = (~shown).to(torch.uint8).argsort(dim=1, stable=True)[:, :slots]
    return _mask(ids, shown.gather(1, ids), token_valid.shape)


def _mask(ids: Tensor, shown: Tensor, shape: torch.Size) -> Mask:
    batch, images, patches = shape
    hidden = torch.ones(batch, images * patches, dtype=torch.bool, device=ids.device).scatter(1, ids, ~shown)
    return Mask(ids=ids, shown=shown, hidden=torch.unflatten(hidden, 1, (images, patches)))


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
