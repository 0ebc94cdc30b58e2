"""What an error that nobody caught shows: the sentence that helps, or the way to a defect."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

import kedro
from kedro.io.core import DatasetError
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from a2mae.errors import A2maeError

TRACEBACK_VARIABLE = "A2MAE_TRACEBACK"

_SENTENCES = (A2maeError, ValidationError, OmegaConfBaseException, DatasetError)
"""Whoever raises them, they say what to change."""
_OF_THE_PROGRAM = (AssertionError, AttributeError, LookupError, NameError, NotImplementedError, TypeError)
"""Only a defect raises them."""


def show_sentences() -> None:
    """Let errors that were raised to be read end a run with their sentence, not with two screens of calls before it.

    Call it after Kedro has configured logging, which shows all calls of everything.
    """
    shown_before = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, calls: TracebackType | None) -> None:
        if os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0") or not meant_to_be_read(error):
            shown_before(kind, error, calls)
            return
        error = _unwrapped(error)
        last = traceback.extract_tb(error.__traceback__)[-1]
        origin = f"(from {last.filename}, line {last.lineno}; {TRACEBACK_VARIABLE}=1 shows all calls)"
        sys.stderr.write(f"\n{type(error).__name__}: {error}\n{origin}\n")

    sys.excepthook = show


def meant_to_be_read(error: BaseException) -> bool:
    """Tell whether a message says what was found and what to change; otherwise the calls are what helps.

    It does where it is one of our own errors, where it is about the user's settings, and where Kedro raises it.

    Args:
        error: As it was raised.
    """
    error = _unwrapped(error)
    calls = traceback.extract_tb(error.__traceback__)
    if not calls or not isinstance(error, Exception):
        return False
    if isinstance(error, _SENTENCES):
        return True
    return not isinstance(error, _OF_THE_PROGRAM) and Path(calls[-1].filename).is_relative_to(
        Path(kedro.__file__).parent
    )


def _unwrapped(error: BaseException) -> BaseException:
    """Take out what a dataset raised: Kedro wraps it, defects too, in words that sound as if the disk had failed."""
    while isinstance(error, DatasetError) and error.__cause__ is not None:
        error = error.__cause__
    return error
