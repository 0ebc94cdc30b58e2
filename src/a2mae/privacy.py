"""What is passed on (the report, W&B runs) tells nobody where somebody's folders lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath


def without_places(value: object) -> object:
    """The configuration without this machine's absolute paths: only their last part is kept.

    Where somebody's folders lie is nobody's business and would differ between machines.
    """
    if isinstance(value, Mapping):
        return {str(key): without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    if isinstance(value, str):
        for flavour in (PurePosixPath(value), PureWindowsPath(value)):
            if flavour.is_absolute():
                return f"…/{flavour.name}"
    return value
