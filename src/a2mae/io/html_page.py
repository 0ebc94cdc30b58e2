"""Datasets for one HTML page and one Markdown page, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from a2mae.reporting.page import write


class HtmlPageDataset(AbstractDataset[str, str]):
    """UTF-8 HTML on local disk, whatever the machine's locale."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Describe the file.

        Args:
            filepath: Where the page is.
            metadata: Kept for kedro-viz; not read here.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> str:
        """The page as text."""
        return self._filepath.read_text("utf-8")

    def save(self, data: str) -> None:
        """Write the page atomically; folders are made."""
        write(data, self._filepath)

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class MarkdownDataset(HtmlPageDataset):
    """UTF-8 Markdown on local disk."""
