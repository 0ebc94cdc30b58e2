"""Contrast of crops: two random crops of an image are to be told from those of other images, by visible patches alone.

The objective of SimCLR (Chen et al. 2020, arXiv 2002.05709) on an encoder that sees a share of the patches, beside
the masked reconstruction [ours]. Pixels and their features say what a patch looks like; what all crops of a place have
in common is what a class of places is told by.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from a2mae.models.batch import Singles
from a2mae.models.encoder import Encoder
from a2mae.models.layers.blocks import init_weights
from a2mae.models.layers.encodings import Place
from a2mae.models.layers.masking import draw_mask, full_precision, token_validity

TEMPERATURE = 0.2
"""Of the cosine similarities."""
SMALLEST_AREA = 0.25
"""Of a crop, as a share of the image's."""
JITTER = 0.2
"""Largest change of all bands together, as a factor and in standard deviations; of each band alone half as much."""
PROJECTION = (512, 128)
"""Hidden and last width of the projection, which is dropped after pretraining."""


def random_crops(one: Singles, generator: torch.Generator | None = None) -> Singles:
    """Draw a square crop of each image, resized to its own size, mirrored, transposed and jittered at random.

    Args:
        one: M images.
        generator: On the images' device; the global one if None.

    Returns:
        The crops with the GSD that they have, valid where all pixels behind a pixel were seen.
    """
    images = one.images
    count, bands = images.shape[:2]
    draws = torch.rand(count, 8 + 2 * bands, generator=generator, device=images.device)
    side = (SMALLEST_AREA + (1 - SMALLEST_AREA) * draws[:, 0]).sqrt()
    centre = (2 * draws[:, 1:3] - 1) * (1 - side[:, None])  # in halves of the image, so that the crop lies inside
    across, down = (torch.where(draws[:, column] < 0.5, -side, side) for column in (3, 4))
    turned = draws[:, 5] < 0.5
    zero = torch.zeros_like(side)
    grid = torch.stack(
        [
            torch.stack([torch.where(turned, zero, across), torch.where(turned, across, zero), centre[:, 0]], dim=1),
            torch.stack([torch.where(turned, down, zero), torch.where(turned, zero, down), centre[:, 1]], dim=1),
        ],
        dim=1,
    )  # (M, 2, 3)
    with full_precision(images):
        stacked = torch.cat([images.float(), one.valid[:, None].float()], dim=1)
        where = F.affine_grid(grid, list(stacked.shape), align_corners=False)
        sampled = F.grid_sample(stacked, where, padding_mode="border", align_corners=False)
        both, each = 2 * draws[:, 6:8] - 1, 2 * draws[:, 8:] - 1
        factor = (1 + JITTER * both[:, :1]) * (1 + JITTER / 2 * each[:, :bands])
        shift = JITTER * both[:, 1:] + JITTER / 2 * each[:, bands:]
        seen = sampled[:, -1] > 0.999
        pixels = (sampled[:, :-1] * factor[..., None, None] + shift[..., None, None]) * seen[:, None]
    return replace(one, images=pixels, valid=seen, gsd_m=one.gsd_m * side)


class CropContrast(nn.Module):
    """The loss, and the projection that it is computed on."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        hidden, width = PROJECTION
        self.projection = nn.Sequential(
            nn.Linear(embed_dim, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, width)
        )
        init_weights(self)

    def forward(
        self, encoder: Encoder, one: Singles, keep_ratio: float, generator: torch.Generator | None = None
    ) -> Tensor:
        """Compute the cross entropy of finding the other crop of the same image among those of other samples.

        Images of one sample show one place and are no counterexamples of each other. The encoder is told the crops'
        GSD, but neither place nor date, which would answer the question.

        Args:
            encoder: Whose tokens are compared, as their mean.
            one: M images.
            keep_ratio: Share of a crop's patches that the encoder sees.
            generator: On the images' device; the global one if None.

        Returns:
            Scalar float32; 0 where no two samples were seen.
        """
        crops = [random_crops(one, generator) for _ in range(2)]
        pixels, seen = torch.cat([crop.images for crop in crops]), torch.cat([crop.valid for crop in crops])
        place = Place(torch.cat([crop.gsd_m for crop in crops])[:, None])
        wavelength = None if one.wavelength_nm is None else one.wavelength_nm.repeat(2, 1)[:, None]
        token_valid = token_validity(seen, encoder.patch_size)[:, None]  # (2M, 1, N)
        one_source = torch.ones_like(token_valid[..., 0])
        mask = draw_mask("independent", token_valid, one_source, keep_ratio, generator)
        tokens = encoder.embed_visible(pixels[:, None], place, wavelength, mask)
        tokens = encoder.forward_tokens(tokens, mask.padding())[:, 1:]
        shown = (~mask.key_padding_mask).to(tokens.dtype)[..., None]  # (2M, V, 1)
        projected = self.projection((tokens * shown).sum(1) / shown.sum(1).clamp(min=1))

        empty = mask.key_padding_mask.all(1)
        with full_precision(pixels):
            return crop_loss(projected.float(), one.sample.repeat(2), empty)


def crop_loss(projected: Tensor, sample: Tensor, empty: Tensor) -> Tensor:
    """Compute the cross entropy of finding each crop's counterpart among those of other samples.

    Where several processes share a batch, those of all are compared: each computes the loss of the whole batch.

    Args:
        projected: `(2M, D)`, first one crop of each image, then the other.
        sample: `(2M,)` int64, which sample of this process's share each is of.
        empty: `(2M,)` bool, of which nothing was seen.

    Returns:
        Scalar float32; 0 where no two samples were seen.
    """
    other = torch.arange(len(projected), device=projected.device).roll(len(projected) // 2)
    if dist.is_available() and dist.is_initialized() and (processes := dist.get_world_size()) > 1:
        facts = torch.stack([other, sample, empty.long()], dim=1)  # (2M, 3)
        every = [torch.empty_like(facts) for _ in range(processes)]
        dist.all_gather(every, facts)
        shift = facts.new_tensor([len(projected), len(projected), 0])  # a process has at most as many samples as crops
        other, sample, seen_none = torch.cat([one + rank * shift for rank, one in enumerate(every)]).unbind(1)
        empty = seen_none.bool()
        projected = torch.cat(all_gather(projected))  # type: ignore[no-untyped-call] # with its gradient
    unit = F.normalize(projected, dim=1)
    similarity = unit @ unit.T / TEMPERATURE
    left_out = ((sample[:, None] == sample) | empty).scatter(1, other[:, None], False)
    similarity = similarity.masked_fill(left_out, float("-inf"))
    asked = ~empty & ~empty[other] & ((~left_out).sum(1) > 1)
    error = F.cross_entropy(similarity, other, reduction="none")
    loss: Tensor = error.where(asked, error.new_zeros(())).sum() / asked.sum().clamp(min=1)
    return loss
