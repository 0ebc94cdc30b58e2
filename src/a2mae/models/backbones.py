"""Hand an encoder to others as their backbone: segmentation-models-pytorch, terratorch, torchgeo-bench.

They call it with one tensor of images; what else the encoder reads (GSD, wavelengths) is given once, when it is built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.errors import InputError
from a2mae.models.checkpoint import load_encoder
from a2mae.models.encoder import ENCODINGS, Encoder
from a2mae.models.timm_encoder import levels_of

_STRIDES = (2, 4, 8, 16, 32)


class FeatureMaps(nn.Module):
    """Feature maps at the stride of the patch from four depths: what terratorch asks of a backbone.

    An encoder of a fixed number of bands reads more of them in views, one after the other, and the features of all
    views stand side by side, as in `evaluate`; bands that the last view lacks are zeros.

    Attributes:
        in_chans: Bands of the images.
        out_channels: Of each map.
        indices: Numbers of the blocks that give the maps.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        in_chans: int | None = None,
        gsd_m: float | None = None,
        wavelength_nm: Sequence[float] | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        """Wrap an encoder.

        Args:
            encoder: From `load_encoder`; its weights are shared, not copied.
            in_chans: Bands of the images to come; the encoder's if None.
            gsd_m: Metres per pixel of the images as they are fed; not needed where the encoding does not read it.
            wavelength_nm: Of each band, 0 for radar; only for `bands="wavelength"`.
            indices: Numbers of blocks; four, spread evenly and the last included, if None.

        Raises:
            InputError: If wavelengths are missing or too many, or given to an encoder that does not read them.
        """
        super().__init__()
        free = encoder.config.bands == "wavelength"
        if free and (wavelength_nm is None or in_chans not in (None, len(wavelength_nm))):
            found = "none" if wavelength_nm is None else f"{len(wavelength_nm)} for {in_chans} bands"
            raise InputError(
                f"this encoder reads any bands by their wavelength, found {found}: give wavelength_nm of each"
            )
        if not free and wavelength_nm is not None:
            raise InputError(
                f"this encoder reads {encoder.config.in_chans} bands of any wavelength: leave wavelength_nm away"
            )
        self.encoder = encoder
        self.gsd_m = gsd_m
        self.wavelength_nm = None if wavelength_nm is None else tuple(wavelength_nm)
        self.in_chans = in_chans or (encoder.config.in_chans if wavelength_nm is None else len(wavelength_nm))
        self._width = self.in_chans if free else encoder.config.in_chans
        self.indices = tuple(levels_of(encoder.feature_info) if indices is None else indices)
        self.out_channels = [math.ceil(self.in_chans / self._width) * encoder.num_features] * len(self.indices)

    def forward(self, images: Tensor, **others: object) -> list[Tensor]:
        """Give the maps `(B, D, H / patch, W / patch)`, shallowest first, final norm applied.

        Args:
            images: `(B, C, H, W)`, normalised as the images of the pretraining were.
            others: What a data set of terratorch's has beside the images; not read.
        """
        given = self._given(images)
        views = [
            self.encoder.forward_intermediates(view, self.indices, norm=True, **given) for view in self._views(images)
        ]
        return [torch.cat(level, dim=1) for level in zip(*views, strict=True)]

    def features(self, images: Tensor, pool: Literal["mean", "cls"]) -> Tensor:
        """Give one feature `(B, D)` per image: the mean over its patches, or the class token."""
        given = self._given(images)
        views = [self.encoder.forward_features(view, **given) for view in self._views(images)]
        return torch.cat([view[:, 1:].mean(dim=1) if pool == "mean" else view[:, 0] for view in views], dim=1)

    def _views(self, images: Tensor) -> tuple[Tensor, ...]:
        """Cut images into what the encoder reads at once."""
        if images.ndim != 4 or images.shape[1] != self.in_chans:
            raise InputError(
                f"images (B, {self.in_chans}, H, W) are expected, found {tuple(images.shape)}: set in_chans to"
                " their bands"
            )
        return torch.split(F.pad(images, (0, 0, 0, 0, 0, -self.in_chans % self._width)), self._width, dim=1)

    def _given(self, images: Tensor) -> dict[str, Any]:
        """What the encoder reads beside the images."""
        waves = None if self.wavelength_nm is None else torch.tensor(self.wavelength_nm, device=images.device)
        return {"gsd_m": self.gsd_m, "wavelength_nm": waves}


