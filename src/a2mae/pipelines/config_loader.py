"""How a run reads its configuration: as Kedro does, and a file that cannot be read is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from a2mae.pipelines.environment_files import read_files


class NamingConfigLoader(OmegaConfigLoader):
    """Kedro's loader; it reads the globals before any hook is called, and says of a broken file which line alone."""

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Read a kind of configuration.

        Raises:
            EnvironmentFilesError: If a file of the environment or of base cannot be read; the message names it.
        """
        try:
            found: dict[str, Any] = super().__getitem__(key)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError, YAMLError, OmegaConfBaseException):
            read_files(Path(self.conf_source), self.env or self.default_run_env)
            raise
        return found
