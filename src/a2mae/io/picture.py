"""A dataset for one PNG, written whole or not at all and shown by kedro-viz."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import ImagePreview


class PictureDataset(AbstractDataset[bytes, bytes]):
    """The bytes of a PNG on local disk."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Describe the file.

        Args:
            filepath: Where the picture is.
            metadata: Kept for kedro-viz; not read here.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> bytes:
        """The encoded picture."""
        return self._filepath.read_bytes()

    def save(self, data: bytes) -> None:
        """Write the picture atomically; folders are made."""
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._filepath.with_name(f".{self._filepath.name}.part")
        temporary.write_bytes(data)
        os.replace(temporary, self._filepath)

    def preview(self) -> ImagePreview:
        """The picture itself."""
        return ImagePreview(base64.b64encode(self.load()).decode("ascii"))

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
