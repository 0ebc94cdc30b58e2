"""What a run says at a terminal: an error's sentence or the way to a defect, and each warning of a library once."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType

import kedro
from kedro.io.core import DatasetError
from kedro.logging import RichHandler
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from a2mae.errors import A2maeError, plain_text

TRACEBACK_VARIABLE = "A2MAE_TRACEBACK"

_SENTENCES = (A2maeError, ValidationError, OmegaConfBaseException, YAMLError, DatasetError)
"""Whoever raises them, they say what to change."""
_OF_THE_PROGRAM = (AssertionError, AttributeError, LookupError, NameError, NotImplementedError, TypeError)
"""Only a defect raises them."""


_MODEL = re.compile(
    r"(?:Parameter '\w+': )?Failed to instantiate \w+ for parameter '(?P<group>\w+)': \d+ validation errors? for \w+"
)
_NOISE = re.compile(
    r"\s*\[type=\w+, input_value=.*?, input_type=\w+\]|\s*For further information visit \S+|Value error, "
)
_RUNNING = re.compile(r"Running node: [^:]+: ")
_ADVICE = "Using synchronous mode for loading and saving data"
_NAMES = re.compile(r"(?:[\w./-]+/)?[\w.-]+\.\w{2,5}\b|\d+")


class Once(logging.Filter):
    """Lets through each warning of a library once, as one line; and no error that is shown as a sentence at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[tuple[str, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is shown; a library's is shortened."""
        room = record.name.partition(".")[0]
        if room == "kedro":
            return self._of_kedro(record)
        if room == "a2mae" or not logging.WARNING <= record.levelno < logging.ERROR:
            record.msg, record.args = plain_text(record.getMessage()), None
            return True
        text = " ".join(record.getMessage().split())
        kind = (record.name, _NAMES.sub("", text))
        if kind in self._seen:
            return False
        self._seen.add(kind)
        record.msg, record.args = f"{record.name}: {text[:200]} (told once)", None
        return True

    def _of_kedro(self, record: logging.LogRecord) -> bool:
        """Shorten what it says of a node to its name; leave out advice, and the calls of an error."""
        text = record.getMessage()
        if _RUNNING.match(text):
            record.msg, record.args = ":".join(text.split(":", 2)[:2]), None
        return not text.startswith(_ADVICE) and (record.levelno < logging.ERROR or _shows_calls())


def sentence_of(error: BaseException) -> str:
    """Write an error as what was found and what to change, without the words of the library that raised it.

    Args:
        error: As it was raised.
    """
    text = _NOISE.sub("", str(error)).replace("Parameter validation failed:\n- ", "")
    return re.sub(r"\n\s*\n+", "\n", _MODEL.sub(lambda found: f"{found['group']}:", text)).strip()


def _shows_calls() -> bool:
    return os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0")


def show_sentences() -> None:
    """Let errors that were raised to be read end a run with their sentence, and warnings of libraries be a line each.

    Call it after Kedro has configured logging, which shows all calls of everything.
    """
    shown_before = sys.excepthook
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RichHandler) and not any(isinstance(one, Once) for one in handler.filters):
            handler.addFilter(Once())

    def show(kind: type[BaseException], error: BaseException, calls: TracebackType | None) -> None:
        if _shows_calls() or not meant_to_be_read(error):
            shown_before(kind, error, calls)
            return
        error = _unwrapped(error)
        last = traceback.extract_tb(error.__traceback__)[-1]
        origin = f"(from {last.filename}, line {last.lineno}; {TRACEBACK_VARIABLE}=1 shows all calls)"
        sys.stderr.write(f"\n{type(error).__name__}: {sentence_of(error)}\n{origin}\n")

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
