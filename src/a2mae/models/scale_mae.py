"""Scale-MAE: encodings that know the metres, a decoder of two spatial frequencies (arXiv 2212.14532)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from a2mae.errors import InputError
from a2mae.models.batch import ImageSetBatch, Singles, check_batch, check_gsd, check_images, singles_of_batch
from a2mae.models.laplacian import TARGETS, LaplacianDecoder, laplacian_targets, reconstruct
from a2mae.models.layers.encodings import Place
from a2mae.models.layers.masking import full_precision, token_validity
from a2mae.models.pretrainer import PretrainConfig, Pretrainer, PretrainOutput


@dataclass(frozen=True, kw_only=True)
class ScaleMAEConfig(PretrainConfig):
    """What defines a Scale-MAE.

    Attributes:
        encoding: `gsd`, the patch index times r = GSD / G.
        targets: `paper` or `released` (docs/methods.md, Scale-MAE, has the differences).
        share_heads: One Laplacian head for both bands.
    """

    encoding: str = "gsd"
    targets: str = "paper"
    decoder_depth: int = 3
    share_heads: bool = False

    def __post_init__(self) -> None:
        """Check that the model can be built."""
        super().__post_init__()
        if self.targets not in TARGETS:
            raise InputError(f"unknown targets {self.targets!r}; choose one of {', '.join(TARGETS)}")
        if self.bands != "draw3":
            raise InputError("Scale-MAE's decoder has a fixed number of bands: use bands='draw3' with any in_chans")
        if self.contrast_weight:
            raise InputError(f"contrast_weight is for A²-MAE and MAE: leave it at 0, found {self.contrast_weight}")
        if self.patch_size % 4 or self.decoder_dim % 4:
            raise InputError(
                "the Laplacian decoder needs a patch_size and a decoder_dim that are multiples of 4, found"
                f" {self.patch_size} and {self.decoder_dim}"
            )


class ScaleMAE(Pretrainer):
    """Encoder over the visible patches of the coarse input, decoder to a low band and the finer target's high band."""

    config: ScaleMAEConfig
    _second_mask_token = True

    def __init__(self, config: ScaleMAEConfig) -> None:
        super().__init__(config)
        self.decoder = LaplacianDecoder(
            config,
            config.decoder_dim,
            config.decoder_depth,
            config.decoder_num_heads,
            share_heads=config.share_heads,
        )

    @property
    def pixels_per_token(self) -> int:
        """A token of the input covers twice as many pixels of the target, the training image."""
        return 2 * self.patch_size

    def forward(
        self,
        images: Tensor | ImageSetBatch,
        *,
        gsd_m: Tensor | float | None = None,
        target_images: Tensor | None = None,
        hidden: Tensor | None = None,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
        fully_valid: bool | None = None,
    ) -> PretrainOutput:
        """Compute the loss and the predictions of one training step.

        Args:
            images: `(B, C, H, W)` the input; or a batch of sets: each of its B * K images is then the TARGET of an
                independent sample, and its input is the same image at half the size and twice the GSD (published: 448
                and 224). H and W of such images are multiples of twice the patch.
            gsd_m: `(B,)` or one number, of the INPUT. Sets bring their own.
            target_images: `(B, C, 2H, 2W)`; needed for plain images.
            hidden: `(B, N)` bool on the input's token grid (for sets `(B, K, N)`), True = masked; drawn if not given.
            valid: `(B, 2H, 2W)` bool, of the target; everything if None. Sets bring their own.
            generator: On the images' device, for a mask that can be drawn again.
            fully_valid: True if the caller knows that every pixel is valid (see `A2MAE.forward`).

        Returns:
            Predictions: `low (..., C, H, W)`, `high (..., C, 2H, 2W)` and their sum `pixels (..., C, 2H, 2W)`.
        """
        config, patch_size = self.config, self.patch_size
        if isinstance(images, ImageSetBatch):
            check_batch(images, 2 * patch_size)
            one = singles_of_batch(images)
            hidden = None if hidden is None else hidden.flatten(0, 1)
            source = _halved(one.images)
            ratio = one.gsd_m * 2 / config.gsd_reference_m
        else:
            one = self._plain(images, gsd_m, target_images, valid)
            source = images
            fully_valid = valid is None or fully_valid
            ratio = one.gsd_m / config.gsd_reference_m
        target = one.images
        grid_size = (source.shape[-2] // patch_size, source.shape[-1] // patch_size)

        # Masking 75 % at random; a set of one image.
        token_valid = token_validity(one.valid, 2 * patch_size)[:, None]  # (M, 1, N)
        mask = self._mask("independent", token_valid, None if hidden is None else hidden[:, None], generator)

        # Encoder: GSD encoding of the input before masking (§3.1).
        place = Place((ratio * config.gsd_reference_m)[:, None])
        x = self.encoder.embed_visible(source[:, None], place, None, mask)  # (M, V, D)
        x = self.encoder.forward_tokens(x, mask.padding(fully_valid))  # (M, 1 + V, D)
        low, high, tokens = self.decoder(x, mask, grid_size, ratio[:, None])  # (M, C, H, W), (M, C, 2H, 2W)

        # Loss: masked pixels only, both bands 1 : 1, no normalisation of pixels (§3.2).
        with full_precision(target):
            low_target, high_target = laplacian_targets(
                target.float(), grid_size, patch_size, config.targets, None if fully_valid else one.valid
            )
            low_scored, high_scored = _scored_pixels(mask.hidden[:, 0], one.valid, grid_size, patch_size)
            difference_low, difference_high = low.float() - low_target, high.float() - high_target
            # The paper has L1 on the high band; the released code squares both unless a flag is set.
            error_low = difference_low**2
            error_high = difference_high.abs() if config.targets == "paper" else difference_high**2
            # The released terms sum the bands over a count of pixels: C times a mean, kept to compare with its logs.
            bands = 1 if config.targets == "released" else target.shape[1]
            loss = _mean(error_low, low_scored, bands) + _mean(error_high, high_scored, bands)
            token_loss, token_weight = _per_token(error_low, low_scored, error_high, high_scored, patch_size)
            loss = self._loss(loss, tokens, source, one.valid, token_weight)
            pixels = reconstruct(low.detach().float(), high.detach().float(), grid_size, config.targets)
        return PretrainOutput(
            loss=loss,
            prediction={
                "low": one.back(low.detach().float()),
                "high": one.back(high.detach().float()),
                "pixels": one.back(pixels),
            },
            hidden=one.back(mask.hidden[:, 0]),
            token_loss=one.back(token_loss),
            token_weight=one.back(token_weight),
        )

    def _encoder_images(self, batch: ImageSetBatch) -> tuple[Tensor, Tensor]:
        one = singles_of_batch(batch)
        return _halved(one.images), _seen_below(one.valid)

    def _plain(
        self, images: Tensor, gsd_m: Tensor | float | None, target_images: Tensor | None, valid: Tensor | None
    ) -> Singles:
        check_images(images, self.patch_size)
        batch, bands, height, width = images.shape
        expected = (batch, bands, 2 * height, 2 * width)
        if target_images is None or tuple(target_images.shape) != expected:
            found = None if target_images is None else tuple(target_images.shape)
            raise InputError(f"target_images must show the input at twice its size, shape {expected}, found {found}")
        check_images(target_images, 2 * self.patch_size)
        if gsd_m is None:
            raise InputError("gsd_m is needed: the GSD of the input over the reference, shape (B,) or one number")
        gsd = torch.as_tensor(gsd_m, dtype=torch.float32, device=images.device)
        gsd = gsd.expand(batch) if gsd.ndim == 0 else gsd
        check_gsd(gsd, (batch,))
        if valid is None:
            valid = torch.ones(batch, 2 * height, 2 * width, dtype=torch.bool, device=images.device)
        if tuple(valid.shape) != (batch, 2 * height, 2 * width):
            raise InputError(f"valid must have shape {(batch, 2 * height, 2 * width)}, found {tuple(valid.shape)}")
        return Singles(target_images, gsd, valid, None, None)


def _halved(target: Tensor) -> Tensor:
    """The input of a target: 448 -> 224 bilinear."""
    size = (target.shape[-2] // 2, target.shape[-1] // 2)
    return F.interpolate(target, size, mode="bilinear", align_corners=False)


def _seen_below(valid: Tensor) -> Tensor:
    """`(M, 2H, 2W)` of the target to `(M, H, W)`: input pixels whose four target pixels were all seen."""
    return F.max_pool2d((~valid)[:, None].float(), 2)[:, 0] == 0


def _scored_pixels(hidden: Tensor, valid: Tensor, grid_size: tuple[int, int], patch_size: int) -> tuple[Tensor, Tensor]:
    """Masks of the tokens reach the pixels by nearest up-sampling: `(M, 1, H, W)` and `(M, 1, 2H, 2W)` float32."""
    high = (
        torch.unflatten(hidden, 1, grid_size).repeat_interleave(2 * patch_size, 1).repeat_interleave(2 * patch_size, 2)
        & valid
    )
    # A low pixel counts if any of the four target pixels under it does.
    low = F.max_pool2d(high[:, None].float(), 2)
    return low, high[:, None].float()


def _mean(error: Tensor, scored: Tensor, bands: int) -> Tensor:
    return (error * scored).sum() / (scored.sum() * bands).clamp(min=1)


def _per_token(
    error_low: Tensor, low: Tensor, error_high: Tensor, high: Tensor, patch_size: int
) -> tuple[Tensor, Tensor]:
    """Mean error of each token, both bands added, and the target values behind it; `(M, N)` each, detached."""

    def per_token(values: Tensor, side: int) -> Tensor:
        return F.avg_pool2d(values.sum(1, keepdim=True), side).flatten(1) * side * side

    bands = error_low.shape[1]
    weight_low, weight_high = per_token(low, patch_size) * bands, per_token(high, 2 * patch_size) * bands
    loss = per_token((error_low * low).detach(), patch_size) / weight_low.clamp(min=1)
    loss = loss + per_token((error_high * high).detach(), 2 * patch_size) / weight_high.clamp(min=1)
    return loss, weight_high
