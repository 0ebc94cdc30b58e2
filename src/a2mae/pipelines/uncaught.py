"""What an error that nobody caught shows: the sentence that helps, or the way to a defect."""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

import kedro
from kedro.io.core import DatasetError
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

TRACEBACK_VARIABLE = "A2MAE_TRACEBACK"

_OURS = (Path(__file__).parents[1], Path(kedro.__file__).parent)
_OF_THE_INPUT = (ValidationError, OmegaConfBaseException)
"""Whoever raises them, they name a setting of the user's."""
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
    """Whether a message says what was found and what to change; otherwise the calls are what helps.

    It does where our code or Kedro's raised it by name, or where it is about the user's settings. What comes up from
    elsewhere, or is of a kind that only a defect raises, does not.

    Args:
        error: As it was raised.
    """
    error = _unwrapped(error)
    if isinstance(error, _OF_THE_INPUT):
        return True
    calls = traceback.extract_tb(error.__traceback__)
    if not calls or not isinstance(error, Exception) or isinstance(error, _OF_THE_PROGRAM):
        return False
    last = calls[-1]
    line = linecache.getline(last.filename, last.lineno or 0)
    return any(Path(last.filename).is_relative_to(package) for package in _OURS) and line.strip().startswith("raise ")


def _unwrapped(error: BaseException) -> BaseException:
    """What a dataset raised: Kedro wraps it, defects too, in words that sound as if the disk had failed."""
    while isinstance(error, DatasetError) and error.__cause__ is not None:
        error = error.__cause__
    return error
