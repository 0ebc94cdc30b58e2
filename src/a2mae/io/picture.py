"""A dataset for one PNG, shown by kedro-viz."""

from __future__ import annotations

import base64
from pathlib import Path

from kedro_datasets._typing import ImagePreview

from a2mae.io.one_file import OneFileDataset


class PictureDataset(OneFileDataset[bytes]):
    """The bytes of a PNG."""

    def _read(self, path: Path) -> bytes:
        return path.read_bytes()

    def _write(self, value: bytes, path: Path) -> None:
        path.write_bytes(value)

    def preview(self) -> ImagePreview:
        """The picture itself."""
        return ImagePreview(base64.b64encode(self.load()).decode("ascii"))
