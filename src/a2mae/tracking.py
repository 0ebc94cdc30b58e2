"""Weights & Biases as a sink: one run per stage, a chain's runs in one group, linked by what passed between them.

Offline unless `WANDB_MODE` says otherwise; nothing is written where it is `disabled` or wandb is absent. Weights and
pixels stay where they are: an artifact holds the SHA-256 of what it stands for, so equal content is one version.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2mae.errors import without_places
from a2mae.files import digest_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

PROJECT = "a2mae"
GROUP_VARIABLE = "WANDB_RUN_GROUP"


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


class Run:
    """A run; where nothing is tracked, its methods do nothing."""

    def __init__(self, run: Any = None) -> None:  # noqa: ANN401 (wandb is optional)
        """Wrap a run.

        Args:
            run: Of wandb; None: nothing is tracked.
        """
        self._run = run

    def _do(self, work: Callable[[Any], None]) -> None:
        """Do something with the run; what fails there costs the rest of its W&B run, never the run itself."""
        if self._run is None:
            return
        try:
            work(self._run)
        except Exception as error:  # whatever wandb and the disk below it raise
            _tell(error)
            self._run = None

    def log(self, row: Mapping[str, float | int | None], step: int | None = None) -> None:
        """Add a row of numbers; what is None is left out."""
        self._do(lambda run: run.log({name: value for name, value in row.items() if value is not None}, step=step))

    def log_pictures(
        self,
        name: str,
        pictures: Sequence[NDArray[np.generic]] | NDArray[np.generic],
        captions: Sequence[str | None] | None = None,
        step: int | None = None,
    ) -> None:
        """Add pictures, `(H, W, 3)` each, under one name.

        Args:
            name: Of all of them.
            pictures: Bytes.
            captions: One per picture.
            step: That they belong to.
        """

        def log(run: Any) -> None:  # noqa: ANN401
            import wandb  # noqa: PLC0415 (optional, and slow to import)

            texts = captions if captions is not None else [None] * len(pictures)
            images = [wandb.Image(one, caption=text) for one, text in zip(pictures, texts, strict=True)]
            run.log({name: images}, step=step)

        self._do(log)

    def log_table(self, name: str, table: Any) -> None:  # noqa: ANN401 (a DataFrame: the training has no pandas)
        """Add a table, shown as text."""

        def log(run: Any) -> None:  # noqa: ANN401
            import wandb  # noqa: PLC0415

            run.log({name: wandb.Table(dataframe=table.astype(str))})

        self._do(log)

    def summarize(self, values: Mapping[str, object], under: str = "") -> None:
        """Add every number of a JSON value to the run's summary.

        Args:
            values: What is no number is left out; `{"a": {"b": 1}}` becomes `a.b`.
            under: Name that the places begin with: `under/a.b`.
        """
        found = {f"{under}/{at}" if under else at: value for at, value in _numbers(values)}
        self._do(lambda run: run.summary.update(found))

    def link(self, *, used: Sequence[Piece] = (), made: Sequence[Piece] = ()) -> None:
        """Say what the run was made from and what it made."""

        def link(run: Any) -> None:  # noqa: ANN401
            for piece in used:
                if _mode() == "online":
                    run.use_artifact(_artifact(piece))
                else:
                    # `use_artifact` asks the server for a version; offline the same record is written for the later
                    # sync.
                    run._log_artifact(_artifact(piece), use_after_commit=True)
            for piece in made:
                run.log_artifact(_artifact(piece))

        self._do(link)

    def finish(self, *, failed: bool = False) -> None:
        """Close the run."""
        self._do(lambda run: run.finish(exit_code=1 if failed else 0))


def available() -> bool:
    """Tell whether runs are written at all."""
    return _mode() != "disabled" and importlib.util.find_spec("wandb") is not None


def group_of(ingest: Mapping[str, object]) -> str:
    """Name the group that a chain's runs share: what is ingested decides it, so a later stage finds it again.

    Args:
        ingest: The parameters of the stage `ingest`.
    """
    return f"chain-{digest_of(without_places(ingest))[:12]}"


def open_run(  # noqa: D417 (options are wandb's own)
    job: str, config: Mapping[str, object], *, folder: Path | str | None = None, **options: object
) -> Run:
    """Open a run in the group of `WANDB_RUN_GROUP`, or one that does nothing where nothing is tracked.

    Args:
        job: The stage.
        config: Parameters; this machine's folders are left out.
        folder: Where `wandb/` is made; otherwise where `WANDB_DIR` or `keep_in` says.
    """
    if not available():
        if _mode() != "disabled":
            logger.warning("wandb is not installed: what the run of %s would show is in its own files only", job)
        return Run()
    try:
        return Run(_opened(job, config, Path(folder or os.environ.get("WANDB_DIR") or _home), options))
    except Exception as error:  # whatever wandb and the disk below it raise: tracking never ends a run
        _tell(error)
        return Run()


def _opened(job: str, config: Mapping[str, object], folder: Path, options: Mapping[str, object]) -> Any:  # noqa: ANN401
    _keep_out_of_home(Path(os.environ.get("WANDB_DIR") or _home) / "wandb")
    import wandb  # noqa: PLC0415 (optional, and slow to import)

    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    chosen: dict[str, Any] = {"project": PROJECT, "name": job, **options}
    shown = sys.excepthook
    run = wandb.init(
        **chosen,
        job_type=job,
        group=os.environ.get(GROUP_VARIABLE),
        dir=str(folder),  # wandb remembers the first it saw
        config=without_places(config),  # type: ignore[arg-type]
        mode=_mode(),  # type: ignore[arg-type]  # wandb itself names the modes that it knows
        reinit="create_new",  # stages of different tasks take turns
        # System metrics yes, but no name of the machine, path or address of the repository: the code's commit stands
        # in the model directory.
        settings=wandb.Settings(
            console="off",
            silent=True,
            host="local",
            x_disable_meta=True,
            disable_git=True,
            x_save_requirements=False,
            x_stats_sampling_interval=2,
        ),
    )
    sys.excepthook = shown  # wandb's prints all calls of an error a second time; who opened the run says that it failed
    return run


_home = Path()
_OWN = {"WANDB_DATA_DIR": "data", "WANDB_CACHE_DIR": "cache", "WANDB_CONFIG_DIR": "config"}
"""Folders that wandb otherwise makes in the user's home, and their names here."""
_chosen: dict[str, str] = {}


