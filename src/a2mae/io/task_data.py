"""Kedro datasets of the tasks: task data, finetuned models, pictures. Values passed know how to write themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kedro_datasets._typing import ImagePreview, JSONPreview

from a2mae.io.path_dataset import PathDataset

if TYPE_CHECKING:
    from a2mae.tasks.learning.checkpoint import Finetuned, FinetuneRun
    from a2mae.tasks.samples.task_data import TaskData
    from a2mae.tasks.samples.writer import TaskDataSource
    from a2mae.tasks.scoring.pictures import PictureArrays


class TaskDataDataset(PathDataset["TaskDataSource", "TaskData"]):
    """A task data folder: written sample by sample from a source, opened lazily."""

    def load(self) -> TaskData:
        """Open it."""
        from a2mae.tasks.samples.task_data import TaskData  # noqa: PLC0415 (the registry stays light)

        return TaskData(self._filepath)

    def save(self, data: TaskDataSource) -> None:
        """Write every sample; the old data is replaced when the new is whole."""
        from a2mae.tasks.samples.writer import write_source  # noqa: PLC0415

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
        from a2mae.tasks.learning.checkpoint import load_task_model  # noqa: PLC0415

        return load_task_model(self._filepath)

    def save(self, data: FinetuneRun) -> None:
        """Write weights, configuration and the loss curve."""
        from a2mae.tasks.learning.checkpoint import save_task_model  # noqa: PLC0415

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
        from a2mae.tasks.files import write_arrays  # noqa: PLC0415

        write_arrays(self._filepath, data)

    def preview(self) -> ImagePreview:
        """The pictures with truth and prediction for kedro-viz."""
        from a2mae.reporting.previews import task_pictures, to_base64_png  # noqa: PLC0415

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
        from a2mae.reporting.previews import raster_picture, to_base64_png  # noqa: PLC0415

        folder = self._filepath.is_dir()
        return ImagePreview(
            to_base64_png(raster_picture(min(self._filepath.glob("*.tif")) if folder else self._filepath))
        )
