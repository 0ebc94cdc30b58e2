"""What every dataset of a path on local disk shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

from kedro.io import AbstractDataset

Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")


class PathDataset(AbstractDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """A file or folder on local disk; a subclass says how it is loaded and saved."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Name the file or folder.

        Args:
            filepath: Where it is.
            metadata: For kedro-viz and `dvc.yaml`; not read here.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
