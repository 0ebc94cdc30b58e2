"""Draw masks over the patches of image sets, and compute the losses over the masked patches.

Masks are drawn without a loop over the batch and without waiting for the device. Our rule keeps the same share of every
image visible and puts every token back where it came from; the released A²-MAE code does neither (docs/methods.md,
traps; reproduced in tests/models/test_released_defects.py). Losses are computed in float32, over pixels that are both
masked and valid.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from a2mae.errors import InputError

STRATEGIES = ("anchor", "independent", "mixed", "same", "random", "anchor_visible")
"""`anchor`: another date of the anchor's source has its own mask, another source has the anchor's.
`independent`: every image its own, so that another date or sensor shows much of what is hidden. `mixed`: half of the
samples `anchor`, half `independent` [ours]. `same`: every image the anchor's. `random`: over all tokens of the set.
`anchor_visible`: only the anchor is seen (what the released code does by accident)."""


@dataclass(frozen=True)
class Mask:
    """A drawn mask. V is the number of tokens that the encoder gets per sample, the same for the whole batch.

    Attributes:
        ids_keep: `(B, V)` int64, the tokens kept of the flattened `K * N` sequence; each once within a row.
        key_padding_mask: `(B, V)` bool, True where a kept token has no valid pixel and only fills the batch up.
        hidden: `(B, K, N)` bool, True where the encoder sees nothing.
    """

    ids_keep: Tensor
    key_padding_mask: Tensor
    hidden: Tensor

    def select(self, tokens: Tensor) -> Tensor:
        """Take the kept tokens: `(B, K, N, D)` to `(B, V, D)`."""
        return tokens.flatten(1, 2).gather(1, self.ids_keep[..., None].expand(-1, -1, tokens.shape[-1]))

    def restore(self, encoded: Tensor, mask_token: Tensor) -> Tensor:
        """Put encoded tokens back where they came from and the mask token everywhere else.

        Args:
            encoded: `(B, V, D)` in the order of `ids_keep`.
            mask_token: `(1, 1, D)`.

        Returns:
            `(B, K, N, D)`.
        """
        batch, images, patches = self.hidden.shape
        encoded = torch.where(self.key_padding_mask[..., None], mask_token.to(encoded.dtype), encoded)
        full = mask_token.to(encoded.dtype).expand(batch, images * patches, -1)
        # Scattering to the tokens' own indices is the inverse of `select`, whatever their order.
        full = full.scatter(1, self.ids_keep[..., None].expand_as(encoded), encoded)
        return torch.unflatten(full, 1, (images, patches))

    def padding(self, fully_valid: bool | None = None) -> Tensor | None:
        """Give the `key_padding_mask`, or None where nothing is padding, which lets fast attention kernels run.

        Args:
            fully_valid: True if the caller knows that every pixel of the batch is valid; None looks at the values where
                that is free (on the CPU) and otherwise assumes padding, since looking would wait for the device.
        """
        if fully_valid is None and self.key_padding_mask.device.type == "cpu":
            fully_valid = not self.key_padding_mask.any()
        return None if fully_valid else self.key_padding_mask


def num_keep(num_patches: int, keep_ratio: float) -> int:
    """Count the patches of an image that stay visible: at least one, never all.

    Raises:
        InputError: If the ratio is not between 0 and 1 or the image has fewer than two patches.
    """
    if not 0 < keep_ratio < 1:
        raise InputError(f"keep_ratio must lie between 0 and 1, both excluded, found {keep_ratio}")
    if num_patches < 2:
        raise InputError(f"masking needs at least two patches per image, found {num_patches}: use a larger image")
    return min(max(int(num_patches * keep_ratio + 1e-6), 1), num_patches - 1)


def draw_mask(
    strategy: str,
    token_valid: Tensor,
    same_source_as_anchor: Tensor,
    keep_ratio: float,
    generator: torch.Generator | None = None,
) -> Mask:
    """Draw a mask (A²-MAE, anchor-aware masking; alternatives in `STRATEGIES`).

    Tokens without a valid pixel are chosen last; those that are kept all the same are padding.

    Args:
        strategy: One of `STRATEGIES`.
        token_valid: `(B, K, N)` bool, True where a patch has at least one valid pixel.
        same_source_as_anchor: `(B, K)` bool, True for the anchor itself.
        keep_ratio: Share of every image (of the set for `random` and `anchor_visible`) that stays visible.
        generator: On the device of `token_valid`; the global one if None.

    Raises:
        InputError: If the strategy or the ratio is unknown.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"unknown masking strategy {strategy!r}; choose one of {', '.join(STRATEGIES)}")
    batch, images, patches = token_valid.shape
    keep = num_keep(patches, keep_ratio)
    noise = torch.rand(batch, images, patches, generator=generator, device=token_valid.device)
    key = noise + 2.0 * ~token_valid  # (B, K, N); ascending order is the order of choice, the invalid come last

    if strategy == "random":
        ids = key.flatten(1).argsort(dim=1)[:, : images * keep]
    elif strategy == "anchor_visible":
        ids = key[:, 0].argsort(dim=1)[:, : min(images * keep, patches)]
    else:
        # A coin per sample out of digits that decide no mask: `noise` stays the only draw, whoever skips samples of it.
        coin = (noise[:, 0, 0] * 2**12) % 1 < 0.5
        shared = {
            "anchor": ~same_source_as_anchor,
            "mixed": ~same_source_as_anchor & coin[:, None],
            "independent": torch.zeros_like(same_source_as_anchor),
            "same": torch.ones_like(same_source_as_anchor),
        }[strategy]
        key = torch.where(shared[..., None], key[:, :1], key)  # π₁ for those that share the anchor's mask
        order = key.argsort(dim=2)[:, :, :keep]  # (B, K, keep)
        ids = (order + patches * torch.arange(images, device=order.device)[:, None]).flatten(1)
    return _mask(ids, ~token_valid.flatten(1).gather(1, ids), token_valid.shape)


