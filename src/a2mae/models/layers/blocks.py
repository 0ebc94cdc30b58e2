"""The transformer blocks of encoder and decoders, timm's: what they give, parameters by depth, initial weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, cast

from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import nn

from a2mae.models.layers.bands import PatchEmbed, WavelengthPatchEmbed


@dataclass(frozen=True)
class Stage:
    """What one block or stage of an encoder gives: an entry of `feature_info`, as timm has it.

    Attributes:
        num_chs: Width of its feature map.
        reduction: Image pixels per pixel of the map.
    """

    num_chs: int
    reduction: int


Matcher: TypeAlias = "dict[str, str | list[tuple[str, tuple[int, ...] | None]]]"
"""Names of parameters by depth, as timm's `group_matcher` gives them."""


def nested(matcher: Matcher, prefix: str) -> Matcher:
    """Give the matcher of a model for when it is a part of another.

    Args:
        matcher: Regular expressions that begin where names do.
        prefix: Of the names in the larger model, with its dot.
    """

    def within(pattern: str) -> str:
        return rf"{re.escape(prefix)}(?:{pattern.replace('^', '')})"

    return {
        group: within(found) if isinstance(found, str) else [(within(pattern), rest) for pattern, rest in found]
        for group, found in matcher.items()
    }


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
