"""Which patches of an image set are hidden: five strategies, without a loop over the batch and without a host sync.

Our own rule keeps the same share of EVERY image visible and puts every token back where it came from. The released
A²-MAE code does neither (METHOD.md section 2; reproduced in tests/models/test_released_defects.py).
"""

from __future__ import annotations

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