def mask_from_hidden(hidden: Tensor, token_valid: Tensor) -> Mask:
    """Make the mask that hides exactly what the caller says, and what has no valid pixel.

    Args:
        hidden: `(B, K, N)` bool, True = masked; the count may differ between samples.
        token_valid: `(B, K, N)` bool.

    Raises:
        InputError: If the shapes or the type do not fit.
    """
    if hidden.dtype != torch.bool or hidden.shape != token_valid.shape:
        raise InputError(
            f"hidden must be bool of shape {tuple(token_valid.shape)} (True = masked),"
            f" found {hidden.dtype} of shape {tuple(hidden.shape)}"
        )
    shown = (~hidden & token_valid).flatten(1)
    keep = max(int((~hidden).flatten(1).sum(1).max()), 1)
    ids = (~shown).to(torch.uint8).argsort(dim=1, stable=True)[:, :keep]
    return _mask(ids, ~shown.gather(1, ids), token_valid.shape)


def _mask(ids_keep: Tensor, padding: Tensor, shape: torch.Size) -> Mask:
    batch, images, patches = shape
    hidden = torch.ones(batch, images * patches, dtype=torch.bool, device=ids_keep.device).scatter(1, ids_keep, padding)
    return Mask(ids_keep, padding, torch.unflatten(hidden, 1, (images, patches)))


EPSILON = 1e-6
"""Added to a patch's variance (MAE §3, A²-MAE loss)."""


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut `(..., C, H, W)` into `(..., N, patch * patch * C)`, rows of pixels with the band fastest, as MAE does."""
    *_, height, width = images.shape
    x = torch.unflatten(images, -1, (width // patch_size, patch_size))  # (..., C, H, w, q)
    x = torch.unflatten(x, -3, (height // patch_size, patch_size))  # (..., C, h, p, w, q)
    return x.movedim(-5, -1).transpose(-4, -3).flatten(-3).flatten(-3, -2)  # (..., h, w, p, q, C) -> (..., N, p*q*C)


def unpatchify(patches: Tensor, patch_size: int, grid_size: tuple[int, int]) -> Tensor:
    """Put `(..., N, patch * patch * C)` back together as `(..., C, H, W)`, the inverse of `patchify`."""
    bands = patches.shape[-1] // (patch_size * patch_size)
    x = torch.unflatten(
        torch.unflatten(patches, -2, grid_size), -1, (patch_size, patch_size, bands)
    )  # (..., h, w, p, q, C)
    return x.transpose(-4, -3).movedim(-1, -5).flatten(-2).flatten(-3, -2)


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off on the tensor's device (the meta device, on which FLOPs are counted, has none)."""
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def token_validity(valid: Tensor, patch_size: int) -> Tensor:
    """Tell which patches have at least one valid pixel: `(..., H, W)` bool to `(..., N)` bool."""
    return patchify(valid[..., None, :, :], patch_size).any(-1)


def whole_patches(valid: Tensor, patch_size: int) -> Tensor:
    """Tell which patches were seen as a whole: `(..., H, W)` bool to `(..., N)` bool."""
    return patchify(valid[..., None, :, :], patch_size).all(-1)


@dataclass(frozen=True)
class PatchLoss:
    """What `masked_patch_loss` gives.

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
    prediction: Tensor, pixels: Tensor, valid: Tensor, hidden: Tensor, patch_size: int, *, normalize: bool = True
) -> PatchLoss:
    """Compute the mean squared error of normalised patches over masked and valid values (MAE §3, A²-MAE loss).

    Args:
        prediction: `(..., N, patch * patch * C)`, any float type.
        pixels: `(..., C, H, W)` the images themselves.
        valid: `(..., C, H, W)` or, for all bands alike, `(..., 1, H, W)` bool.
        hidden: `(..., N)` bool, True = masked.
        patch_size: Side of a patch in pixels.
        normalize: Bring every patch of the target to mean 0 and variance 1 over its valid values.
    """
    with full_precision(pixels):  # a loss in bf16 is off by as much as it falls (docs/methods.md, traps)
        target = patchify(pixels.float(), patch_size)
        weight = patchify(valid.expand_as(pixels), patch_size).float()
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
