"""Checkpoints: the state of a run as named tensors, written whole, checked by digest, never unpickled.

A checkpoint is a folder: tensors as safetensors, the rest as JSON. `state.json` has the SHA-256 of every other file,
and the folder gets its name only when everything is on the disk.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from a2mae.errors import A2maeError, InputError
from a2mae.files import file_digest, json_text, whole_file, whole_folder, write_bytes
from a2mae.training.step import MovingAverage

_LOG = logging.getLogger(__name__)

_Moments = dict[str, dict[str, Tensor]]
_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


def capture(
    module: nn.Module, optimizer: torch.optim.Optimizer, average: MovingAverage | None
) -> dict[str, dict[str, Tensor]]:
    """Gather weights, moments and the moving average on the CPU. All processes call it; the first gets the tensors.

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
        module: As of `capture`, on any number of processes.
        optimizer: Likewise.
        average: Likewise.
    """
    set_model_state_dict(module, dict(groups["model"]), options=_FULL)
    moments: _Moments = {}
    for path, value in groups["optimizer"].items():
        name, _, key = path.rpartition("/")
        moments.setdefault(name, {})[key] = value
    # Not gathered, since a gathered state is given to the first process only.
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
    """Copy a tensor's whole value to the CPU, also where it is spread over processes."""
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().to("cpu", copy=True)


Fact = str | int | float | bool | None
_NAME = re.compile(r"step-(\d{9})")
_STATE = "state.json"


class CheckpointWriteError(A2maeError, RuntimeError):
    """A checkpoint could not be written."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on from a step.

    Attributes:
        step: Steps taken.
        tensors: Groups of named tensors, for example `model` and `optimizer`.
        facts: Plain values: the run's identity, the held-out loss.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Fact]


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Use a folder of checkpoints.

        Args:
            folder: Made when the first checkpoint is written.
            keep: How many of the newest stay; the best by `facts["score"]` (smaller is better) stays too.
        """
        self._folder, self._keep = folder, keep

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint and remove those that are no longer kept.

        Returns:
            Its folder.

        Raises:
            CheckpointWriteError: If it cannot be written, for example on a full disk; older ones are untouched.
        """
        target = self._folder / f"step-{checkpoint.step:09d}"
        try:
            with whole_folder(target) as partial:
                for group, tensors in checkpoint.tensors.items():
                    with whole_file(partial / f"{group}.safetensors") as part:
                        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
                files = {path.name: file_digest(path) for path in sorted(partial.iterdir())}
                state = {"step": checkpoint.step, "facts": dict(checkpoint.facts), "sha256": files}
                write_bytes(partial / _STATE, json_text(state, allow_nan=True).encode())
        except (OSError, SafetensorError) as error:
            raise CheckpointWriteError(
                f"cannot write the checkpoint of step {checkpoint.step} to {self._folder}: {error}."
                " Make room there and start the run again: it goes on from the checkpoint before"
            ) from error
        self._prune()
        return target

    def latest(self) -> Checkpoint | None:
        """Read the newest checkpoint that is whole; the log names torn ones."""
        for folder in reversed(self._folders()):
            try:
                return _read(folder)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                _LOG.warning("checkpoint %s is torn (%s): using the one before", folder.name, error)
        return None

    def clear(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))

    def _prune(self) -> None:
        for leftover in self._folder.glob(".step-*"):  # of a killed run, older than this checkpoint
            shutil.rmtree(leftover)
        folders = self._folders()
        scores = {folder: score for folder in folders if (score := _score(folder)) is not None}
        best = min(scores, key=lambda folder: scores[folder]) if scores else None
        for folder in folders[: -self._keep]:
            if folder != best:
                shutil.rmtree(folder)


def _read(folder: Path) -> Checkpoint:
    state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    for name, digest in state["sha256"].items():
        if file_digest(folder / name) != digest:
            raise InputError(f"{name} is not what was written")
    tensors = {Path(name).stem: load_file(folder / name) for name in state["sha256"]}
    return Checkpoint(int(state["step"]), tensors, state["facts"])


def _score(folder: Path) -> float | None:
    try:
        score = json.loads((folder / _STATE).read_text(encoding="utf-8"))["facts"].get("score")
    except (OSError, ValueError, KeyError):
        return None
    return None if score is None else float(score)
