"""The state of a run as named tensors, whether one process holds it all or many hold a part each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from a2mae.training.optim import MovingAverage

_Moments = dict[str, dict[str, Tensor]]
_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


def capture(
    module: nn.Module, optimizer: torch.optim.Optimizer, average: MovingAverage | None
) -> dict[str, dict[str, Tensor]]:
    """Gather weights, moments and the moving average on the CPU; all processes call it, the first gets the tensors.

    Args:
        module: The training step's module.
        optimizer: Its optimiser.
        average: The moving average, if the run keeps one.
    """
    moments = cast(_Moments, get_optimizer_state_dict(module, optimizer, options=_FULL).get("state", {}))
    groups = {
        "model": cast(dict[str, Tensor], get_model_state_dict(module, options=_FULL)),
        "optimizer": {f"{name}/{key}": value for name, state in moments.items() for key, value in state.items()},
    }
    if average is not None:
        groups["average"] = {name: full(value) for name, value in average.tensors.items()}
    return groups


def restore(
    groups: Mapping[str, Mapping[str, Tensor]],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None,
) -> None:
    """Put a captured state back.

    Args:
        groups: As `capture` gave it.
        module: As at `capture`, on any number of processes.
        optimizer: Likewise.
        average: Likewise.
    """
    set_model_state_dict(module, dict(groups["model"]), options=_FULL)
    moments: _Moments = {}
    for path, value in groups["optimizer"].items():
        name, _, key = path.rpartition("/")
        moments.setdefault(name, {})[key] = value
    # Asked for without gathering: the gathered one is given to the first process only.
    layout = get_optimizer_state_dict(module, optimizer)["param_groups"]
    set_optimizer_state_dict(
        module,
        optimizer,
        {"state": cast(Any, moments), "param_groups": layout},
        options=_FULL,
    )
    if average is not None:
        average.load(dict(groups["average"]))


def full(tensor: Tensor) -> Tensor:
    """A tensor's whole value on the CPU, also where it is spread over processes."""
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().to("cpu", copy=True)
