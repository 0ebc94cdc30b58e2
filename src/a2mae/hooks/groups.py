"""Parameter groups that are given on the command line and that nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl
from kedro.framework.project import settings
from kedro.validation.exceptions import ParameterValidationError

from a2mae.hooks.hints import did_you_mean

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


class KnownGroups:
    """Refuses `--params` whose group no configuration file has.

    Inside a group the pydantic model refuses a mistyped key; Kedro itself silently ignores a group that nothing reads.
    """

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Compare the groups given on the command line with those of the configuration.

        Raises:
            ParameterValidationError: If a group is unknown; the message names the nearest and all there are.
        """
        loader = context.config_loader
        if not loader.runtime_params:
            return
        files_only = type(loader)(conf_source=loader.conf_source, env=loader.env, **settings.CONFIG_LOADER_ARGS)
        known = sorted(files_only["parameters"])
        for group in loader.runtime_params:
            if group not in known:
                raise ParameterValidationError(
                    f"unknown parameter group '{group}' in --params: {did_you_mean(group, known)}"
                    f"conf/base/parameters_*.yml has {', '.join(known)}"
                )
