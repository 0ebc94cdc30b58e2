"""Send metrics and pictures to Weights & Biases, under one run id; training works without it."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from a2mae.files import file_digest
from a2mae.tracking import Piece, link, open_run
from a2mae.training.results import finished_identity
from a2mae.training.spec import MODEL_DIR, RunSpec

_LOG = logging.getLogger(__name__)


class Tracker(Protocol):
    """Where numbers and pictures go."""

    def log(self, row: Mapping[str, float | int | None], step: int) -> None:
        """Add one row."""

    def pictures(self, name: str, pictures: NDArray[np.uint8], captions: list[str], step: int) -> None:
        """Add pictures `(n, H, W, 3)`."""

    def finish(self, summary: Mapping[str, float | int | None], *, failed: bool = False) -> None:
        """Close the run."""


class NoTracker:
    """Drops everything."""

    def log(self, row: Mapping[str, float | int | None], step: int) -> None:
        """Do nothing."""

    def pictures(self, name: str, pictures: NDArray[np.uint8], captions: list[str], step: int) -> None:
        """Do nothing."""

    def finish(self, summary: Mapping[str, float | int | None], *, failed: bool = False) -> None:
        """Do nothing."""


class WandbTracker:
    """One W&B run. Offline unless `WANDB_MODE` says otherwise: nothing is sent that nobody asked to send."""

    def __init__(self, spec: RunSpec, run_dir: Path) -> None:
        """Open the run, or go on with it after a resume (same specification, same run id)."""
        import wandb  # noqa: PLC0415 (optional: a training machine need not have it)

        self._wandb: Any = wandb
        self._store = Piece("image_sets", "store", spec.data.store_hash)
        self._run_dir, self._identity = run_dir, spec.identity
        self._run = open_run(
            "pretrain",
            spec.model_dump(mode="json") | {"identity": spec.identity},
            folder=run_dir,
            project=spec.logging.wandb_project,
            id=f"pretrain-{spec.identity[:12]}",
            name=f"pretrain-{spec.method}",
            resume="allow",
        )

    def log(self, row: Mapping[str, float | int | None], step: int) -> None:
        """Add one row."""
        self._run.log({name: value for name, value in row.items() if value is not None}, step=step)

    def pictures(self, name: str, pictures: NDArray[np.uint8], captions: list[str], step: int) -> None:
        """Add pictures."""
        images = [self._wandb.Image(picture, caption=text) for picture, text in zip(pictures, captions, strict=True)]
        self._run.log({name: images}, step=step)

    def finish(self, summary: Mapping[str, float | int | None], *, failed: bool = False) -> None:
        """Write the summary and close the run."""
        self._run.summary.update({name: value for name, value in summary.items() if value is not None})
        if not failed and finished_identity(self._run_dir) == self._identity:
            weights = self._run_dir / MODEL_DIR / "model.safetensors"
            link(self._run, used=[self._store], made=[Piece("pretrained_model", "model", file_digest(weights))])
        self._run.finish(exit_code=1 if failed else 0)


def make_tracker(spec: RunSpec, run_dir: Path) -> Tracker:
    """The tracker that the specification and the environment ask for."""
    if spec.logging.wandb_project is None or os.environ.get("WANDB_MODE") == "disabled":
        return NoTracker()
    if importlib.util.find_spec("wandb") is None:
        _LOG.warning("wandb is not installed: metrics go to %s only", run_dir)
        return NoTracker()
    return WandbTracker(spec, run_dir)
