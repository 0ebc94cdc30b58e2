"""Checkpoints: whole or not at all, torn ones passed over, the newest and the best kept."""

from __future__ import annotations

import json
import logging
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from a2mae.training.checkpoints import Checkpoint, Checkpoints, CheckpointWriteError


def checkpoint(step: int, score: float | None = None) -> Checkpoint:
    tensors = {
        "model": {"weight": torch.full((3, 4), float(step)), "bias": torch.arange(4, dtype=torch.float32)},
        "optimizer": {"weight/step": torch.tensor(float(step)), "weight/exp_avg": torch.randn(3, 4)},
    }
    return Checkpoint(step, tensors, {"identity": "abc", "score": score})


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert keeper.latest() is None
    saved = checkpoint(7, 0.5)
    keeper.save(saved)
    read = keeper.latest()
    assert read is not None and read.step == 7 and read.facts == saved.facts
    for group, tensors in saved.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(read.tensors[group][name], tensor)


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path, keep=2)
    for step, score in ((1, 0.9), (2, 0.1), (3, None), (4, 0.5), (5, 0.4)):
        keeper.save(checkpoint(step, score))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000004", "step-000000005"]


@pytest.mark.parametrize("damage", ["cut", "flip", "state", "gone"])
def test_a_torn_checkpoint_is_named_and_the_one_before_used(tmp_path: Path, caplog, damage: str) -> None:
    keeper = Checkpoints(tmp_path, keep=3)
    for step in (1, 2):
        keeper.save(checkpoint(step))
    newest = tmp_path / "step-000000002"
    weights, state = newest / "model.safetensors", newest / "state.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-3])
    elif damage == "flip":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif damage == "state":
        state.write_text(state.read_text()[:-5])
    else:
        weights.unlink()
    with caplog.at_level(logging.WARNING):
        found = keeper.latest()
    assert found is not None and found.step == 1
    assert "step-000000002 is torn" in caplog.text


def test_a_half_written_folder_is_not_seen(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path, keep=2)
    keeper.save(checkpoint(1))
    shutil.copytree(tmp_path / "step-000000001", tmp_path / ".step-000000002.partial")
    found = keeper.latest()
    assert found is not None and found.step == 1
    keeper.save(checkpoint(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000001", "step-000000003"], "nothing is left"


def test_a_run_killed_between_two_moves_has_lost_nothing(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path, keep=2)
    keeper.save(checkpoint(1))
    keeper.save(checkpoint(2, 0.5))
    (tmp_path / "step-000000002").rename(tmp_path / ".step-000000002.older")  # it was being written anew
    found = keeper.latest()
    assert found is not None and found.step == 1
    keeper.save(checkpoint(2, 0.25))
    found = keeper.latest()
    assert found is not None and found.step == 2 and found.facts["score"] == 0.25


def test_a_checkpoint_is_never_unpickled(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path, keep=2)
    keeper.save(checkpoint(1))
    target = tmp_path / "step-000000001" / "model.safetensors"
    torch.save({"weight": torch.zeros(1)}, target)
    state = json.loads((target.parent / "state.json").read_text())
    import hashlib

    state["sha256"][target.name] = hashlib.sha256(target.read_bytes()).hexdigest()
    (target.parent / "state.json").write_text(json.dumps(state))
    assert keeper.latest() is None


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from a2mae.training.checkpoints import Checkpoint, CheckpointWriteError, Checkpoints
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
keeper = Checkpoints(Path(sys.argv[1]), keep=2)
keeper.save(Checkpoint(1, {"model": {"w": torch.zeros(10)}}, {}))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    keeper.save(Checkpoint(2, {"model": {"w": torch.zeros(100_000)}}, {}))
except CheckpointWriteError as error:
    sys.stdout.write(str(error))
"""


def test_no_room_is_a_clear_error_and_older_checkpoints_stay(tmp_path: Path, child_environment) -> None:
    assert resource.RLIMIT_FSIZE
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        env=child_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot write the checkpoint of step 2" in done.stdout and "Make room there" in done.stdout
    found = Checkpoints(tmp_path, keep=2).latest()
    assert found is not None and found.step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointWriteError, match="cannot write the checkpoint of step 1"):
        Checkpoints(tmp_path / "file" / "checkpoints", keep=1).save(checkpoint(1))
