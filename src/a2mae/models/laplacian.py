"""Scale-MAE's Laplacian-pyramid decoder, its convolutions and its targets (arXiv 2212.14532 §3.2).

The convolutions take and give maps `(B, H, W, C)` and are matrix products over them. Their parameters and results are
those of the torch layers they derive from, whose backward passes take more than half of a Scale-MAE step on a CPU:
`benchmarks/train_step.py` shows the difference.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from a2mae.models.encoder import EncoderConfig
from a2mae.models.layers.blocks import build_blocks, init_weights
from a2mae.models.layers.encodings import sincos_2d
from a2mae.models.layers.masking import Mask


class Pointwise(nn.Conv2d):
    """A 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, H, W, out)`."""
        return F.linear(input, self.weight[:, :, 0, 0], self.bias)


class Upsample(nn.ConvTranspose2d):
    """A transposed convolution whose stride is its kernel: every pixel becomes `times` x `times` pixels."""

    def __init__(self, in_channels: int, out_channels: int, times: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, times, stride=times, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None, *, then: Pointwise | None = None) -> Tensor:
        """Enlarge a map.

        Args:
            input: `(B, H, W, C)`.
            output_size: Follows from the input and is not read.
            then: A convolution of the larger map, computed in the same product: its weights times these.

        Returns:
            `(B, times * H, times * W, out)`.
        """
        times = self.kernel_size[0]
        weight, bias = self.weight.permute(2, 3, 1, 0), self.bias  # (times, times, out, C)
        if then is not None:
            pointwise = then.weight[:, :, 0, 0]
            weight = pointwise @ weight
            bias = then.bias if bias is None else F.linear(bias, pointwise, then.bias)
        x = F.linear(input, weight.flatten(0, 2), None if bias is None else bias.repeat(times * times))
        x = torch.unflatten(x, -1, (times, times, -1)).transpose(2, 3)  # (B, H, times, W, times, out)
        return x.flatten(3, 4).flatten(1, 2)


class GroupSums(nn.Conv2d):
    """A 3x3 convolution of groups with one output each: a kernel per input channel, then the sum of each group."""

    def __init__(self, in_channels: int, groups: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, groups, 3, padding=1, groups=groups, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, H, W, groups)`."""
        weight = self.weight.flatten(0, 1)[:, None]  # (C, 1, 3, 3)
        x = F.conv2d(input.movedim(-1, 1), weight, padding=self.padding, groups=self.in_channels).movedim(1, -1)
        sums: Tensor = _SumOfEach.apply(x, self.in_channels // self.groups)
        return sums if self.bias is None else sums + self.bias.to(sums.dtype)


class _SumOfEach(torch.autograd.Function):
    """Sum of every `each` neighbours of the last dimension, by strided slices: torch's own takes the times of both."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, each: int) -> Tensor:
        ctx.each = each  # type: ignore[attr-defined]
        total = values[..., ::each]
        for member in range(1, each):
            total = total + values[..., member::each]
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        each: int = ctx.each  # type: ignore[attr-defined]
        spread = gradient.new_empty(*gradient.shape[:-1], gradient.shape[-1] * each)
        for member in range(each):
            spread[..., member::each] = gradient
        return spread, None


TARGETS = ("paper", "released")


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` to the same."""
        normed: Tensor = self.ln(x)
        return normed


class ConvBlock(nn.Module):
    """GELU, grouped 3x3, GELU, 1x1, plus a 1x1 convolution of the block's input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.GELU(), GroupSums(dim, dim // 2), nn.GELU(), Pointwise(dim // 2, dim))
        self.residual = Pointwise(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, dim)` to the same."""
        out: Tensor = self.convs(x) + self.residual(x)
        return out


class LaplacianHead(nn.Module):
    """Turn a map of the feature pyramid into pixels, `patch / 2` times larger in height and width."""

    def __init__(self, dim: int, out_chans: int, patch_size: int) -> None:
        super().__init__()
        first = patch_size // 4  # 4 at patch 16, then 2
        self.proj = Pointwise(dim, dim)
        self.conv_blocks = nn.ModuleList([ConvBlock(dim), ConvBlock(dim)])
        self.pred = nn.Sequential(
            ChannelNorm(dim),
            Upsample(dim, dim // 2, first),
            nn.GELU(),
            GroupSums(dim // 2, dim // 4),
            nn.GELU(),
            Pointwise(dim // 4, dim // 2),
            nn.GELU(),
            Upsample(dim // 2, out_chans, 2),  # no activation on the output
        )

    def forward(self, x: Tensor, enlarge: Upsample) -> Tensor:
        """`(B, h, w, dim)`, enlarged to twice that first, to `(B, h * patch, w * patch, out_chans)`."""
        x = enlarge(x, then=self.proj)
        for block in self.conv_blocks:
            x = block(x)
        pixels: Tensor = self.pred(x)
        return pixels


class Pyramid(nn.Module):
    """Enlarge the token map twice for the low band and four times for the high band; heads take the last step."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fpn1 = nn.Sequential(Upsample(dim, dim, 2), ChannelNorm(dim), nn.GELU(), Upsample(dim, dim, 2))
        self.fpn2 = nn.Sequential(Upsample(dim, dim, 2))


