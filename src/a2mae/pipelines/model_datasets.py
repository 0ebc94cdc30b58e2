"""Kedro datasets of the image-set store, models and tasks: values that know how to write themselves.

The image-set store as Kedro datasets: its address for the node that builds it, the opened store for all others.

Kedro datasets for models: a directory that is replaced as a whole, and the place where a training works.

Kedro datasets of the tasks: task data, finetuned models, pictures. Values passed know how to write themselves.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Never, Protocol

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import ImagePreview, JSONPreview

from a2mae.files import whole_folder
from a2mae.pipelines.datasets import PathDataset
from a2mae.remote.storage import Folder, StoreError, StoreMissingError
from a2mae.stssd.store.store import ImageSetStore

if TYPE_CHECKING:
    from a2mae.tasks.datasets.task_data import TaskData
    from a2mae.tasks.datasets.writer import TaskDataSource
    from a2mae.tasks.evaluation.both_starts import PictureArrays
    from a2mae.tasks.finetune.finetuned import Finetuned, FinetuneRun


class ImageSetStoreDataset(AbstractDataset[str, ImageSetStore]):
    """Opens a finished store.

    A store is too large to pass through a node: its builder writes it shard by shard and saves here the manifest hash,
    which is held against what is on disk.
    """

    def __init__(
        self,
        *,
        filepath: str,
        credentials: dict[str, object] | None = None,
        metadata: dict[str, object] | None = None,
    ) -> None:
        """Name the store.

        Args:
            filepath: Local folder or fsspec URL.
            credentials: fsspec storage options; never shown.
            metadata: For kedro-viz.
        """
        self._filepath = filepath
        self._credentials = credentials
        self.metadata = metadata

    def load(self) -> ImageSetStore:
        """The opened store."""
        return self._open()

    def save(self, data: str) -> None:
        """Hold the manifest hash that the builder returned against the store on disk.

        Raises:
            DatasetError: If the store is not the one that was built.
        """
        found = self._open().manifest_hash
        if found != data:
            raise DatasetError(
                f"{self._filepath} has manifest {found[:12]}, {data[:12]} was built: did another run write it?"
            )

    def preview(self) -> ImagePreview:
        """A contact sheet for kedro-viz: a row per sensor, images from its first to its last."""
        from a2mae.report.previews import contact_sheet, to_base64_png

        return ImagePreview(to_base64_png(contact_sheet(self._open())))

    def _open(self) -> ImageSetStore:
        return ImageSetStore.open(self._filepath, self._credentials)

    def _exists(self) -> bool:
        try:
            self._open()
        except StoreError:
            return False
        return True

    def _describe(self) -> dict[str, object]:
        return {"filepath": self._filepath}


class StoreUrlDataset(AbstractDataset[Never, str]):
    """Gives the address of a store that need not exist yet; it is never written."""

    def __init__(self, *, filepath: str, metadata: dict[str, object] | None = None) -> None:
        """Name the address.

        Args:
            filepath: Local folder or fsspec URL.
            metadata: For kedro-viz.
        """
        self._filepath = filepath
        self.metadata = metadata

    def load(self) -> str:
        """The address."""
        return self._filepath

    def save(self, data: Never) -> None:
        """Refuse: the store is written by its builder.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError(f"{self._filepath} is written by the coregister stage, not as a dataset")

    def _exists(self) -> bool:
        try:
            return bool(Folder(self._filepath).sizes())
        except (OSError, StoreMissingError):
            return False

    def _describe(self) -> dict[str, object]:
        return {"filepath": self._filepath}


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


class TaskDataDataset(PathDataset["TaskDataSource", "TaskData"]):
    """A task data folder: written sample by sample from a source, opened lazily."""

    def load(self) -> TaskData:
        """Open it."""
        from a2mae.tasks.datasets.task_data import TaskData

        return TaskData(self._filepath)

    def save(self, data: TaskDataSource) -> None:
        """Write every sample; the old data is replaced when the new is whole."""
        from a2mae.tasks.datasets.writer import write_source

        write_source(self._filepath, data)

    def preview(self) -> JSONPreview:
        """Classes, bands, splits and rules for kedro-viz."""
        return JSONPreview((self._filepath / "task.json").read_text("utf-8"))

    def _exists(self) -> bool:
        return (self._filepath / "task.json").is_file()


class TaskModelDataset(PathDataset["FinetuneRun", "Finetuned"]):
    """A finetuned model directory."""

    def load(self) -> Finetuned:
        """Read the model back, in evaluation mode."""
        from a2mae.tasks.finetune.finetuned import load_task_model

        return load_task_model(self._filepath)

    def save(self, data: FinetuneRun) -> None:
        """Write weights, configuration and the loss curve."""
        from a2mae.tasks.finetune.finetuned import save_task_model

        save_task_model(self._filepath, data)

    def preview(self) -> JSONPreview:
        """How it was made, for kedro-viz."""
        return JSONPreview((self._filepath / "config.json").read_text("utf-8"))

    def _exists(self) -> bool:
        return (self._filepath / "model.safetensors").is_file()


class PicturesDataset(PathDataset["PictureArrays", Path]):
    """Arrays in an `.npz`; readers get its path and read what they show."""

    def load(self) -> Path:
        """The file's path."""
        return self._filepath

    def save(self, data: PictureArrays) -> None:
        """Write the arrays, the same bytes for the same values."""
        from a2mae.files import write_arrays

        write_arrays(self._filepath, data)

    def preview(self) -> ImagePreview:
        """The pictures with truth and prediction for kedro-viz."""
        from a2mae.report.previews import task_pictures, to_base64_png

        return ImagePreview(to_base64_png(task_pictures(self._filepath)))

    def _exists(self) -> bool:
        return self._filepath.is_file()


class Streamed(Protocol):
    """A result that is written as it is computed."""

    def write(self, path: Path) -> None:
        """Compute and write."""


class StreamedDataset(PathDataset[Streamed, Path]):
    """A file or folder larger than memory: what is saved writes itself, what is loaded is the path."""

    def load(self) -> Path:
        """The path."""
        return self._filepath

    def save(self, data: Streamed) -> None:
        """Let the result write itself."""
        data.write(self._filepath)

    def preview(self) -> ImagePreview:
        """The map, or the first GeoTIFF of the folder, reduced, for kedro-viz."""
        from a2mae.report.previews import raster_picture, to_base64_png

        folder = self._filepath.is_dir()
        return ImagePreview(
            to_base64_png(raster_picture(min(self._filepath.glob("*.tif")) if folder else self._filepath))
        )
