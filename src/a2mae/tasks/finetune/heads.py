"""Heads that turn the tokens of a ViT into classes: pooled for images, decoded for pixels, fused for two dates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.errors import InputError
from a2mae.models.layers.masking import full_precision
from a2mae.models.layers.rcf import KERNEL_SIZE, LIMIT, RandomConvolutionFeatures, split_for_cache

_PIXEL_WIDTH = 32
_PIXELS_AT_ONCE = 65_536
"""Through the layers on pixels, channels last: three times as fast on a CPU as a batch of windows at once."""


class LinearHead(nn.Module):
    """BatchNorm without affine and one linear layer on a pooled token: the probe of MAE and Scale-MAE."""

    def __init__(self, features: int, classes: int, *, pool: str = "cls") -> None:
        """Make the head.

        Args:
            features: Width D of the tokens.
            classes: K.
            pool: `cls`, or `mean` of the patch tokens.

        Raises:
            InputError: For another `pool`.
        """
        super().__init__()
        if pool not in ("cls", "mean"):
            raise InputError(f"pool must be 'cls' or 'mean', found {pool!r}")
        self.pool = pool
        self.norm = nn.BatchNorm1d(features, affine=False, eps=1e-6)
        self.linear = nn.Linear(features, classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Classify tokens: `(B, 1 + N, D)` → `(B, K)`."""
        pooled = tokens[:, 0] if self.pool == "cls" else tokens[:, 1:].mean(dim=1)
        logits: Tensor = self.linear(self.norm(pooled))
        return logits


class AttentiveHead(nn.Module):
    """One learned query attends over all tokens (timm's latent attention pooling), then a linear layer."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        heads = _num_heads(features)
        self.attention = AttentionPoolLatent(features, num_heads=heads, mlp_ratio=2.0)
        self.norm = nn.LayerNorm(features)
        self.linear = nn.Linear(features, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Classify tokens: `(B, 1 + N, D)` → `(B, K)`."""
        logits: Tensor = self.linear(self.norm(self.attention(tokens)))
        return logits


