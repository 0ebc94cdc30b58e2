"""A²-MAE: an anchor-aware masked autoencoder over sets of co-located images (arXiv 2406.08079)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from a2mae.errors import InputError
from a2mae.models.batch import ImageSetBatch, check_batch, singles_of_batch
from a2mae.models.layers.encodings import Place, own_decoder_encoding, sincos_2d
from a2mae.models.layers.masking import (
    STRATEGIES,
    masked_patch_loss,
    token_validity,
    unpatchify,
)
from a2mae.models.pretrainer import PixelDecoder, PretrainConfig, Pretrainer, PretrainOutput


@dataclass(frozen=True, kw_only=True)
class A2MAEConfig(PretrainConfig):
    """What defines an A²-MAE.

    Attributes:
        encoding: `paper`: one location and three images' GSDs for all images; `own`: each image's place, GSD and date,
            and in the decoder its date and bands.
        masking: One of `masking.STRATEGIES`.
        normalize_targets: Bring every target patch to mean 0 and variance 1.
    """

    encoding: str = "paper"
    masking: str = "anchor"
    normalize_targets: bool = True

    def __post_init__(self) -> None:
        """Check that the model can be built."""
        super().__post_init__()
        if self.masking not in STRATEGIES:
            raise InputError(f"unknown masking strategy {self.masking!r}; choose one of {', '.join(STRATEGIES)}")
        if self.encoding == "own" and self.decoder_dim % 16:
            raise InputError(f"encoding 'own' needs a decoder_dim that is a multiple of 16, found {self.decoder_dim}")


class A2MAE(Pretrainer):
    """Encoder over the visible patches of all images at once, decoder over all patches, loss over the hidden ones."""

    config: A2MAEConfig

    def __init__(self, config: A2MAEConfig) -> None:
        super().__init__(config)
        self.decoder = PixelDecoder(config)

    def forward(
        self,
        batch: ImageSetBatch,
        *,
        hidden: Tensor | None = None,
        generator: torch.Generator | None = None,
        fully_valid: bool | None = None,
        teacher: Tensor | None = None,
    ) -> PretrainOutput:
        """Compute the loss and the predictions of one training step.

        Args:
            batch: `(B, K, C, H, W)` and its metadata; any K, any C the encoder reads, H ≠ W.
            hidden: `(B, K, N)` bool, True = masked; drawn when not given.
            generator: On the batch's device, for a mask that can be drawn again.
            fully_valid: True if the caller knows that `batch.valid` is True everywhere; spares the attention mask on
                an accelerator, where looking would wait for the device.
            teacher: `(B, teacher_width)` a teacher's features of the anchors.

        Returns:
            Predictions: `normalized` `(B, K, C, H, W)` as predicted and `pixels` on the scale of the input.
        """
        check_batch(batch, self.patch_size)
        config, patch_size = self.config, self.patch_size
        grid_size = (batch.pixels.shape[-2] // patch_size, batch.pixels.shape[-1] // patch_size)
        place = Place(batch.gsd_m, batch.geosot_bits, batch.day)

        # Which patches are seen: the anchor-aware rule (A²-MAE, anchor-aware masking).
        token_valid = token_validity(batch.valid, patch_size)  # (B, K, N)
        mask = self._mask(config.masking, token_valid, hidden, generator, batch.same_source_as_anchor)

        # Encoder: geographic encoding is added to the tokens before masking (A²-MAE, geographic encoding).
        x = self.encoder.embed_visible(batch.pixels, place, batch.wavelength_nm, mask)  # (B, V, D)
        x = self.encoder.forward_tokens(x, mask.padding(fully_valid))  # (B, 1 + V, D)

        # Decoder: every image's own GSD encoding; under `own` also its date and bands.
        encoding = (
            own_decoder_encoding(grid_size, place, batch.wavelength_nm, config.decoder_dim, config.gsd_reference_m)
            if config.encoding == "own"
            else sincos_2d(grid_size, batch.gsd_m / config.gsd_reference_m, config.decoder_dim)
        )  # (B, K, N, Dd)
        prediction, tokens = self.decoder(x, mask, encoding, batch.wavelength_nm)  # (B, K, N, p * p * C), (..., Dd)

        # Loss over masked and valid pixels of all images (A²-MAE, loss).
        valid = batch.valid[:, :, None] & (batch.wavelength_nm >= 0)[..., None, None]  # (B, K, C, H, W)
        scored = masked_patch_loss(
            prediction, batch.pixels, valid, mask.hidden, patch_size, normalize=config.normalize_targets
        )
        predicted = prediction.detach().float()
        return PretrainOutput(
            loss=self._loss(scored.loss, tokens, batch.pixels, batch.valid, scored.token_weight)
            + self._teacher_loss(x[:, 0], teacher, scored.token_weight)
            + self._contrast_loss(singles_of_batch(batch), generator),
            prediction={
                "normalized": unpatchify(predicted, patch_size, grid_size),
                "pixels": unpatchify(predicted * scored.std + scored.mean, patch_size, grid_size),
            },
            hidden=mask.hidden,
            token_loss=scored.token_loss,
            token_weight=scored.token_weight,
        )

    def _released_width(self) -> int:
        return self.config.embed_dim * 3 // 4  # the scale dims alone: the location has no table
