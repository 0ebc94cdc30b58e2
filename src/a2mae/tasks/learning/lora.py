"""LoRA (arXiv 2106.09685): low-rank updates of a frozen encoder's attention, merged into its weights when done."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trainable update of low rank, which starts at zero."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """`(..., in)` → `(..., out)`."""
        out: Tensor = self.linear(x)
        return out + F.linear(F.linear(x, self.down), self.up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer with the update folded in."""
        self.linear.weight += self.up @ self.down
        return self.linear.requires_grad_(True)


def add_lora(encoder: nn.Module, rank: int) -> None:
    """Freeze an encoder and put a low-rank update on every attention's `qkv` and `proj`."""
    encoder.requires_grad_(False)
    for name, module in list(encoder.named_modules()):
        if name.endswith("attn"):
            for layer in ("qkv", "proj"):
                setattr(module, layer, LoRALinear(getattr(module, layer), rank))


def merge_lora(encoder: nn.Module) -> None:
    """Fold all updates into their layers: the encoder has its plain architecture again."""
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoRALinear):
                setattr(module, name, child.merged())
