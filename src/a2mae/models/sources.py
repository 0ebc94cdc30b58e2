"""Tell what a file of weights is, by its tensors, and give them our names; nothing in it is executed.

Files of MAE, Scale-MAE, A²-MAE and SatMAE as their authors publish them, of timm's vision transformers (DINOv2 and v3,
augreg, MAE) and torchgeo's, and our own model directories.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from a2mae.errors import InputError
from a2mae.files import check_regular, digest_of, file_digest
from a2mae.models.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Json,
    check_tensors,
    model_of_config,
    read_safetensors,
)  # fmt: skip
from a2mae.models.layers.encodings import sincos_2d
from a2mae.models.pretrainer import PretrainConfig
from a2mae.models.registry import SIZES, create_model, resolve
from a2mae.models.released import CheckpointError, describe_difference, read_published, to_our_name

RGB_NM = (665.0, 560.0, 490.0)
"""What the three channels of published files see."""

_SCALES = {"ls1.gamma": "attn.proj", "gamma_1": "attn.proj", "ls2.gamma": "mlp.fc2", "gamma_2": "mlp.fc2"}
"""Layer scale: each multiplies what this layer of its block gives."""
_DECODER = ("mask_token", "decoder_embed.", "decoder_blocks.", "decoder_norm.", "decoder_pred.", "fpn.", "fcn_")
_LEFT_OUT = {  # prefix of the names in the file: what it is
    "pos_embed": "table of positions",
    "channel_embed": "table of groups of bands",
    "decoder_pos_embed": "the decoder's table of positions",
    "decoder_channel_embed": "the decoder's table of groups of bands",
    "mask_token_decoder": "second mask token, which no forward reads",
    "reg_token": "register tokens",
    "head.": "classification head",
    "fc_norm.": "norm of the pooled features",
    "patch_embed.weight_generator.": "generator of kernels from wavelengths",
    "patch_embed.fclayer.": "encoder of wavelengths",
}

_FAMILIES = {  # tensor that names it: what it is
    "layer1.0.conv1.weight": "ResNet",
    "layers.0.blocks.0.attn.qkv.weight": "Swin",
    "features.1.0.attn.qkv.weight": "Swin of torchvision",
    "stages.0.blocks.0.conv_dw.weight": "ConvNeXt",
    "stages.0.0.dwconv.weight": "ConvNeXt of its authors",
}
"""What is no vision transformer and yet recognised."""


def family_of(found: Mapping[str, Tensor]) -> str | None:
    """Say of which family a pyramid is; None for what is none, or not known."""
    return next((family for name, family in _FAMILIES.items() if name in found), None)


@dataclass(frozen=True)
class Row:
    """What becomes of one part: a line of the table that log and `config.json` show.

    Attributes:
        part: Of the file or of the model.
        verdict: `taken` bit by bit, `adapted`, `left out` of the model, or `fresh`: not from the file.
        detail: How, in words.
    """

    part: str
    verdict: str
    detail: str


def table_of(rows: Sequence[Row]) -> str:
    """Write rows as lines in columns."""
    part, verdict = (max(len(getattr(row, name)) for row in rows) for name in ("part", "verdict"))
    return "\n".join(f"{row.part:{part}}  {row.verdict:{verdict}}  {row.detail}" for row in rows)


def described(path: Path, kind: str, rows: Sequence[Row], *, sha256: str, licence: str | None) -> dict[str, Json]:
    """Say what a model was started from, for its `config.json`.

    Args:
        path: Of the weights; only the last part of it is kept.
        kind: What they are, in words.
        rows: What became of each part.
        sha256: By `weights_digest`.
        licence: As the user states it.
    """
    return {
        "weights": path.name,
        "sha256": sha256,
        "kind": kind,
        "licence": licence,
        "parts": [{"part": row.part, "verdict": row.verdict, "detail": row.detail} for row in rows],
    }


@dataclass(frozen=True)
class Weights:
    """What a file or model directory holds.

    Attributes:
        path: Where it lies.
        kind: What it is, in words.
        name: Of the model that has these tensors, for `create_model`.
        config: Of that model.
        tensors: Under our names, float32: `encoder.…`, and `decoder.…` where it has one that we can use.
        positions: `sincos`, `learned`, `ours` (an encoding of `config`), or `none`.
        rows: What was adapted or left out to come to these tensors.
    """

    path: Path
    kind: str
    name: str
    config: PretrainConfig
    tensors: Mapping[str, Tensor]
    positions: str
    rows: tuple[Row, ...]

    @property
    def has_decoder(self) -> bool:
        """Whether a decoder can be taken."""
        return any(name.startswith("decoder.") for name in self.tensors)

    @property
    def has_stem(self) -> bool:
        """Whether it has kernels for bands."""
        return any(name.startswith("encoder.patch_embed.") for name in self.tensors)

    @property
    def wavelength_nm(self) -> tuple[float, ...] | None:
        """Wavelength of each channel of a published file; None where the file does not tell."""
        published = self.positions != "ours" and self.config.bands == "draw3"
        return RGB_NM if published and self.config.in_chans == len(RGB_NM) else None

    @property
    def bands_in_words(self) -> str:
        """Which bands its patch embedding reads."""
        if not self.has_stem:
            return "none of its own"
        if self.config.bands == "wavelength":
            return "any, by their wavelength"
        if self.config.bands == "groups":
            return f"groups of {', '.join(str(len(group)) for group in self.config.groups)}"
        return f"{self.config.in_chans}" + (", taken for red, green, blue" if self.wavelength_nm else "")


def read_weights(path: str | os.PathLike[str], *, method: str | None = None) -> Weights:
    """Read a file of published weights or a model directory.

    Args:
        path: safetensors, a file of `torch.save`, or a directory written by `save_pretrained`.
        method: Of the model that a published file is for, where its tensors do not tell (an encoder alone).

    Raises:
        CheckpointError: If it is missing, damaged, would run code, or is no vision transformer with these parts.
    """
    path = Path(path)
    if path.is_dir():
        return _own(path)
    return _published(path, read_tensors(path), method)


def weights_digest(path: Path) -> str:
    """Give the SHA-256 of a file; of a model directory that of the digests of its configuration and weights.

    Raises:
        CheckpointError: If one is not there.
    """
    files = [path / CONFIG_FILE, path / WEIGHTS_FILE] if path.is_dir() else [path]
    if missing := [file for file in files if not file.is_file()]:
        raise CheckpointError(
            f"{missing[0]} is missing: name a file of weights, or a model directory ({CONFIG_FILE} and {WEIGHTS_FILE})"
        )
    digests = [file_digest(file) for file in files]
    return digest_of(digests) if path.is_dir() else digests[0]


def _own(directory: Path) -> Weights:
    with torch.device("meta"):
        model = model_of_config(directory)
    tensors = read_safetensors(directory / WEIGHTS_FILE)
    check_tensors(model, tensors, f"{directory / WEIGHTS_FILE}, beside its own config.json,")
    kept = {name: value for name, value in tensors.items() if not name.startswith("released.")}
    kind = f"model directory of a2mae, {model.name}"
    return Weights(directory, kind, model.name, model.config, kept, "ours", ())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read names and tensors of a file, in float32; nothing in it is executed.

    Args:
        path: safetensors or a file of `torch.save`; the tensors may lie under `model` or `state_dict`.

    Raises:
        CheckpointError: If it is missing, damaged, would run code, or holds anything but finite tensors by name.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: name a file of weights or a model directory") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a directory: a file of weights is needed") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    document = dict(read_safetensors(path)) if head[8:] == b"{" else read_published(path)
    for wrapper in ("model", "state_dict"):
        inner = document.get(wrapper)
        document = inner if isinstance(inner, dict) else document
    tensors = {str(name): value.float() for name, value in document.items() if _is_plain(value)}
    if len(tensors) != len(document) or not tensors:
        other = sorted(str(name) for name, value in document.items() if not _is_plain(value))
        raise CheckpointError(
            f"{path} must map names to tensors of real numbers, at its top or under 'model' or 'state_dict', found"
            f" {_some(other) or 'none'}"
        )
    problems = sorted(name for name, value in tensors.items() if not torch.isfinite(value).all())
    if problems:
        raise CheckpointError(f"{path} has values that are not finite, in {_some(problems)}: take a whole file")
    return tensors


def _is_plain(value: object) -> TypeGuard[Tensor]:
    """Tell whether a value is a tensor of real numbers, each of which stands in it."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided:
        return False
    if value.is_quantized or value.is_complex() or value.is_meta:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _published(path: Path, found: Mapping[str, Tensor], method: str | None) -> Weights:
    depth = len({name.split(".")[1] for name in found if name.startswith("blocks.")})
    _refuse_others(path, found, depth)
    _check_sizes(path, found, depth)
    width = found["cls_token"].shape[-1]
    groups = sum(re.fullmatch(r"patch_embed\.\d+\.proj\.weight", name) is not None for name in found)
    positions, rows = _positions(found), []
    kind, known = _kind(found, positions, groups)
    if method not in (None, known) and any(name.startswith("decoder_blocks.") for name in found):
        raise InputError(f"{path} is of {kind}, with its decoder: it cannot be read as {method}; leave the method away")

    for part in ("attn.qkv.bias", *_SCALES):
        having = sum(f"blocks.{index}.{part}" in found for index in range(depth))
        if having not in (0, depth):
            raise CheckpointError(f"{path} ({kind}) is not whole: {having} of its {depth} blocks have {part}")
    tensors = dict(found)
    for index in range(depth):
        _fold(tensors, f"blocks.{index}.")
    if any(name.endswith(tuple(_SCALES)) for name in found):
        rows.append(Row("layer scale", "adapted", "multiplied into the layers before it: the same function"))
    if "blocks.0.attn.qkv.bias" not in found:
        rows.append(Row("bias of queries, keys and values", "adapted", "the file has none: zeros, the same function"))
    table = found.get("pos_embed", torch.zeros(1, 1, 0))
    if table.ndim == 3 and table.shape[-1] == width and _side(table.shape[1] - 1) and table[:, 0].any():
        tensors["cls_token"] = found["cls_token"] + table[:, :1]
        rows.append(Row("position of the class token", "adapted", "added to the class token: the same function"))

    decoder = any(name.startswith("decoder_blocks.") for name in found) and not groups
    for prefix, what in {**_LEFT_OUT, **({} if decoder else dict.fromkeys(_DECODER, "decoder"))}.items():
        names = [name for name in tensors if name.startswith(prefix)]
        for name in names:
            del tensors[name]
        if names and what not in ("decoder", "table of positions"):  # `plan_start` tells of those
            rows.append(Row(what, "left out", f"{_some(names)}: the model has none"))
    ours = {to_our_name(re.sub(r"^patch_embed\.(\d+)\.", r"patch_embed.members.\1.", n)): v for n, v in tensors.items()}
    options = _options(found, ours, depth, groups)
    size = next((size for size, values in SIZES.items() if values["embed_dim"] == width), "base")
    name = f"{method or known}_vit_{size}_patch{options['patch_size']}"
    try:
        config = resolve(name, options)[1]
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{path} ({kind}) has sizes that no model has: {error}") from error
    weights = Weights(path, kind, name, config, ours, positions, tuple(rows))
    absent = ["encoder.patch_embed."] if kind == "DOFA" else []
    if "norm.weight" not in found and (kind == "DOFA" or "fc_norm.weight" in found):  # pooled before the last norm
        absent.append("encoder.norm.")
    _check_whole(weights, tuple(absent))
    return weights


