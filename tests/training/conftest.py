"""Fixtures of the training room's tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside this file, whatever the import mode
from training_runs import write_store

from a2mae.stssd.store.store import ImageSetStore


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageSetStore:
    return write_store(tmp_path_factory.mktemp("store") / "stssd.zarr")


@pytest.fixture
def child_environment() -> dict[str, str]:
    """Environment of a training process: our sources, one thread, nothing left over from another run."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_", "A2MAE_"))}
    source = str(Path(__file__).parents[2] / "src")
    return {**kept, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
