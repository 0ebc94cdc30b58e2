"""SatMAE, as a baseline: an MAE that knows dates, or groups of bands (Cong et al. 2022, arXiv 2207.08051).

Its encodings and masks on our encoder, decoder and loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from a2mae.errors import InputError
from a2mae.models.batch import ImageSetBatch, check_batch
from a2mae.models.layers.encodings import Place, group_encoding, temporal_encoding
from a2mae.models.layers.masking import PatchLoss, masked_patch_loss, token_validity, unpatchify
from a2mae.models.pretrainer import PixelDecoder, PretrainConfig, Pretrainer, PretrainOutput

MASKINGS = ("independent", "same")


@dataclass(frozen=True, kw_only=True)
class SatMAEConfig(PretrainConfig):
    """What defines a SatMAE.

    Attributes:
        encoding: `temporal`: the K images of a set are dates, in one sequence. `group`: every image alone, its bands in
            `groups` (with `bands="groups"`).
        masking: `independent`: every date or group has its own mask; `same`: all have one (the paper's "consistent").
        normalize_targets: Bring every target patch (of a group) to mean 0 and variance 1.
    """

    reads_groups: ClassVar[bool] = True

    encoding: str = "temporal"
    masking: str = "independent"
    normalize_targets: bool = True

    def __post_init__(self) -> None:
        """Check that the model can be built."""
        super().__post_init__()
        if self.encoding not in ("temporal", "group"):
            raise InputError(f"SatMAE's encoding must be 'temporal' or 'group', found {self.encoding!r}")
        if self.bands == "wavelength":
            raise InputError("SatMAE reads a fixed list of bands: use bands='draw3' or 'groups'")
        if self.masking not in MASKINGS:
            raise InputError(f"unknown masking {self.masking!r}; choose one of {', '.join(MASKINGS)}")
        if self.rcf_weight or self.contrast_weight or self.pixel_weight != 1:
            raise InputError(
                "SatMAE predicts pixels alone: leave rcf_weight and contrast_weight at 0 and pixel_weight at 1"
            )
        if self.decoder_dim % 32:
            raise InputError(
                f"SatMAE's encodings need a decoder_dim that is a multiple of 32, found {self.decoder_dim}"
            )


class SatMAE(Pretrainer):
    """Encoder over the visible tokens of all dates or all groups of bands, decoder over all, loss over the hidden."""

    config: SatMAEConfig

    def __init__(self, config: SatMAEConfig) -> None:
        super().__init__(config)
        self.decoder = PixelDecoder(config)

    def forward(
        self,
        batch: ImageSetBatch,
        *,
        hidden: Tensor | None = None,
        generator: torch.Generator | None = None,
        fully_valid: bool | None = None,
    ) -> PretrainOutput:
        """Compute the loss and the predictions of one training step.

        Args:
            batch: `(B, K, C, H, W)`: K dates, or for groups B * K independent images.
            hidden: `(B, K, N)` bool, for groups `(B, K, G, N)`, True = masked; drawn when not given.
            generator: On the batch's device, for a mask that can be drawn again.
            fully_valid: See `A2MAE.forward`.

        Returns:
            Predictions: `normalized` and `pixels` `(B, K, C, H, W)`; with groups also `hidden_groups` `(B, K, G, N)`,
            while `hidden` is True where any group is.
        """
        check_batch(batch, self.patch_size)
        config, patch_size = self.config, self.patch_size
        grid_size = (batch.pixels.shape[-2] // patch_size, batch.pixels.shape[-1] // patch_size)
        shape = batch.pixels.shape[:2]
        groups = config.groups or (tuple(range(config.in_chans)),)
        token_valid = token_validity(batch.valid, patch_size)  # (B, K, N)
        pixels, place = batch.pixels, Place(batch.gsd_m, None, batch.day)
        if config.groups:  # every image alone; its groups of bands are the "images" of the sequence
            pixels, place = pixels.flatten(0, 1)[:, None], Place(batch.gsd_m.flatten()[:, None])
            token_valid = token_valid.flatten(0, 1)[:, None].expand(-1, len(groups), -1)  # (B*K, G, N)
            hidden = None if hidden is None else hidden.flatten(0, 1)

        # Masks: independent or consistent over dates or groups (§3.2, §3.3).
        mask = self._mask(config.masking, token_valid, hidden, generator)

        x = self.encoder.embed_set(pixels, place, None)  # (B, K, N, D) or (B*K, G, N, D)
        x = self.encoder.forward_tokens(mask.select(x), mask.padding(fully_valid))
        encoding = (
            group_encoding(grid_size, len(groups), config.decoder_dim, pixels.device)
            if config.groups
            else temporal_encoding(grid_size, place, config.decoder_dim)
        )
        prediction, _ = self.decoder(x, mask, encoding)  # (B, K, N, p*p*C) or (B*K, 1, N, p*p*C)
        prediction = prediction.reshape(*shape, *prediction.shape[2:])

        # Loss: each group's patches normalised on their own, hidden tokens only.
        hidden_groups = mask.hidden.reshape(*shape, len(groups), -1)  # (B, K, G or 1, N)
        maps = unpatchify(prediction.float(), patch_size, grid_size)  # (B, K, C, H, W)
        valid = batch.valid[:, :, None] & (batch.wavelength_nm >= 0)[..., None, None]  # (B, K, C, H, W)
        scored = [
            self._scored(prediction, batch.pixels, valid, list(group), hidden_groups[:, :, index])
            for index, group in enumerate(groups)
        ]
        weight = torch.stack([part.token_weight for part in scored])
        total = torch.stack([part.loss * part.token_weight.sum().clamp(min=1) for part in scored]).sum()
        token_loss = torch.stack([part.token_loss * part.token_weight for part in scored]).sum(0)
        return PretrainOutput(
            loss=total / weight.sum().clamp(min=1),
            prediction={
                "normalized": maps.detach(),
                "pixels": self._pixels(maps.detach(), scored, groups, grid_size),
                **({"hidden_groups": hidden_groups} if config.groups else {}),
            },
            hidden=hidden_groups.any(2),
            token_loss=token_loss / weight.sum(0).clamp(min=1),
            token_weight=weight.sum(0),
        )

    def _scored(self, prediction: Tensor, pixels: Tensor, valid: Tensor, bands: list[int], hidden: Tensor) -> PatchLoss:
        values = torch.unflatten(prediction, -1, (-1, pixels.shape[2]))[..., bands].flatten(-2)
        return masked_patch_loss(
            values,
            pixels[:, :, bands],
            valid[:, :, bands],
            hidden,
            self.patch_size,
            normalize=self.config.normalize_targets,
        )

    def _pixels(
        self, maps: Tensor, scored: list[PatchLoss], groups: tuple[tuple[int, ...], ...], grid_size: tuple[int, int]
    ) -> Tensor:
        pixels = torch.empty_like(maps)
        for part, group in zip(scored, groups, strict=True):
            area = self.patch_size**2
            std = unpatchify(part.std.expand(*part.std.shape[:-1], area), self.patch_size, grid_size)
            mean = unpatchify(part.mean.expand(*part.mean.shape[:-1], area), self.patch_size, grid_size)
            pixels[:, :, list(group)] = maps[:, :, list(group)] * std + mean
        return pixels