def keep_in(folder: Path) -> None:
    """Say where runs and wandb's own files go, where no variable of the user's says it.

    Args:
        folder: `wandb/` is made in it.
    """
    global _home  # noqa: PLW0603 (of this process, as wandb's own setup)
    _home = folder


def _keep_out_of_home(folder: Path) -> None:
    """Keep wandb out of a home that may be read-only; its settings are read there where there are any."""
    has_settings = os.access(Path("~/.config/wandb").expanduser(), os.R_OK)
    for variable, name in _OWN.items():
        is_ours = variable not in os.environ or os.environ[variable] == _chosen.get(variable)
        if is_ours and not (variable == "WANDB_CONFIG_DIR" and has_settings):
            os.environ[variable] = _chosen[variable] = str((folder / name).absolute())


def _tell(error: Exception) -> None:
    logger.warning("W&B: %s: %s. This run is not tracked any further, and goes on", type(error).__name__, error)


_running: dict[str, Run] = {}


def start_stage(stage: str, config: Mapping[str, object]) -> Run:
    """Open a stage's run, to be found again by its nodes."""
    _running[stage] = open_run(stage, config)
    return _running[stage]


def running(stage: str) -> Run | None:
    """Find a stage's run, if one is open."""
    return _running.get(stage)


def finish_stage(stage: str, *, failed: bool = False) -> None:
    """Close a stage's run, if one is open."""
    _running.pop(stage, Run()).finish(failed=failed)


@contextmanager
def stage_run(stage: str, config: Mapping[str, object]) -> Iterator[Run]:
    """Give a stage's open run, or one that is closed with the block where none is open."""
    opened = _running.get(stage)
    run = opened or open_run(stage, config)
    failed = True
    try:
        yield run
        failed = False
    finally:
        if opened is None:
            run.finish(failed=failed)


def _mode() -> str:
    """What `WANDB_MODE` says; offline if it says nothing."""
    return os.environ.get("WANDB_MODE", "offline")


def _numbers(value: object, at: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a JSON value with its place."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{at}.{key}" if at else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield at, float(value)


def _artifact(piece: Piece) -> Any:  # noqa: ANN401 (wandb.Artifact)
    import wandb  # noqa: PLC0415

    artifact = wandb.Artifact(piece.name.replace("/", "."), type=piece.kind, metadata={"sha256": piece.sha256})
    with artifact.new_file("sha256.txt") as file:  # stands for the content, which is not copied
        file.write(f"{piece.sha256}\n")
    return artifact
