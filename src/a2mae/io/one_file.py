"""What every dataset of one file on local disk shares: it is there whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

from kedro.io import AbstractDataset

from a2mae.files import whole_file

Value = TypeVar("Value")


class OneFileDataset(AbstractDataset[Value, Value], Generic[Value]):
    """A file on local disk; a subclass says how a value is read and written."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Name the file.

        Args:
            filepath: Where it is; folders are made.
            metadata: For kedro-viz and `dvc.yaml`; not read here.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Value:
        """The file's content."""
        return self._read(self._filepath)

    def save(self, data: Value) -> None:
        """Write atomically."""
        with whole_file(self._filepath) as temporary:
            self._write(data, temporary)

    def _read(self, path: Path) -> Value:
        raise NotImplementedError

    def _write(self, value: Value, path: Path) -> None:
        raise NotImplementedError

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
