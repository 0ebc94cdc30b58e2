"""A configuration environment that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

from a2mae.hooks.hints import did_you_mean

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


class KnownEnvironment:
    """Refuses `--env` that has no folder, with those that have one; Kedro names the folder alone."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Look for the environment's folder, where the configuration is one.

        Raises:
            UnknownEnvironmentError: If it is not there; the message names the nearest and all there are.
        """
        loader = context.config_loader
        source = Path(loader.conf_source)
        if loader.env is None or not source.is_dir() or (source / loader.env).is_dir():
            return
        known = sorted(path.name for path in source.iterdir() if path.is_dir() and path.name != "base")
        raise UnknownEnvironmentError(
            f"no environment '{loader.env}': {did_you_mean(loader.env, known)}{source} has"
            f" {', '.join(known) or 'none'}; one of your own is a folder there with what differs from conf/base"
            " (docs/own-folder.md)"
        )


class UnknownEnvironmentError(FileNotFoundError):
    """`--env` names a folder that is not there."""
