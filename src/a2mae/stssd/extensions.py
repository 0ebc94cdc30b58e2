"""Functions of the user's own, named in the configuration as `package.module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=64)
def load_function(spec: str, where: str) -> Callable[..., Any]:
    """Import a function.

    Args:
        spec: `package.module:function`.
        where: Parameter that names it, for messages.

    Raises:
        ValueError: If it cannot be imported or is no function.
    """
    module, _, name = spec.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{where}: {spec!r} cannot be imported as package.module:function ({error}); install its package, or"
            " put its folder on PYTHONPATH"
        ) from error
    if not callable(function):
        raise ValueError(f"{where}: {spec!r} is not a function")
    return function  # type: ignore[no-any-return]
