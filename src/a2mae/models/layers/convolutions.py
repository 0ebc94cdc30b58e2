"""The decoder's convolutions as matrix products over maps that lie channels last in memory.

Parameters and results are those of the torch layers they derive from. On a CPU the backward passes of those layers take
more than half of a Scale-MAE step; `benchmarks/train_step.py` shows the difference.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Pointwise(nn.Conv2d):
    """A 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, out, H, W)`."""
        return F.linear(input.movedim(1, -1), self.weight[:, :, 0, 0], self.bias).movedim(-1, 1)


class Upsample(nn.ConvTranspose2d):
    """A transposed convolution whose kernels lie side by side: every pixel becomes `times` x `times` of them."""

    def __init__(self, in_channels: int, out_channels: int, times: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, times, stride=times, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`(B, C, H, W)` to `(B, out, times * H, times * W)`; `output_size` follows from that and is not read."""
        times = self.kernel_size[0]
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (times * times * out, C)
        bias = None if self.bias is None else self.bias.repeat(times * times)
        x = F.linear(input.movedim(1, -1), weight, bias)  # (B, H, W, times * times * out)
        x = torch.unflatten(x, -1, (times, times, self.out_channels)).transpose(2, 3)  # (B, H, times, W, times, out)
        return x.flatten(3, 4).flatten(1, 2).movedim(-1, 1)


class GroupSums(nn.Conv2d):
    """A 3x3 convolution of groups with one output each: one kernel per input channel, then the sum of each group."""

    def __init__(self, in_channels: int, groups: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, groups, 3, padding=1, groups=groups, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, groups, H, W)`."""
        weight = self.weight.flatten(0, 1)[:, None]  # (C, 1, 3, 3)
        x = F.conv2d(input, weight, padding=self.padding, groups=self.in_channels)
        each = self.in_channels // self.groups
        x = torch.unflatten(x.movedim(1, -1), -1, (self.groups, each)).sum(-1).movedim(-1, 1)
        return x if self.bias is None else x + self.bias[:, None, None]
