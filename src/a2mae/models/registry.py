"""Build models by name, as timm does; every width can be chosen."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from a2mae.errors import InputError, did_you_mean
from a2mae.models.a2mae import A2MAE, A2MAEConfig
from a2mae.models.mae import MAE, MAEConfig
from a2mae.models.pretrainer import PretrainConfig, Pretrainer
from a2mae.models.satmae import SatMAE, SatMAEConfig
from a2mae.models.scale_mae import ScaleMAE, ScaleMAEConfig

SIZES: dict[str, dict[str, int]] = {
    # Encoder as ViT; the decoder's default is 512 wide with 16 heads (MAE), narrower beside the two small encoders.
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3, "decoder_dim": 192, "decoder_num_heads": 6},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6, "decoder_dim": 256, "decoder_num_heads": 8},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12, "decoder_dim": 512, "decoder_num_heads": 16},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "decoder_dim": 512, "decoder_num_heads": 16},
}
_METHODS: dict[str, tuple[Callable[..., Pretrainer], type[PretrainConfig]]] = {
    "a2mae": (A2MAE, A2MAEConfig),
    "scale_mae": (ScaleMAE, ScaleMAEConfig),
    "mae": (MAE, MAEConfig),
    "satmae": (SatMAE, SatMAEConfig),
}
_SHAPES = {"embed_dim", "depth", "num_heads", "patch_size", "in_chans", "bands", "decoder_dim", "decoder_depth"}
_NAME = re.compile(r"(?P<method>[a-z0-9_]+)_vit_(?P<size>[a-z]+)_patch(?P<patch>\d+)")


def list_models() -> list[str]:
    """List the names with patch 16; any other patch size may be written in its place."""
    return [f"{method}_vit_{size}_patch16" for method in _METHODS for size in SIZES]


def create_model(name: str, **kwargs: object) -> Pretrainer:
    """Build a model with fresh weights.

    Args:
        name: `{a2mae,scale_mae,mae,satmae}_vit_{tiny,small,base,large}_patch16`, or another patch size.
        **kwargs: Fields of the method's configuration (`A2MAEConfig`, `ScaleMAEConfig`, `MAEConfig`, `SatMAEConfig`):
            widths, depths, `patch_size`, `in_chans`, `bands`, `encoding`, `masking`, `targets`, `keep_ratio`, ...

    Raises:
        ValueError: If the name or a value is unknown.
        TypeError: If a keyword is unknown; the message names the nearest.
    """
    model_class, config = resolve(name, kwargs)
    model = model_class(config)
    model.name = name
    return model


def resolve(name: str, kwargs: dict[str, object]) -> tuple[Callable[..., Pretrainer], PretrainConfig]:
    """Find the class and the full configuration that a name and keyword arguments stand for."""
    match = _NAME.fullmatch(name)
    if match is None or match["method"] not in _METHODS or match["size"] not in SIZES:
        near = did_you_mean(name, list_models(), always=True)
        raise InputError(f"unknown model {name!r}: {near}Known are {', '.join(list_models())}")
    model_class, config_class = _METHODS[match["method"]]
    fields = [field.name for field in dataclasses.fields(config_class)]
    for key in kwargs:
        if key not in fields:
            raise TypeError(f"{name} has no argument {key!r}: {did_you_mean(key, fields)}It takes {', '.join(fields)}")
    defaults: dict[str, object] = {**SIZES[match["size"]], "patch_size": int(match["patch"])}
    if (
        match["size"] == "large"
        and match["patch"] == "16"
        and match["method"] != "satmae"
        and not kwargs.keys() & _SHAPES
    ):
        defaults["released_tables"] = True  # the published architecture, to the last parameter
    merged = {**defaults, **kwargs}
    for prefix in ("", "decoder_"):  # a width of its own brings heads of 64 (encoder) or 32 (decoder)
        width, heads = ("embed_dim", "num_heads") if not prefix else ("decoder_dim", "decoder_num_heads")
        if width in kwargs and heads not in kwargs:
            merged[heads] = max(1, int(str(kwargs[width])) // (32 if prefix else 64))
    return model_class, config_class(**merged)  # type: ignore[arg-type]
