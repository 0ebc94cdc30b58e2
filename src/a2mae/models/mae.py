"""MAE, the plain baseline: single images, random masking, no notion of scale, place or time (He et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from a2mae.errors import InputError
from a2mae.models.batch import ImageSetBatch, Singles, check_batch, check_images, singles_of_batch
from a2mae.models.layers.encodings import Place, sincos_2d
from a2mae.models.layers.masking import masked_patch_loss, token_validity, unpatchify
from a2mae.models.pretrainer import PixelDecoder, PretrainConfig, Pretrainer, PretrainOutput


@dataclass(frozen=True, kw_only=True)
class MAEConfig(PretrainConfig):
    """What defines an MAE.

    Attributes:
        encoding: `sincos`, the patch index alone.
        normalize_targets: Bring every target patch to mean 0 and variance 1.
    """

    encoding: str = "sincos"
    normalize_targets: bool = True


class MAE(Pretrainer):
    """Encoder over the visible patches of one image, decoder over all patches, loss over the hidden ones."""

    config: MAEConfig

    def __init__(self, config: MAEConfig) -> None:
        super().__init__(config)
        self.decoder = PixelDecoder(config)

    def forward(
        self,
        images: Tensor | ImageSetBatch,
        *,
        hidden: Tensor | None = None,
        valid: Tensor | None = None,
        wavelength_nm: Tensor | None = None,
        generator: torch.Generator | None = None,
        fully_valid: bool | None = None,
        teacher: Tensor | None = None,
    ) -> PretrainOutput:
        """Compute the loss and the predictions of one training step.

        Args:
            images: `(B, C, H, W)`, or a batch of sets whose B * K images are taken as independent samples.
            hidden: `(B, N)` bool (for sets `(B, K, N)`), True = masked; drawn when not given.
            valid: `(B, H, W)` bool; everything if None. Sets bring their own.
            wavelength_nm: `(B, C)`; only for `bands="wavelength"`. Sets bring their own.
            generator: On the images' device, for a mask that can be drawn again.
            fully_valid: True if the caller knows that every pixel is valid (see `A2MAE.forward`).
            teacher: `(B, teacher_width)` a teacher's features of the anchors of sets; the class token of each anchor
                predicts them.

        Returns:
            Predictions: `normalized` `(..., C, H, W)` as predicted and `pixels` on the scale of the input.
        """
        if isinstance(images, ImageSetBatch):
            check_batch(images, self.patch_size)
            one = singles_of_batch(images)
            hidden = None if hidden is None else hidden.flatten(0, 1)
        else:
            one = self._plain(images, valid, wavelength_nm)
        patch_size = self.patch_size
        grid_size = (one.images.shape[-2] // patch_size, one.images.shape[-1] // patch_size)
        wavelength = None if one.wavelength_nm is None else one.wavelength_nm[:, None]  # (M, 1, C)

        # A set of one image: masking 75 % at random (MAE §3).
        token_valid = token_validity(one.valid, patch_size)[:, None]  # (M, 1, N)
        mask = self._mask("independent", token_valid, None if hidden is None else hidden[:, None], generator)

        x = self.encoder.embed_visible(one.images[:, None], Place(one.gsd_m[:, None]), wavelength, mask)  # (M, V, D)
        x = self.encoder.forward_tokens(x, mask.padding(fully_valid))  # (M, 1 + V, D)
        encoding = sincos_2d(grid_size, torch.ones_like(one.gsd_m)[:, None], self.config.decoder_dim)
        prediction, tokens = (part[:, 0] for part in self.decoder(x, mask, encoding, wavelength))  # (M, N, ...)

        shown_bands = one.valid[:, None]
        if one.wavelength_nm is not None:
            shown_bands = shown_bands & (one.wavelength_nm >= 0)[..., None, None]  # (M, C, H, W)
        scored = masked_patch_loss(
            prediction, one.images, shown_bands, mask.hidden[:, 0], patch_size, normalize=self.config.normalize_targets
        )
        predicted = prediction.detach().float()
        return PretrainOutput(
            loss=self._loss(scored.loss, tokens, one.images, one.valid, scored.token_weight)
            + self._teacher_loss(
                x[:, 0] if one.shape is None else one.back(x[:, 0])[:, 0], teacher, one.back(scored.token_weight)
            )
            + self._contrast_loss(one, generator),
            prediction={
                "normalized": one.back(unpatchify(predicted, patch_size, grid_size)),
                "pixels": one.back(unpatchify(predicted * scored.std + scored.mean, patch_size, grid_size)),
            },
            hidden=one.back(mask.hidden[:, 0]),
            token_loss=one.back(scored.token_loss),
            token_weight=one.back(scored.token_weight),
        )

    def _plain(self, images: Tensor, valid: Tensor | None, wavelength_nm: Tensor | None) -> Singles:
        check_images(images, self.patch_size)
        batch, _, height, width = images.shape
        if valid is None:
            valid = torch.ones(batch, height, width, dtype=torch.bool, device=images.device)
        if tuple(valid.shape) != (batch, height, width):
            raise InputError(f"valid must have shape {(batch, height, width)}, found {tuple(valid.shape)}")
        return Singles(images, torch.ones(batch, device=images.device), valid, wavelength_nm, None)