class LaplacianDecoder(nn.Module):
    """Blocks over visible and mask tokens, then one convolutional branch per band of the pyramid."""

    def __init__(self, config: EncoderConfig, dim: int, depth: int, num_heads: int, *, share_heads: bool) -> None:
        super().__init__()
        self.dim = dim
        self.embed = nn.Linear(config.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = build_blocks(dim, depth, num_heads)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        init_weights(self, config.attention_init)
        nn.init.normal_(self.mask_token, std=0.02)
        self.fpn = Pyramid(dim)
        self.fcn_high = LaplacianHead(dim, config.in_chans, config.patch_size)
        self.fcn_low = self.fcn_high if share_heads else LaplacianHead(dim, config.in_chans, config.patch_size)

    def forward(
        self, encoded: Tensor, mask: Mask, grid_size: tuple[int, int], ratio: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict both bands.

        Args:
            encoded: `(B, 1 + V, D)` of the encoder.
            mask: Which patches the V tokens are, of sets of one image.
            grid_size: Patches in height and width.
            ratio: `(B, 1)` GSD of the input over the reference, as released (docs/methods.md, Scale-MAE).

        Returns:
            `low (B, C, h * patch, w * patch)`, `high (B, C, 2 * h * patch, 2 * w * patch)`, and the tokens that they
            are made from, `(B, h * w, Dd)`.
        """
        x = mask.restore(self.embed(encoded)[:, 1:], self.mask_token)  # (B, 1, N, Dd); CLS is dropped
        x = (x + sincos_2d(grid_size, ratio, self.dim).to(x.dtype))[:, 0]  # (B, N, Dd)
        for block in self.blocks:
            x = block(x)
        tokens = self.norm(x)
        x = torch.unflatten(tokens, 1, grid_size)  # (B, h, w, Dd)
        low = self.fcn_low(x, self.fpn.fpn2[0])
        high = self.fcn_high(self.fpn.fpn1[:-1](x), self.fpn.fpn1[-1])
        return low.movedim(-1, 1), high.movedim(-1, 1), tokens


def laplacian_targets(
    target: Tensor, grid_size: tuple[int, int], patch_size: int, kind: str, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Make the low and the high band that the decoder has to predict.

    Sizes are those of the paper and the released code at 448 px with a token grid of 14 x 14, elsewhere kept relative
    to the token grid [ours]: 7, 14 and 56 are half of it, itself and four times it. Down by area, up bilinearly.

    Args:
        target: `(B, C, H, W)`, twice the input.
        grid_size: Token grid of the input (14 x 14 for 224 px).
        patch_size: Side of a patch of the input.
        kind: `paper`: low = up(14), high = I - up(56). `released`: low = 224 by area, high = I - up(7).
        valid: `(B, H, W)` bool; invalid pixels have no part in any mean [ours]. None if all are valid.

    Returns:
        `low (B, C, H / 2, W / 2)` and `high (B, C, H, W)`.
    """
    half = (grid_size[0] * patch_size, grid_size[1] * patch_size)
    full = (target.shape[-2], target.shape[-1])
    weight = None if valid is None else valid[:, None].to(target.dtype)
    if kind == "paper":
        low = _up(*_down(target, grid_size, weight), half)
        return low, target - _up(*_down(target, (grid_size[0] * 4, grid_size[1] * 4), weight), full)
    low, _ = _down(target, half, weight)
    coarse = (max(grid_size[0] // 2, 1), max(grid_size[1] // 2, 1))
    return low, target - _up(*_down(target, coarse, weight), full)


def reconstruct(low: Tensor, high: Tensor, grid_size: tuple[int, int], kind: str) -> Tensor:
    """Add the predicted bands up to a picture: the low band, less what the high band holds already, plus the high."""
    full = (high.shape[-2], high.shape[-1])
    if kind == "released":
        low, _ = _down(low, (max(grid_size[0] // 2, 1), max(grid_size[1] // 2, 1)), None)
    return _up(low, None, full) + high


def _down(x: Tensor, size: tuple[int, int], weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Mean over areas, of the valid pixels only, and which areas have any."""
    if weight is None:
        return F.interpolate(x, size, mode="area"), None
    share = F.interpolate(weight, size, mode="area")
    return F.interpolate(x * weight, size, mode="area") / share.clamp(min=1e-6), (share > 0).to(x.dtype)


def _up(x: Tensor, weight: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Bilinear, between areas that have a value."""
    if weight is None:
        return F.interpolate(x, size, mode="bilinear", align_corners=False)
    share = F.interpolate(weight, size, mode="bilinear", align_corners=False)
    return F.interpolate(x * weight, size, mode="bilinear", align_corners=False) / share.clamp(min=1e-6)
