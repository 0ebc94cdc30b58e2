"""LoRA (arXiv 2106.09685): low-rank updates of a frozen encoder's attention, merged into its weights at the end."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a2mae.errors import InputError


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trainable update of low rank, which starts at zero.

    Layers that compute with another's `weight` and `bias` (Swin v2, EVA) find both.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and its update: `(..., in)` → `(..., out)`."""
        out: Tensor = self.linear(x)
        return out + F.linear(F.linear(x, self.down), self.up)

    @property
    def weight(self) -> Tensor:
        """The layer's weight with its update."""
        return self.linear.weight + self.up @ self.down

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias."""
        return self.linear.bias

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Fold the update into the plain layer."""
        self.linear.weight += self.up @ self.down
        return self.linear.requires_grad_(True)


def add_lora(encoder: nn.Module, rank: int) -> None:
    """Freeze an encoder and put a low-rank update on every attention's `qkv` and `proj`.

    Raises:
        InputError: If it has no attention with such layers.
    """
    encoder.requires_grad_(False)
    updated = 0
    for name, module in list(encoder.named_modules()):
        if name.endswith("attn"):
            for layer in ("qkv", "q_proj", "k_proj", "v_proj", "proj"):
                if isinstance(found := getattr(module, layer, None), nn.Linear):
                    setattr(module, layer, LoRALinear(found, rank))
                    updated += 1
    if not updated:
        raise InputError("finetune.mode lora updates attention, and this encoder has none: take full or frozen")


def merge_lora(encoder: nn.Module) -> None:
    """Fold all updates into their layers: the encoder has its plain architecture again."""
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoRALinear):
                setattr(module, name, child.merged())
