"""Start a training as a process of its own, wait for it, and stop it.

Lightning's DDP starts the program again for every rank; under Kedro that would be the whole pipeline. So the node
starts `python -m a2mae.training`, and only that is started again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from a2mae.errors import A2maeError
from a2mae.training.spec import ERROR_FILE, MODEL_DIR

_LOG = logging.getLogger(__name__)

PARENT_VARIABLE = "A2MAE_PARENT"
"""Environment variable with the process id of the node that started the training."""


class StopRequest:
    """A flag that signals set and the loop reads between two steps, so that a checkpoint can be written."""

    def __init__(self) -> None:
        """Begin without a request."""
        self._signal = 0
        parent = os.environ.get(PARENT_VARIABLE, "")
        self._parent = int(parent) if parent.isdigit() else None

    def install(self) -> None:
        """Catch SIGINT (Ctrl-C), SIGTERM (schedulers) and SIGUSR1 (SLURM's warning before the time limit)."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    @property
    def requested(self) -> bool:
        """Whether the run should end after this step: a signal came, or the process that started it is gone."""
        if self._parent is not None and os.getppid() != self._parent and os.environ.get("LOCAL_RANK", "0") == "0":
            _LOG.warning("the process that started this training is gone: stopping with a checkpoint")
            self._parent = None
            self._signal = self._signal or signal.SIGHUP
        return self._signal != 0

    @property
    def exit_code(self) -> int:
        """Exit status of a process that was ended by a signal, as shells have it."""
        return 128 + self._signal

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number


class TrainingFailedError(A2maeError, RuntimeError):
    """The training process ended with an error."""


class TrainingStoppedError(A2maeError, RuntimeError):
    """The training process was stopped and left a checkpoint."""


def launch(run_dir: Path) -> Path:
    """Train a run directory in a process of its own.

    Args:
        run_dir: Holds `spec.json`.

    Returns:
        The finished model directory.

    Raises:
        TrainingFailedError: If the process fails; with its own error message.
        TrainingStoppedError: If it was stopped by a signal; starting it again goes on.
        KeyboardInterrupt: If this process was interrupted; the training has then written a checkpoint.
    """
    error_file = run_dir / ERROR_FILE
    error_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "a2mae.training", str(run_dir)]
    environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    with subprocess.Popen(command, env=environment) as process:
        try:
            status = process.wait()
        except BaseException:
            _LOG.warning("interrupted: waiting for the training to write a checkpoint")
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if status == 0:
        return run_dir / MODEL_DIR
    if status in (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGUSR1, 128 + signal.SIGHUP):
        raise TrainingStoppedError(
            f"training was stopped by signal {status - 128} and left a checkpoint in {run_dir}: run it again to go on"
        )
    if status < 0:
        name = signal.Signals(-status).name
        hint = " (the system may be out of memory: lower pretrain.batch_size)" if name == "SIGKILL" else ""
        raise TrainingFailedError(
            f"the training process was ended by {name}{hint}; run it again to go on from its newest checkpoint"
        )
    try:
        error = json.loads(error_file.read_text(encoding="utf-8"))
        message = f"{error['type']}: {error['message']}"
    except (OSError, ValueError, KeyError):
        message = f"exit status {status}, see its output above"
    raise TrainingFailedError(f"training in {run_dir} failed: {message}")
