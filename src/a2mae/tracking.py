"""Weights & Biases as a sink: one run per stage, a chain's runs in one group, linked by what passed between them.

Offline unless `WANDB_MODE` says otherwise; nothing is written where it is `disabled` or wandb is absent. Weights and
pixels stay where they are: an artifact holds the SHA-256 of what it stands for, so equal content is one version.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from a2mae.errors import without_places
from a2mae.files import digest_of

logger = logging.getLogger(__name__)

PROJECT = "a2mae"
GROUP_VARIABLE = "WANDB_RUN_GROUP"
Run: TypeAlias = Any  # wandb's, which is optional
_running: dict[str, Run] = {}


@dataclass(frozen=True)
class Piece:
    """Something that passes from one run to another.

    Attributes:
        name: The catalog's name.
        kind: `store`, `model`, `table`, `scores`, ...
        sha256: Of its content.
    """

    name: str
    kind: str
    sha256: str


def mode() -> str:
    """What `WANDB_MODE` says; offline if it says nothing."""
    return os.environ.get("WANDB_MODE", "offline")


def available() -> bool:
    """Whether runs are written at all."""
    return mode() != "disabled" and importlib.util.find_spec("wandb") is not None


def private_settings() -> Any:  # noqa: ANN401 (wandb.Settings: wandb is optional)
    """Settings of every run: system metrics yes, but no name of the machine, path or address of the repository.

    The code's commit stands in the model directory.
    """
    import wandb  # noqa: PLC0415 (optional: a training machine need not have it)

    return wandb.Settings(
        console="off",
        silent=True,
        host="local",
        x_disable_meta=True,
        disable_git=True,
        x_save_requirements=False,
        x_stats_sampling_interval=2,
    )


def group_of(ingest: Mapping[str, object]) -> str:
    """Name of the group that a chain's runs share: what is ingested decides it, so a later stage finds it again.

    Args:
        ingest: The parameters of the stage `ingest`.
    """
    return f"chain-{digest_of(without_places(ingest))[:12]}"


def open_run(  # noqa: D417 (options are wandb's own)
    job: str, config: Mapping[str, object], *, folder: Path | str | None = None, **options: object
) -> Run:
    """Open a run; the group is that of `WANDB_RUN_GROUP`.

    Args:
        job: The stage.
        config: Parameters; this machine's folders are left out.
        folder: Where `wandb/` is made; otherwise where `WANDB_DIR` says.
    """
    import wandb  # noqa: PLC0415 (optional, and slow to import)

    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    chosen: dict[str, Any] = {"project": PROJECT, "name": job, **options}
    shown = sys.excepthook
    run = wandb.init(
        **chosen,
        job_type=job,
        group=os.environ.get(GROUP_VARIABLE),
        dir=str(folder) if folder is not None else os.environ.get("WANDB_DIR"),  # wandb remembers the first it saw
        config=without_places(config),  # type: ignore[arg-type]
        mode=mode(),  # type: ignore[arg-type]  # wandb itself names the modes that it knows
        reinit="create_new",  # stages of different tasks take turns
        settings=private_settings(),
    )
    sys.excepthook = shown  # wandb's prints all calls of an error a second time; who opened the run says that it failed
    return run


def link(run: Run, *, used: list[Piece], made: list[Piece]) -> None:
    """Say what a run was made from and what it made."""
    for piece in used:
        artifact = _artifact(piece)
        if mode() == "online":
            run.use_artifact(artifact)
        else:
            # `use_artifact` asks the server for a version; offline the same record is written for the later sync.
            run._log_artifact(artifact, use_after_commit=True)
    for piece in made:
        run.log_artifact(_artifact(piece))


def _artifact(piece: Piece) -> Any:  # noqa: ANN401 (wandb.Artifact)
    import wandb  # noqa: PLC0415

    artifact = wandb.Artifact(piece.name.replace("/", "."), type=piece.kind, metadata={"sha256": piece.sha256})
    with artifact.new_file("sha256.txt") as file:  # stands for the content, which is not copied
        file.write(f"{piece.sha256}\n")
    return artifact


def start_stage(stage: str, config: Mapping[str, object]) -> Run:
    """Open a stage's run, to be found again by what its nodes call."""
    _running[stage] = open_run(stage, config)
    return _running[stage]


def running(stage: str) -> Run | None:
    """The stage's open run, if the project's hook has opened one."""
    return _running.get(stage)


def finish_stage(stage: str, *, failed: bool = False) -> None:
    """Close a stage's run."""
    run = _running.pop(stage, None)
    if run is not None:
        run.finish(exit_code=1 if failed else 0)
