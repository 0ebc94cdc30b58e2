"""Read the authors' checkpoints and give ours their names, with every key accounted for.

A²-MAE (`ZhaoYi1222/AAMAE`), Scale-MAE (`bair-climate-initiative/scale-mae`) and MAE (`facebookresearch/mae`) share one
naming; Scale-MAE adds its pyramid. No weights and no code of theirs are here.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import struct
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from a2mae.errors import InputError
from a2mae.models.layers.encodings import sincos_2d


class CheckpointError(InputError):
    """A model file or directory that cannot be read; the message says why."""


def describe_difference(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> str:
    """Tell how the tensors that a model is given differ from those it has; empty if they do not."""
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(found[name].shape)} instead of {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name].shape) != expected[name]
    ]
    parts = [
        f"{title} {len(names)}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        for title, names in (("missing", missing), ("not known", extra), ("other shape", shapes))
        if names
    ]
    return "; ".join(parts)


PARTS = ("all", "encoder")
_NOT_READ = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, struct.error,
    ArithmeticError, AssertionError, MemoryError, OSError, SafetensorError,
)  # fmt: skip
"""What torch raises of a damaged file: its unpickler checks little."""
TABLES = ("pos_embed", "decoder_pos_embed", "mask_token_decoder")
"""Stored by the authors and never read: encodings are computed, and the second mask token is not inserted."""

_RENAMED = (  # authors' prefix, ours
    ("cls_token", "encoder.cls_token"),
    ("patch_embed.", "encoder.patch_embed."),
    ("blocks.", "encoder.blocks."),
    ("norm.", "encoder.norm."),
    ("mask_token", "decoder.mask_token"),
    ("decoder_embed.", "decoder.embed."),
    ("decoder_blocks.", "decoder.blocks."),
    ("decoder_norm.", "decoder.norm."),
    ("decoder_pred.", "decoder.pred."),
    ("fpn.", "decoder.fpn."),
    ("fcn_high.", "decoder.fcn_high."),
    ("fcn_low.", "decoder.fcn_low."),
    *((name, f"released.{name}") for name in TABLES),
)


class ReleasedTables(nn.Module):
    """Frozen tensors of the published ViT-L/16 files that no forward reads.

    With them a published checkpoint converts both ways without loss and parameters count as published (Scale-MAE:
    322.93 M, of which these are 0.30 M).
    """

    def __init__(self, embed_dim: int, decoder_dim: int, patch_size: int, *, second_mask_token: bool) -> None:
        super().__init__()
        side = 224 // patch_size
        for name, dim in (("pos_embed", embed_dim), ("decoder_pos_embed", decoder_dim)):
            table = nn.functional.pad(sincos_2d((side, side), torch.ones(1), dim), (0, 0, 1, 0))  # CLS has zeros
            self.register_parameter(name, nn.Parameter(table, requires_grad=False))
        if second_mask_token:
            self.mask_token_decoder = nn.Parameter(torch.zeros(1, 1, decoder_dim), requires_grad=False)


def to_released_name(name: str) -> str:
    """Give the authors' name of one of our tensors."""
    for theirs, ours in _RENAMED:
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    raise KeyError(f"{name} has no counterpart in the released checkpoints")


def to_our_name(name: str) -> str:
    """Give our name of a tensor of the authors'; what is none keeps its name."""
    for theirs, ours in reversed(_RENAMED):  # 'mask_token_decoder' before 'mask_token'
        if name.startswith(theirs):
            return ours + name[len(theirs) :]
    return name


def released_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Give all tensors of a model under the authors' names."""
    return {to_released_name(name): value for name, value in model.state_dict().items()}


def load_released_state_dict(
    model: nn.Module, state_dict: Mapping[str, object], *, parts: str = "all", same_method: bool = True
) -> None:
    """Fill a model from a published checkpoint that must have its keys and shapes and no others.

    Args:
        model: A `Pretrainer` or anything with its names.
        state_dict: As published; a top-level `model` entry is looked into.
        parts: `all`, or `encoder` for files that lack the decoder (one that is there is then ignored).
        same_method: False if the file is of another method: its position tables may then have other shapes (A²-MAE
            starts from ImageNet-MAE).

    Raises:
        CheckpointError: Listing what is missing, not known or of another shape; the model is unchanged.
        InputError: If `parts` is unknown.
    """
    if parts not in PARTS:
        raise InputError(f"unknown parts {parts!r}; choose one of {', '.join(PARTS)}")
    inner = state_dict.get("model", state_dict)
    if not isinstance(inner, Mapping) or not all(isinstance(value, Tensor) for value in inner.values()):
        raise CheckpointError("a published checkpoint must map names to tensors, at its top or under 'model'")
    found: dict[str, Tensor] = dict(inner)
    own = {to_released_name(name): value for name, value in model.state_dict().items()}
    if not same_method:
        found = {name: value for name, value in found.items() if name not in TABLES}
    # Tables that this model does not have are ignored, and so is a decoder that was not asked for.
    optional = set(TABLES) if not same_method else {name for name in TABLES if name not in own}
    if parts == "encoder":
        encoder = {name for name in own if to_our_name(name).startswith("encoder.")}
        decoder_like = tuple(theirs for theirs, ours in _RENAMED if ours.startswith("decoder."))
        optional |= set(TABLES) | {name for name in found if name.startswith(decoder_like)}
        own = {name: value for name, value in own.items() if name in encoder}
    expected = {name: tuple(value.shape) for name, value in own.items() if name not in optional}
    used = {name: value for name, value in found.items() if name not in optional}
    problems = describe_difference(expected, used)
    if problems:
        lacks_decoder = parts == "all" and not any(name.startswith("decoder_") for name in found)
        hint = " The file lacks the decoder: pass parts='encoder'." if lacks_decoder else ""
        raise CheckpointError(f"the published checkpoint does not fit this model: {problems}.{hint}")
    model.load_state_dict({to_our_name(name): value for name, value in used.items()}, strict=False)


def read_published(path: str | os.PathLike[str]) -> dict[str, object]:
    """Read a published `.pth` without executing anything in it (weights only; the authors' `args` are allowed).

    Raises:
        CheckpointError: If the file holds anything but tensors and plain values, or is damaged.
    """
    with open(path, "rb") as file:
        start = file.read(8)
    if not start.startswith((b"PK", b"\x80")):
        raise CheckpointError(
            f"{path} is no whole file of torch.save, nor safetensors (it begins with {start!r}): take it afresh"
        )
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            document = torch.load(path, map_location="cpu", weights_only=True)
    except _NOT_READ as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{path} holds more than tensors, a pickle that calls {code[1]}, and was not executed: save its tensors"
                " alone, where you trust it"
            ) from error
        said = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} is no whole file of torch.save, nor safetensors ({said}): take it afresh"
        ) from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} must hold a dictionary, found {type(document).__name__}")
    return document
