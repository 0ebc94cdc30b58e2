"""The transformer blocks of encoder and decoders, timm's, and their initial weights."""

from __future__ import annotations

import math
from functools import partial
from typing import cast

from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import nn

from a2mae.models.layers.bands import PatchEmbed, WavelengthPatchEmbed


def build_blocks(
    embed_dim: int, depth: int, num_heads: int, mlp_ratio: float = 4.0, *, drop_path: float = 0.0
) -> nn.ModuleList:
    """Build timm's pre-norm blocks with qkv bias, GELU and LayerNorm eps 1e-6; `drop_path` grows from 0."""
    # timm annotates a class but calls it as a factory.
    norm = cast("type[nn.Module]", partial(nn.LayerNorm, eps=1e-6))
    rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
    return nn.ModuleList(
        Block(embed_dim, num_heads, mlp_ratio=mlp_ratio, qkv_bias=True, norm_layer=norm, drop_path=rate)
        for rate in rates
    )


def init_weights(module: nn.Module, attention: str = "xavier") -> None:
    """Fill linears and patch kernels Xavier-uniformly and biases with zeros (MAE, Scale-MAE and A²-MAE alike).

    Args:
        module: Its children are filled.
        attention: `similar` then copies each block's queries, at sqrt(2) times their scale, to its keys [ours, after
            mimetic initialisation, arXiv 2305.09828]. Attention then starts as similarity of tokens: a mask token looks
            at its neighbours from the first step on, where it would otherwise take some hundred steps.
    """
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, (PatchEmbed, WavelengthPatchEmbed)):
            nn.init.xavier_uniform_(child.proj.weight.view(child.proj.weight.shape[0], -1))
            nn.init.zeros_(child.proj.bias)  # type: ignore[arg-type]
    if attention == "similar":
        for child in module.modules():
            if isinstance(child, Attention):
                query, key, _ = child.qkv.weight.detach().chunk(3)
                query.mul_(math.sqrt(2))
                key.copy_(query)
