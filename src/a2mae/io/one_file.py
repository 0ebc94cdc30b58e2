"""What every dataset of one file on local disk shares: it is there whole or not at all."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

from a2mae.files import whole_file
from a2mae.io.path_dataset import PathDataset

Value = TypeVar("Value")


class OneFileDataset(PathDataset[Value, Value], Generic[Value]):
    """A file on local disk; a subclass says how a value is read and written."""

    def load(self) -> Value:
        """The file's content."""
        return self._read(self._filepath)

    def save(self, data: Value) -> None:
        """Write atomically."""
        with whole_file(self._filepath) as temporary:
            self._write(data, temporary)

    @abstractmethod
    def _read(self, path: Path) -> Value:
        """The value that the file holds."""

    @abstractmethod
    def _write(self, value: Value, path: Path) -> None:
        """Write the value into a new file."""

    def _exists(self) -> bool:
        return self._filepath.is_file()
