"""Decide in which precision a model computes on a device, and let it: one way for training, tasks, maps and embeddings.

`bf16-mixed` is torch's autocast to bfloat16: products of matrices and convolutions take bfloat16, sums inside them are
float32, as are weights, gradients and losses; softmax and normalisation compute in float32.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Literal, cast

import torch
from timm.layers.config import use_fused_attn
from torch import nn
from torch.nn import functional as F

_LOG = logging.getLogger(__name__)

ComputePrecision = Literal["32-true", "bf16-mixed"]
COMPUTE_PRECISIONS: tuple[ComputePrecision, ...] = ("32-true", "bf16-mixed")
"""What `auto` decides between."""

_CLEARLY = 1.4
"""How many times as fast bfloat16 has to be."""
_MOST_S = 0.4
_ROWS, _WIDTH = 1024, 384  # tokens of a small batch, and the width of a ViT-S
_LEAST_ROUNDS = 3


def precision_of(wanted: str, device: torch.device) -> ComputePrecision:
    """Give the precision that a model computes in.

    Args:
        wanted: `32-true`, `bf16-mixed`, or `auto`: bfloat16 where the device computes in it natively and is found
            clearly faster with it, else float32. It is decided once in a process, and said in the log.
        device: Where the model runs.
    """
    return _decided(device.type) if wanted == "auto" else cast(ComputePrecision, wanted)


def precision_kept(
    identity: Callable[[ComputePrecision], Hashable], begun: Hashable, device: torch.device
) -> ComputePrecision:
    """Give the precision of work that `auto` was asked for: what was begun goes on in the one that it was begun in.

    Args:
        identity: Of the work by its precision.
        begun: Identity of what was begun; anything else where nothing was.
        device: Where new work runs.
    """
    known = {identity(one): one for one in COMPUTE_PRECISIONS}
    return known.get(begun) or precision_of("auto", device)


@cache
def _decided(device_type: str) -> ComputePrecision:
    if not has_bfloat16(device_type):
        _LOG.info("precision auto: 32-true, this %s has no bfloat16 of its own", device_type)
        return "32-true"
    times = bfloat16_gain(device_type)
    found: ComputePrecision = "bf16-mixed" if times >= _CLEARLY else "32-true"
    _LOG.info("precision auto: %s, products in bfloat16 are %.1f times as fast on this %s", found, times, device_type)
    return found


def has_bfloat16(device_type: str) -> bool:
    """Tell whether a device computes products of bfloat16 natively: a CPU by its instructions, a GPU from 8.0 on.

    Args:
        device_type: `cpu` or `cuda`; others count as without.
    """
    if device_type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device_type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # older torch does not tell
        return False
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


@torch.no_grad()
def bfloat16_gain(device_type: str) -> float:
    """Measure for at most half a second how many times as fast a linear layer is under autocast, casts included.

    Both are timed in turn and the best time of each counts, on a CPU by the processor time of one thread: beside other
    work, the clock's best times gave ratios from 1.3 to 4.8 where the processor time's were 2.07 to 2.10.

    Args:
        device_type: `cpu` or `cuda`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x = torch.ones(_ROWS, _WIDTH, device=device_type)
        weight = torch.ones(4 * _WIDTH, _WIDTH, device=device_type)
        best = {name: float("inf") for name in COMPUTE_PRECISIONS}
        began, rounds = time.perf_counter(), 0
        clock = time.thread_time if device_type == "cpu" else time.perf_counter
        while rounds < _LEAST_ROUNDS or time.perf_counter() - began < _MOST_S:
            for name in COMPUTE_PRECISIONS:
                before = clock()
                with autocast(name, device_type):
                    F.linear(x, weight)
                if device_type == "cuda":
                    torch.cuda.synchronize()
                if rounds:  # the first of each is for warming up
                    best[name] = min(best[name], clock() - before)
            rounds += 1
    finally:
        torch.set_num_threads(threads)
    return best["32-true"] / best["bf16-mixed"]


def autocast(precision: str, device_type: str) -> AbstractContextManager[object]:
    """Return the context in which a model computes in a precision.

    Args:
        precision: `32-true` or `bf16-mixed`.
        device_type: `cpu` or `cuda`.
    """
    return torch.autocast(device_type, torch.bfloat16) if precision == "bf16-mixed" else nullcontext()


def fit_attention(model: nn.Module, precision: str, device: torch.device, *, training: bool) -> None:
    """Let a model compute attention the faster way: two products and a softmax, or torch's fused one.

    The backward pass of the fused one in bfloat16 on a CPU is a third of a step at 49 to 193 tokens (docs/recipe.md).
    Without a backward pass it is the faster one everywhere.

    Args:
        model: Changed in place.
        precision: `32-true` or `bf16-mixed`.
        device: Where the model runs.
        training: Whether there is a backward pass.
    """
    plain = training and device.type == "cpu" and precision == "bf16-mixed"
    for module in model.modules():
        if hasattr(module, "fused_attn"):  # timm's; annotated as final, for TorchScript
            vars(module).update(fused_attn=not plain and bool(use_fused_attn()))
