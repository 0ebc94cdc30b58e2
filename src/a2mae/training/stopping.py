"""Being asked to stop: Ctrl-C, a scheduler's signal, or the process that started us being gone."""

from __future__ import annotations

import logging
import os
import signal
from types import FrameType

_LOG = logging.getLogger(__name__)
PARENT_VARIABLE = "A2MAE_PARENT"
"""Environment variable with the process id of the node that started the training."""


class StopRequest:
    """Turns signals into a flag that the loop looks at between two steps, so that a checkpoint can be written."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self._signal = 0
        parent = os.environ.get(PARENT_VARIABLE, "")
        self._parent = int(parent) if parent.isdigit() else None

    def install(self) -> None:
        """Listen to SIGINT (Ctrl-C), SIGTERM (schedulers) and SIGUSR1 (SLURM's warning before the time limit)."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    @property
    def requested(self) -> bool:
        """Whether the run should end after this step."""
        if self._parent is not None and os.getppid() != self._parent and os.environ.get("LOCAL_RANK", "0") == "0":
            _LOG.warning("the process that started this training is gone: stopping with a checkpoint")
            self._parent = None
            self._signal = self._signal or signal.SIGHUP
        return self._signal != 0

    @property
    def exit_code(self) -> int:
        """The shell's convention for a process that ended because of a signal."""
        return 128 + self._signal

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
