"""A folder as a dataset: nodes that need files beside a dataset get its path, wherever the environment puts it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Never

from kedro.io import AbstractDataset, DatasetError


class FolderDataset(AbstractDataset[Never, Path]):
    """Gives a folder's path, relative to the project's root where it lies below it; it is never written."""

    def __init__(self, *, filepath: str, metadata: dict[str, object] | None = None) -> None:
        """Name the folder.

        Args:
            filepath: The folder.
            metadata: For kedro-viz.
        """
        self._filepath = filepath
        self.metadata = metadata

    def load(self) -> Path:
        """The folder's path; it need not exist."""
        relative = os.path.relpath(self._filepath)
        return Path(self._filepath if relative.startswith(os.pardir) else relative)

    def save(self, data: Never) -> None:
        """Refuse: what lies in the folder is written by the datasets that own it.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError(f"the folder {self._filepath} is not written as a dataset")

    def _exists(self) -> bool:
        return Path(self._filepath).is_dir()

    def _describe(self) -> dict[str, object]:
        return {"filepath": self._filepath}