class Backbone(FeatureMaps):
    """Feature maps at strides 2, 4, 8, 16 and 32 from five depths of a ViT, resized without learned weights.

    It has the interface of segmentation-models-pytorch's encoders: any of its decoders takes
    `encoder_channels=backbone.out_channels`.

    Attributes:
        out_channels: Of the input and the five maps.
        output_stride: 32; images need sides that are multiples of it and of the patch.
    """

    output_stride = 32

    def __init__(
        self,
        encoder: Encoder,
        *,
        in_chans: int | None = None,
        gsd_m: float | None = None,
        wavelength_nm: Sequence[float] | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        """Wrap an encoder; arguments as of `FeatureMaps`, with five blocks, the shallowest for the finest map."""
        depth, count = len(encoder.blocks), len(_STRIDES)
        if indices is None:
            indices = [max(round((level + 1) * depth / count) - 1, 0) for level in range(count)]
        if len(indices) != count:
            raise InputError(f"indices must name five blocks, one per stride 2, 4, 8, 16, 32, found {list(indices)}")
        super().__init__(encoder, in_chans=in_chans, gsd_m=gsd_m, wavelength_nm=wavelength_nm, indices=indices)
        self.out_channels = [self.in_chans, *self.out_channels]

    def forward(self, images: Tensor, **others: object) -> list[Tensor]:
        """Give the images `(B, C, H, W)` and five maps `(B, D, H / stride, W / stride)`."""
        height, width = images.shape[-2:]
        if height % self.output_stride or width % self.output_stride:
            raise InputError(f"image height and width must be multiples of 32 px, found {height} x {width}")
        maps = [
            F.interpolate(level, (height // stride, width // stride), mode="bilinear", align_corners=False)
            for level, stride in zip(super().forward(images), _STRIDES, strict=True)
        ]
        return [images, *maps]


def a2mae_encoder(directory: str | Path, **options: Any) -> FeatureMaps:  # noqa: ANN401 (of `FeatureMaps`)
    """Build what terratorch knows by the name `a2mae_encoder`.

    Args:
        directory: A model directory.
        options: `in_chans`, `gsd_m`, `wavelength_nm`, `indices` of `FeatureMaps`.

    Raises:
        CheckpointError: If the encoder cannot be loaded.
        InputError: If the options do not fit it.
    """
    encoder = load_encoder(directory)
    if "gsd_m" in ENCODINGS[encoder.config.encoding] and options.get("gsd_m") is None:
        raise InputError(
            f"the encoder of {directory} reads the GSD (encoding {encoder.config.encoding!r}): give gsd_m, metres per"
            " pixel of the images as they are fed"
        )
    return FeatureMaps(encoder, **options)


def register_with_terratorch() -> None:
    """Put `a2mae_encoder` into terratorch's registry of backbones.

    Raises:
        ImportError: If terratorch is not installed.
    """
    from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY  # noqa: PLC0415 (only who uses it has it)

    TERRATORCH_BACKBONE_REGISTRY.register(a2mae_encoder)


def torchgeo_bench_model(
    bands: Sequence[Any],
    *,
    directory: str | Path,
    gsd_m: float | None = None,
    pool: Literal["mean", "cls"] = "mean",
    **options: Any,  # noqa: ANN401 (of torchgeo-bench)
) -> nn.Module:
    """Build a `BenchModel` of torchgeo-bench: the `_target_` of a model's YAML file.

    Args:
        bands: torchgeo-bench's description of each band: `name`, `wavelength_um` and statistics. An encoder of
            `bands="wavelength"` reads their wavelengths, with none for radar.
        directory: A model directory.
        gsd_m: Metres per pixel of the images as they are fed, after any `image_size` of the data set.
        pool: `mean` of the patch tokens, or `cls`.
        options: Of `BenchModel`: `normalization`.

    Raises:
        ImportError: If torchgeo-bench is not installed.
        CheckpointError: If the encoder cannot be loaded.
        InputError: If `pool` is unknown, or GSD or wavelengths are missing.
    """
    from torchgeo_bench.models.interface import BenchModel  # noqa: PLC0415 (only who uses it has it)

    if pool not in ("mean", "cls"):
        raise InputError(f"unknown pool {pool!r}; choose mean or cls")
    free = load_encoder(directory).config.bands == "wavelength"
    wavelength_nm = [1000 * (band.wavelength_um or 0) for band in bands] if free else None
    backbone = a2mae_encoder(directory, in_chans=len(bands), gsd_m=gsd_m, wavelength_nm=wavelength_nm)

    class Model(BenchModel):  # type: ignore[misc]  # untyped
        """An encoder of ours, frozen, as torchgeo-bench calls it."""

        def _forward_patch_features(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                return backbone.features(images, pool)

    model: nn.Module = Model(bands=list(bands), **options)
    model.backbone = backbone.requires_grad_(False)
    return model
