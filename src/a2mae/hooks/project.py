"""What hooks that look at files need: the folder that relative paths start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


class InProject:
    """Knows the project's folder once Kedro does."""

    def __init__(self) -> None:
        self._project = Path()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember what relative paths start from."""
        self._project = context.project_path