def _refuse_others(path: Path, found: Mapping[str, Tensor], depth: int) -> None:
    """Refuse what is no encoder with a class token, blocks and a patch embedding."""
    if any(name.startswith("encoder.blocks.") for name in found):
        raise CheckpointError(
            f"{path} is {WEIGHTS_FILE} of a model directory: name the directory, its config.json is needed"
        )
    if not depth and any(name.startswith("decoder_blocks.") for name in found):
        raise CheckpointError(
            f"{path} holds a decoder alone ({_some(found)}), and an encoder is needed: blocks.…, norm.…"
        )
    if family := family_of(found):
        raise CheckpointError(
            f"{path} is a {family}, and what is trained here is a vision transformer: a task can start from timm's"
            " networks (start.model beside start.weights)"
        )
    stem = [name for name in found if name.startswith("patch_embed.")]
    if not (depth and stem and "cls_token" in found and found["cls_token"].ndim == 3 and found["cls_token"].numel()):
        raise CheckpointError(
            f"{path} is no vision transformer that can be read: cls_token, patch_embed.… and blocks.… are expected,"
            f" found {_some(found)}"
        )


def _check_sizes(path: Path, found: Mapping[str, Tensor], depth: int) -> None:
    """Refuse tensors from which sizes are read, and those that are multiplied into others, where they cannot be so."""
    layers = [f"blocks.{index}.{layer}" for index in range(depth) for layer in ("attn.qkv", "attn.proj", "mlp.fc2")]
    matrices = [f"{layer}.weight" for layer in (*layers, "blocks.0.mlp.fc1", "decoder_embed")]
    problems = [name for name in matrices if name in found and found[name].ndim != 2]
    for index in range(depth):
        for name, layer in _SCALES.items():
            scale, scaled = (found.get(f"blocks.{index}.{one}") for one in (name, f"{layer}.weight"))
            if scale is not None and scaled is not None and scale.shape != scaled.shape[:1]:
                problems.append(f"blocks.{index}.{name}")
    if problems:
        name = problems[0]
        raise CheckpointError(f"{path} is no vision transformer: {name} has the shape {tuple(found[name].shape)}")


