"""Datasets for one HTML page and one Markdown page."""

from __future__ import annotations

from pathlib import Path

from a2mae.io.one_file import OneFileDataset


class HtmlPageDataset(OneFileDataset[str]):
    """UTF-8 HTML, whatever the machine's locale."""

    def _read(self, path: Path) -> str:
        return path.read_text("utf-8")

    def _write(self, value: str, path: Path) -> None:
        path.write_text(value, "utf-8")


class MarkdownDataset(HtmlPageDataset):
    """UTF-8 Markdown."""
