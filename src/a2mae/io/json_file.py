"""A JSON file that is there whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kedro_datasets._typing import JSONPreview

from a2mae.files import json_text
from a2mae.io.one_file import OneFileDataset


class JSONFileDataset(OneFileDataset[Any]):
    """JSON with sorted keys: one content, one sequence of bytes."""

    def _read(self, path: Path) -> Any:  # noqa: ANN401 (whatever JSON holds)
        return json.loads(path.read_text("utf-8"))

    def _write(self, value: Any, path: Path) -> None:  # noqa: ANN401
        path.write_text(json_text(value, allow_nan=True), "utf-8")

    def preview(self) -> JSONPreview:
        """The content for kedro-viz."""
        return JSONPreview(self._filepath.read_text("utf-8"))