def _kind(found: Mapping[str, Tensor], positions: str, groups: int) -> tuple[str, str]:
    """Say what a file is, and by which of our methods it can go on."""
    if groups:
        return "SatMAE, groups of bands", "satmae"
    if "patch_embed.weight_generator.weight_tokens" in found:
        return "DOFA", "mae"
    if any(name.startswith(("fpn.", "fcn_")) for name in found):
        return "Scale-MAE", "scale_mae"
    if any(name.startswith("decoder_blocks.") for name in found):
        width = found["cls_token"].shape[-1]
        known = found["pos_embed"].shape[-1] if "pos_embed" in found else width
        return {width * 3 // 4: ("A²-MAE", "a2mae"), width - 384: ("SatMAE, dates", "satmae")}.get(
            known, ("MAE", "mae")
        )
    if "blocks.0.gamma_1" in found:
        return "vision transformer with rotary positions (DINOv3)", "mae"
    if "blocks.0.ls1.gamma" in found:
        return "vision transformer with layer scale (DINOv2)", "mae"
    words = {
        "sincos": "with sine-cosine positions (encoder of MAE or Scale-MAE)",
        "learned": "with learned positions (timm, augreg, DeiT)",
        "none": "without a table of positions",
    }
    return f"vision transformer {words[positions]}", "mae"