class RCFHead(nn.Module):
    """One linear layer on the mean and deviation of the patch tokens and the image's random convolution features.

    The features are of all bands at once, which an encoder of three bands at a time does not see together, and need no
    training: a few labels are enough for them (docs/tasks.md).

    Attributes:
        rcf: To be fitted to training images before the head is trained.
    """

    def __init__(self, features: int, classes: int, bands: int) -> None:
        super().__init__()
        self.rcf = RandomConvolutionFeatures(bands)
        self.norm = nn.BatchNorm1d(2 * features, affine=False, eps=1e-6)
        self.linear = nn.Linear(2 * features + self.rcf.num_features, classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        """Classify tokens `(B, 1 + N, D)` of pixels `(B, bands, H, W)` → `(B, K)`."""
        patches = tokens[:, 1:]
        deviation = patches.std(dim=1, correction=int(patches.shape[1] > 1))  # a pyramid's last stage may be one token
        pooled = self.norm(torch.cat([patches.mean(dim=1), deviation], dim=1))
        with full_precision(pixels):
            convolved = self.rcf(pixels).clamp(-LIMIT, LIMIT)
        logits: Tensor = self.linear(torch.cat([pooled, convolved], dim=1))
        return logits


def _token_norms(channels: Sequence[int], *, fused: bool) -> nn.ModuleList:
    """Make what normalises the levels, of these widths, before a decoder.

    An encoder's own maps get a BatchNorm without affine: a ViT's tokens share a large constant part, which a LayerNorm
    would keep. The fused maps of two dates have none, and get a LayerNorm.
    """
    return nn.ModuleList(
        [LayerNorm2d(width) if fused else nn.BatchNorm2d(width, affine=False, eps=1e-6) for width in channels]
    )


def _normed(norms: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
    """Normalise levels and join them: `(B, D * levels, h, w)`."""
    return torch.cat([norm(level) for norm, level in zip(norms, maps, strict=True)], dim=1)


class LinearDecoder(nn.Module):
    """Each token predicts the classes of its own patch's pixels: one linear layer, no upsampling."""

    def __init__(self, channels: Sequence[int], classes: int, patch: int, *, fused: bool = False) -> None:
        super().__init__()
        self.norms = _token_norms(channels, fused=fused)
        self.linear = nn.Conv2d(sum(channels), classes * patch * patch, 1)
        self.shuffle = nn.PixelShuffle(patch)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode levels of `(B, D, h, w)` → `(B, K, h * patch, w * patch)`."""
        logits: Tensor = self.shuffle(self.linear(_normed(self.norms, maps)))
        return logits


class RCFDecoder(nn.Module):
    """One linear layer on each token and its patch's random convolution features, and two on each pixel's own bands.

    A token of a small encoder loses what is finer than its patch; the features keep it, of all bands at once. What a
    patch says of its pixels it says place by place, so borders follow it; each pixel's bands put them where they are.
    They cost 3 % of the processor time of a finetuning.

    Attributes:
        rcf: To be fitted to training images before the head is trained.
    """

    def __init__(self, channels: Sequence[int], classes: int, patch: int, bands: int, *, fused: bool = False) -> None:
        """Make the head.

        Args:
            channels: Width D of each level.
            classes: K.
            patch: Pixels per token side.
            bands: Of one date.
            fused: The levels are of two dates, joined; then so are the features: both dates' and their difference.
        """
        super().__init__()
        self.patch = patch
        self.rcf = RandomConvolutionFeatures(bands, kernel_size=min(KERNEL_SIZE, patch))
        self.norms = _token_norms(channels, fused=fused)
        dates = 3 if fused else 1
        self.linear = nn.Conv2d(sum(channels) + self.rcf.num_features * dates, classes * patch * patch, 1)
        self.shuffle = nn.PixelShuffle(patch)
        last = nn.Conv2d(_PIXEL_WIDTH, classes, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(cast(Tensor, last.bias))
        self.pixels = nn.Sequential(nn.Conv2d(bands * dates, _PIXEL_WIDTH, 1), nn.GELU(), last)

    def forward(self, maps: Sequence[Tensor], images: Tensor) -> Tensor:
        """Decode levels of `(B, D, h, w)` with images `(B, T, bands, H, W)` → `(B, K, h * patch, w * patch)`."""
        grid = (maps[0].shape[-2], maps[0].shape[-1])
        images = on_patches(images, self.patch, grid)
        convolved = self.rcf.of_patches(images, self.patch)  # (B, T, N, 2 J)
        features = of_dates(torch.unflatten(convolved.transpose(-1, -2), -1, grid))
        logits: Tensor = self.shuffle(self.linear(torch.cat([_normed(self.norms, maps), features], dim=1)))
        own = of_dates(images).contiguous(memory_format=torch.channels_last)
        some_pixels = split_for_cache(own, own.shape[-2] * own.shape[-1], _PIXELS_AT_ONCE)
        return logits + torch.cat([self.pixels(some) for some in some_pixels])


def of_dates(values: Tensor) -> Tensor:
    """Give `(B, T, C, H, W)` as `(B, C, H, W)` for one date, `(B, 3 C, H, W)` for two: both and their difference."""
    dates = list(values.unbind(1))
    if len(dates) == 2:
        dates.append((dates[1] - dates[0]).abs())
    return torch.cat(dates, dim=1)


def on_patches(images: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Resize images `(..., C, H, W)` to a grid of whole patches where they are of another size."""
    size = [side * patch for side in grid]
    if list(images.shape[-2:]) == size:
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    resized = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return resized.view(*images.shape[:-2], *size)


class ConvDecoder(nn.Module):
    """A light decoder: levels projected, grown by pixel shuffle to half resolution, refined by convolutions."""

    def __init__(
        self, channels: Sequence[int], classes: int, patch: int, *, fused: bool = False, width: int = 64
    ) -> None:
        super().__init__()
        self.norms = _token_norms(channels, fused=fused)
        grow = max(patch // 2, 1)
        self.project = nn.Conv2d(sum(channels), width * grow * grow // 4, 1)
        self.shuffle = nn.PixelShuffle(grow)
        self.refine = nn.Sequential(
            nn.Conv2d(width // 4, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.GELU(),
            nn.Conv2d(width, classes * 4, 1),
        )
        self.to_pixels = nn.PixelShuffle(patch // grow)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode levels of `(B, D, h, w)` → `(B, K, h * patch, w * patch)`."""
        logits: Tensor = self.to_pixels(self.refine(self.shuffle(self.project(_normed(self.norms, maps)))))
        return logits


class DetailDecoder(nn.Module):
    """A light decoder of the tokens, joined with a few convolutions of the pixels, for what is smaller than a patch.

    Like the first skip connection of UNETR (arXiv 2103.10504): a token covers a whole patch, and a road is thinner.
    """

    def __init__(
        self, channels: Sequence[int], classes: int, bands: int, *, fused: bool = False, width: int = 48
    ) -> None:
        """Make the head.

        Args:
            channels: Width D of each level.
            classes: K.
            bands: Of the pixels, all dates together.
            fused: The levels are of two dates, joined.
            width: Channels at full size.
        """
        super().__init__()
        self.norms = _token_norms(channels, fused=fused)
        self.project = nn.Conv2d(sum(channels), width * 4, 1)
        self.grow = nn.Sequential(nn.PixelShuffle(2), _conv(width, width))
        self.stem = nn.Sequential(_conv(bands, width), _conv(width, width))
        self.join = nn.Sequential(_conv(2 * width, width), _conv(width, width), nn.Conv2d(width, classes, 1))

    def forward(self, maps: Sequence[Tensor], pixels: Tensor) -> Tensor:
        """Decode levels of `(B, D, h, w)` with pixels `(B, bands, h * patch, w * patch)`, which the classes are of."""
        tokens = self.grow(self.project(_normed(self.norms, maps)))
        tokens = F.interpolate(tokens, size=pixels.shape[-2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.join(torch.cat([tokens, self.stem(pixels)], dim=1))
        return logits


def _num_heads(features: int) -> int:
    """Return how many attention heads a width is divided into."""
    return next(count for count in (8, 6, 4, 3, 2, 1) if features % count == 0)


def _conv(channels: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(8, width), nn.GELU())


class UPerNetHead(nn.Module):
    """UPerNet (arXiv 1807.10221): on a pyramid as it is, on a plain ViT's levels rescaled to 4, 2, 1 and 1/2 times."""

    def __init__(
        self, channels: Sequence[int], classes: int, reduction: int, *, pyramid: bool, width: int = 128
    ) -> None:
        """Make the head.

        Args:
            channels: Width D of each of four levels.
            classes: K.
            reduction: Image pixels per pixel of the first level.
            pyramid: Each level has half the size of the one before; else all have one size.
            width: Channels of the decoder.
        """
        super().__init__()
        self.reduction = reduction
        features = channels[0]
        self.pyramid = nn.ModuleList(
            [nn.Identity() for _ in channels]
            if pyramid
            else [
                nn.Sequential(
                    nn.ConvTranspose2d(features, features // 2, 2, stride=2),
                    nn.GroupNorm(1, features // 2),
                    nn.GELU(),
                    nn.ConvTranspose2d(features // 2, features // 4, 2, stride=2),
                ),
                nn.ConvTranspose2d(features, features // 2, 2, stride=2),
                nn.Identity(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        )
        channels = channels if pyramid else [features // 4, features // 2, features, features]
        # The decoder drops the two finest entries (1 and 1/2 of the image), which a ViT does not have.
        self.decoder = UPerNetDecoder([0, 0, *channels], encoder_depth=5, decoder_channels=width)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode four levels of `(B, D, h, w)` → `(B, K, h * reduction, w * reduction)` of the first one's h and w."""
        height, width = maps[0].shape[-2:]
        levels = [rescale(level) for rescale, level in zip(self.pyramid, maps, strict=True)]
        fused = self.decoder([maps[0], maps[0], *levels])
        logits: Tensor = F.interpolate(
            self.classify(fused),
            size=(height * self.reduction, width * self.reduction),
            mode="bilinear",
            align_corners=False,
        )
        return logits


class ChangeFusion(nn.Module):
    """Joins the features of two dates from one shared encoder into one map per level."""

    def __init__(self, channels: Sequence[int], mode: str = "difference_concat") -> None:
        """Make the fusion.

        Args:
            channels: Width D of each level.
            mode: `difference` |after − before|; `concat`; `difference_concat`: both; `attention`: the tokens of each
                date attend to the other's before the difference is taken.

        Raises:
            InputError: For another `mode`.
        """
        super().__init__()
        parts = {"difference": 1, "concat": 2, "difference_concat": 3, "attention": 3}
        if mode not in parts:
            raise InputError(f"fusion must be one of {', '.join(parts)}, found {mode!r}")
        self.mode = mode
        self.project = nn.ModuleList([nn.Conv2d(parts[mode] * width, width, 1) for width in channels])
        if mode == "attention":  # levels of one width share it
            widths = dict.fromkeys(channels)
            self.norm = nn.ModuleDict({str(width): nn.LayerNorm(width) for width in widths})
            self.attention = nn.ModuleDict(
                {str(width): nn.MultiheadAttention(width, _num_heads(width), batch_first=True) for width in widths}
            )

    def forward(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Tensor]:
        """Join two lists of levels `(B, D, h, w)`."""
        return [
            project(self._join(first, second))
            for project, first, second in zip(self.project, before, after, strict=True)
        ]

    def _join(self, before: Tensor, after: Tensor) -> Tensor:
        if self.mode == "attention":
            before, after = self._attend(before, after), self._attend(after, before)
        difference = (after - before).abs()
        if self.mode == "difference":
            return difference
        if self.mode == "concat":
            return torch.cat([before, after], dim=1)
        return torch.cat([difference, before, after], dim=1)

    def _attend(self, query: Tensor, other: Tensor) -> Tensor:
        grid = query.shape[-2:]
        width = str(query.shape[1])
        tokens, context = (self.norm[width](level.flatten(2).transpose(1, 2)) for level in (query, other))
        attended, _ = self.attention[width](tokens, context, context, need_weights=False)
        joined: Tensor = query + attended.transpose(1, 2).unflatten(2, grid)
        return joined
