"""A JSON file that is there whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import JSONPreview


class JSONFileDataset(AbstractDataset[Any, Any]):
    """JSON on local disk with sorted keys: one content, one sequence of bytes, never half of it."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Name the file.

        Args:
            filepath: Where it is; folders are made.
            metadata: For kedro-viz and `dvc.yaml`.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:  # noqa: ANN401 (whatever JSON holds)
        """The content."""
        return json.loads(self._filepath.read_text("utf-8"))

    def save(self, data: Any) -> None:  # noqa: ANN401
        """Write atomically."""
        text = json.dumps(data, indent=1, sort_keys=True) + "\n"
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._filepath.with_name(f".{self._filepath.name}.part")
        try:
            temporary.write_text(text, "utf-8")
            os.replace(temporary, self._filepath)
        finally:
            temporary.unlink(missing_ok=True)

    def preview(self) -> JSONPreview:
        """The content for kedro-viz."""
        return JSONPreview(self._filepath.read_text("utf-8"))

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