def _positions(found: Mapping[str, Tensor]) -> str:
    """Tell a table that our encodings compute from a learned one."""
    table = found.get("pos_embed")
    if table is None:
        return "none"
    if table.ndim != 3:
        return "learned"
    if table.shape[-1] < found["cls_token"].shape[-1]:  # A²-MAE, SatMAE: a part of the width, computed
        return "sincos"
    side = _side(table.shape[1] - 1) or _side(table.shape[1])
    if not side or table.shape[-1] % 4:
        return "learned"
    expected = sincos_2d((side, side), torch.ones(1), table.shape[-1])
    return "sincos" if torch.allclose(table[:, -side * side :], expected, atol=1e-4) else "learned"


def _fold(tensors: dict[str, Tensor], block: str) -> None:
    """Multiply layer scale into the layer before it, and give queries, keys and values the bias that they lack."""
    for name, layer in _SCALES.items():
        scale = tensors.pop(block + name, None)
        for scaled in (f"{block}{layer}.weight", f"{block}{layer}.bias"):
            if scale is not None and scaled in tensors:
                value = tensors[scaled]
                tensors[scaled] = value * scale.reshape(-1, *[1] * (value.ndim - 1))
    weight = tensors.get(f"{block}attn.qkv.weight")
    if weight is not None:
        tensors.setdefault(f"{block}attn.qkv.bias", torch.zeros(weight.shape[0]))


def _options(found: Mapping[str, Tensor], ours: Mapping[str, Tensor], depth: int, groups: int) -> dict[str, object]:
    """Read the sizes off the tensors; heads are those of the published models, which no tensor tells."""
    width = found["cls_token"].shape[-1]
    kernels = [v for n, v in ours.items() if n.endswith("proj.weight") and "patch_embed." in n and v.ndim == 4]
    hidden = found.get("blocks.0.mlp.fc1.weight")
    options: dict[str, object] = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": 16 if width == 1280 else max(1, width // 64),  # ViT-H has heads of 80, all others of 64
        "mlp_ratio": 4.0 if hidden is None else hidden.shape[0] / width,
        "patch_size": kernels[0].shape[-1] if kernels else 16,  # DOFA's
        "in_chans": sum(kernel.shape[1] for kernel in kernels) or 3,
    }
    if groups:
        ends = torch.tensor([kernel.shape[1] for kernel in kernels]).cumsum(0).tolist()
        starts = [0, *ends[:-1]]
        options |= {"bands": "groups", "encoding": "group"}
        options["groups"] = tuple(tuple(range(first, last)) for first, last in zip(starts, ends, strict=True))
    if "decoder.embed.weight" in ours:
        decoder = ours["decoder.embed.weight"].shape[0]
        blocks = {name.split(".")[2] for name in ours if name.startswith("decoder.blocks.")}
        options |= {"decoder_dim": decoder, "decoder_depth": len(blocks), "decoder_num_heads": max(1, decoder // 32)}
    return options


def _check_whole(weights: Weights, absent: tuple[str, ...]) -> None:
    """Refuse an encoder, or a decoder, with other or fewer tensors than its model has."""
    with torch.device("meta"):
        model = create_model(weights.name, **dataclasses.asdict(weights.config))
    parts = ("encoder.", "decoder.") if weights.has_decoder else ("encoder.",)
    expected = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if name.startswith(parts) and not name.startswith(absent)
    }
    problems = describe_difference(expected, weights.tensors)
    if problems:
        raise CheckpointError(f"{weights.path} ({weights.kind}) is of another architecture, or not whole: {problems}")


def _side(tokens: int) -> int:
    """Side of a square grid of tokens; 0 if it is none."""
    side = math.isqrt(max(tokens, 0))
    return side if side * side == tokens else 0


def _some(names: object) -> str:
    listed = sorted(map(str, names))  # type: ignore[call-overload]
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
