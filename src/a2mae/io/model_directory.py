"""Kedro datasets for models: a directory that is replaced as a whole, and the place where a training works."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Never

from kedro.io import DatasetError
from kedro_datasets._typing import JSONPreview

from a2mae.files import whole_folder
from a2mae.io.path_dataset import PathDataset

CONFIG_FILE = "config.json"


class ModelDirectory(PathDataset[Path, Path]):
    """A model directory (config, weights, metrics); nodes pass its path, never the weights."""

    def load(self) -> Path:
        """The path of the directory.

        Raises:
            DatasetError: If there is no model in it.
        """
        if not self._exists():
            raise DatasetError(
                f"{self._filepath} holds no model ({CONFIG_FILE} is absent): run the stage that makes it"
            )
        return self._filepath

    def save(self, data: Path) -> None:
        """Publish a finished model directory: readers see the old one or the new one, never half of it.

        Args:
            data: A model directory, anywhere; it is copied.
        """
        if not (data / CONFIG_FILE).is_file():
            raise DatasetError(f"{data} is no model directory: {CONFIG_FILE} is absent")
        if data.resolve() == self._filepath.resolve():
            return
        with whole_folder(self._filepath) as partial:
            shutil.copytree(data, partial)

    def preview(self) -> JSONPreview:
        """The model's description and scores, for kedro-viz."""
        shown = {}
        for name in (CONFIG_FILE, "metrics.json"):
            path = self._filepath / name
            if path.is_file():
                shown[name] = json.loads(path.read_text(encoding="utf-8"))
        return JSONPreview(json.dumps(shown))

    def _exists(self) -> bool:
        return (self._filepath / CONFIG_FILE).is_file()


class RunDirectory(PathDataset[Never, Path]):
    """The folder in which long work keeps what it has so far: a stopped training or evaluation goes on there."""

    def load(self) -> Path:
        """The folder's path; it is made if absent.

        Raises:
            DatasetError: If it cannot be made or written.
        """
        try:
            self._filepath.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(f"cannot make the run directory {self._filepath}: {error}") from error
        if not os.access(self._filepath, os.W_OK):
            raise DatasetError(f"cannot write into the run directory {self._filepath}: change its permissions")
        return self._filepath

    def save(self, data: Never) -> None:
        """Refuse: the training itself writes here.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError(f"the run directory {self._filepath} is written by the training, not as a dataset")

    def _exists(self) -> bool:
        return True  # made when it is asked for
