"""What the pretraining models have in common: configuration, encoder, masks, the pixel decoder and the output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from a2mae.errors import InputError
from a2mae.models.batch import ImageSetBatch, Singles
from a2mae.models.contrast import CropContrast
from a2mae.models.encoder import Encoder, EncoderConfig
from a2mae.models.layers.bands import GroupPrediction, WavelengthPrediction
from a2mae.models.layers.blocks import build_blocks, init_weights
from a2mae.models.layers.masking import Mask, draw_mask, full_precision, mask_from_hidden, num_keep, whole_patches
from a2mae.models.layers.rcf import RandomConvolutionFeatures
from a2mae.models.released import ReleasedTables, load_released_state_dict, released_state_dict

MASK_GROUPS = ("anchor", "same_source", "other_source")


@dataclass(frozen=True)
class PretrainOutput:
    """What a training forward gives.

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
    """Add the loss up per sensor and mask group, without waiting for the device.

    Args:
        output: Of a forward on an `ImageSetBatch`.
        sensor_id: `(B, K)`.
        same_source_as_anchor: `(B, K)`.
        sensors: How many sensors the run has.

    Returns:
        `total` and `weight`, both `(sensors, 3)` float32, columns as `MASK_GROUPS`. `total / weight` is the mean
        loss; a weight of 0 says that no such token was scored.
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


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(EncoderConfig):
    """What every method has besides an encoder.

    Attributes:
        keep_ratio: Share of the patches that stays visible.
        decoder_dim: Width of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_num_heads: Heads of the decoder.
        prediction_init: Factor on the initial weights of the prediction head: 1 as published; with a small one
            predictions start at the mean instead of at noise [ours]. Not read by Scale-MAE.
        pixel_weight: Of the loss on pixels.
        rcf_weight: Of the loss on random convolution features of the hidden patches (`FeaturePrediction`); 0, as
            published: the decoder predicts pixels alone. Not for SatMAE.
        contrast_weight: Of the loss on telling two crops of an image from those of other images (`contrast`); 0, as
            published. For A²-MAE and MAE.
        teacher_width: Width of a frozen teacher's features, predicted from the class token; 0: there is no teacher. For
            A²-MAE and MAE.
        teacher_weight: Of 1 - cosine of the predicted and the teacher's feature.
        released_tables: Carry the published files' unread tensors (`released.ReleasedTables`); on for ViT-L/16.
        reads_groups: Whether the method takes groups of bands: SatMAE alone does.
    """

    keep_ratio: float = 0.25
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_num_heads: int = 16
    prediction_init: float = 1.0
    pixel_weight: float = 1.0
    rcf_weight: float = 0.0
    contrast_weight: float = 0.0
    teacher_width: int = 0
    teacher_weight: float = 0.0
    released_tables: bool = False
    reads_groups: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check that the model can be built."""
        super().__post_init__()
        if self.groups and not self.reads_groups:
            raise InputError("bands='groups' is SatMAE's: choose satmae, or bands='draw3' or 'wavelength'")
        num_keep(4, self.keep_ratio)  # refuses a ratio that cannot be
        for name in ("decoder_dim", "decoder_depth", "decoder_num_heads", "prediction_init"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, found {getattr(self, name)}")
        weights = (self.pixel_weight, self.rcf_weight, self.contrast_weight)
        if min(weights) < 0 or self.pixel_weight + self.rcf_weight <= 0:
            raise InputError(
                "pixel_weight, rcf_weight and contrast_weight must not be negative, nor the first two both 0, found"
                f" {weights[0]}, {weights[1]} and {weights[2]}"
            )
        if self.rcf_weight:
            self._check_rcf("rcf_weight")
        if self.teacher_width < 0 or (self.teacher_width > 0) != (self.teacher_weight > 0):
            raise InputError(
                "teacher_width and teacher_weight must both be positive, or both 0, found"
                f" {self.teacher_width} and {self.teacher_weight}"
            )
        if self.decoder_dim % self.decoder_num_heads or self.decoder_dim % 4:
            raise InputError(
                f"decoder_dim ({self.decoder_dim}) must be a multiple of 4 and of decoder_num_heads"
                f" ({self.decoder_num_heads})"
            )


class Pretrainer(nn.Module):
    """An encoder and what a method needs to train it.

    Attributes:
        name: As given to `create_model`.
        config: What `create_model` needs to build it again.
        encoder: The part that tasks use.
    """

    name: str = ""
    config: PretrainConfig
    _second_mask_token = False  # only Scale-MAE's file has one

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.num_features = self.encoder.num_features
        self.patch_size = self.encoder.patch_size
        if config.rcf_weight:
            self.features = FeaturePrediction(config)
        if config.contrast_weight:
            self.contrast = CropContrast(config.embed_dim)
        if config.teacher_width:
            self.teacher = nn.Linear(config.embed_dim, config.teacher_width)
            init_weights(self.teacher)
        if config.released_tables:
            self.released = ReleasedTables(
                self._released_width(), config.decoder_dim, config.patch_size, second_mask_token=self._second_mask_token
            )

    @property
    def random_features(self) -> list[RandomConvolutionFeatures]:
        """The random convolution features of stem and target, which `fit_features` fills; none as published."""
        return [module for module in self.modules() if isinstance(module, RandomConvolutionFeatures)]

    def fit_features(self, batch: ImageSetBatch, seed: int) -> None:
        """Draw the filters of `random_features` from images as the model sees them.

        Args:
            batch: Of the training data.
            seed: Of the windows that become filters; stem and target draw the same.
        """
        images, valid = self._encoder_images(batch)
        for module in self.random_features:
            module.fit(images, valid, patch_size=self.patch_size, generator=torch.Generator().manual_seed(seed % 2**63))

    def _encoder_images(self, batch: ImageSetBatch) -> tuple[Tensor, Tensor]:
        """Give the images of a batch as the encoder gets them, `(M, C, H, W)`, and what of them was seen."""
        return batch.pixels.flatten(0, 1), batch.valid.flatten(0, 1)

    def _loss(self, pixel_loss: Tensor, tokens: Tensor, images: Tensor, valid: Tensor, token_weight: Tensor) -> Tensor:
        """Add the loss on features to the one on pixels, as their weights say.

        Args:
            pixel_loss: Scalar.
            tokens: `(..., N, Dd)` of the decoder.
            images: `(..., C, H, W)` as the encoder gets them.
            valid: `(..., H, W)` bool, of the training images: for Scale-MAE twice as large.
            token_weight: `(..., N)` scored values of each token, 0 where it is not hidden.

        Returns:
            Scalar float32.
        """
        loss = self.config.pixel_weight * pixel_loss
        if self.config.rcf_weight:
            error = self.features(tokens, images)
            scored = token_weight * whole_patches(valid, self.pixels_per_token)
            # Over the values behind the pixel loss: parts of a batch add up to the loss of the whole.
            loss = loss + self.config.rcf_weight * (error * scored).sum() / token_weight.sum().clamp(min=1)
        return loss

    def _teacher_loss(self, cls: Tensor, teacher: Tensor | None, token_weight: Tensor) -> Tensor:
        """Compute the loss on a teacher's features of the anchors; 0 without them, as where a run is measured.

        Args:
            cls: `(B, D)` class tokens.
            teacher: `(B, teacher_width)` of each anchor; zeros where it has none (radar).
            token_weight: `(B, ...)` scored values of each sample: parts of a batch add up to the loss of the whole.

        Returns:
            Scalar float32.
        """
        if teacher is None or not self.config.teacher_width:
            return cls.new_zeros((), dtype=torch.float32)
        predicted = self.teacher(cls)
        with full_precision(cls):
            error = 1 - nn.functional.cosine_similarity(predicted.float(), teacher.float(), dim=-1)
            weight = token_weight.flatten(1).sum(1)
            taught = (error * weight * teacher.any(-1)).sum() / weight.sum().clamp(min=1)
        return self.config.teacher_weight * taught

    def _contrast_loss(self, one: Singles, generator: torch.Generator | None) -> Tensor:
        """Compute the loss on crops, see `CropContrast`; 0 without it, and where a run is measured."""
        if not self.config.contrast_weight or not torch.is_grad_enabled():
            return one.images.new_zeros((), dtype=torch.float32)
        found: Tensor = self.contrast(self.encoder, one, self.config.keep_ratio, generator)
        return self.config.contrast_weight * found

    def load_released_state_dict(
        self, state_dict: Mapping[str, object], *, parts: str = "all", same_method: bool = True
    ) -> None:
        """Fill the model from the authors' checkpoint, strictly; see `released.load_released_state_dict`."""
        load_released_state_dict(self, state_dict, parts=parts, same_method=same_method)

    def released_state_dict(self) -> dict[str, Tensor]:
        """Give all tensors under the authors' names."""
        return released_state_dict(self)

    def _released_width(self) -> int:
        return self.config.embed_dim

    @property
    def pixels_per_token(self) -> int:
        """Side, in pixels of the training image, of what one entry of `PretrainOutput.hidden` covers."""
        return self.patch_size

    def forward_features(
        self,
        images: Tensor,
        *,
        gsd_m: Tensor | float | None = None,
        lonlat_deg: Tensor | None = None,
        day: Tensor | None = None,
        sensor_id: Tensor | None = None,
        wavelength_nm: Tensor | None = None,
    ) -> Tensor:
        """See `Encoder.forward_features`."""
        return self.encoder.forward_features(
            images, gsd_m=gsd_m, lonlat_deg=lonlat_deg, day=day, sensor_id=sensor_id, wavelength_nm=wavelength_nm
        )

    def _mask(
        self,
        strategy: str,
        token_valid: Tensor,
        hidden: Tensor | None,
        generator: torch.Generator | None,
        same_source_as_anchor: Tensor | None = None,
    ) -> Mask:
        """Draw a mask, or make the one that hides what the caller says; without a source all images have the same."""
        if hidden is not None:
            return mask_from_hidden(hidden, token_valid)
        if same_source_as_anchor is None:
            same_source_as_anchor = torch.ones(token_valid.shape[:2], dtype=torch.bool, device=token_valid.device)
        return draw_mask(strategy, token_valid, same_source_as_anchor, self.config.keep_ratio, generator)


class PixelDecoder(nn.Module):
    """Predict the pixels of every patch from the visible tokens (MAE §3; A²-MAE: 512 wide, 8 blocks, 16 heads)."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.embed = nn.Linear(config.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = build_blocks(dim, config.decoder_depth, config.decoder_num_heads)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pred = _prediction_head(config)
        init_weights(self, config.attention_init)
        for parameter in self.pred.parameters():
            parameter.detach().mul_(config.prediction_init)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self, encoded: Tensor, mask: Mask, encoding: Tensor, wavelength_nm: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Decode all patches.

        Args:
            encoded: `(B, 1 + V, D)` of the encoder.
            mask: Which patches the V tokens are.
            encoding: `(B, K, N, Dd)` of every patch; for A²-MAE each image's own GSD encoding, no location.
            wavelength_nm: `(B, K, C)`, only read by the wavelength head.

        Returns:
            The pixels that the patches are predicted to have, `(B, K, N, patch * patch * C)` (of all groups together,
            `(B, 1, N, ...)`, where bands are grouped), and the tokens that they are read from, `(B, K, N, Dd)`.
        """
        x = self.embed(encoded)
        cls, x = x[:, :1], mask.restore(x[:, 1:], self.mask_token)  # (B, 1, Dd), (B, K, N, Dd)
        x = x + encoding.to(x.dtype)  # CLS gets zeros
        images, patches = x.shape[1:3]
        x = torch.cat([cls, x.flatten(1, 2)], dim=1)  # one sequence: attention across images
        for block in self.blocks:
            x = block(x)
        x = torch.unflatten(self.norm(x)[:, 1:], 1, (images, patches))
        prediction: Tensor = (
            self.pred(x, wavelength_nm) if isinstance(self.pred, WavelengthPrediction) else self.pred(x)
        )
        return prediction, x


class FeaturePrediction(nn.Module):
    """Predict the random convolution features of patches from the decoder's tokens [ours].

    Pixels of a patch are mostly brightness; its features are the structure that pixels cannot be averaged to. They are
    fixed, so nothing can collapse (docs/models.md).
    """

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.rcf = RandomConvolutionFeatures(config.in_chans)
        self.head = nn.Linear(config.decoder_dim, self.rcf.num_features)
        init_weights(self)

    def forward(self, tokens: Tensor, images: Tensor) -> Tensor:
        """Compute the mean absolute error of each patch's features.

        Args:
            tokens: `(..., N, Dd)` of the decoder.
            images: `(..., C, H, W)`, the images themselves.

        Returns:
            `(..., N)` float32.
        """
        predicted = self.head(tokens)
        with full_precision(images):
            error: Tensor = (predicted.float() - self.rcf.of_patches(images.float(), self.patch_size)).abs().mean(-1)
        return error


def _prediction_head(config: PretrainConfig) -> nn.Module:
    if config.bands == "groups":
        return GroupPrediction(config.groups, config.decoder_dim, config.patch_size)
    if config.bands == "wavelength":
        return WavelengthPrediction(config.spectral_rank, config.decoder_dim, config.patch_size)
    return nn.Linear(config.decoder_dim, config.patch_size**2 * config.in_chans)
