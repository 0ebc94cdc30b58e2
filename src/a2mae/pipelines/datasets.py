"""Kedro datasets: small values that are saved whole or not at all, and paths of what nodes write themselves.

A table, a JSON file, a page or a picture is a value: a node returns it, and its dataset writes it. What is larger than
memory (the image-set store, task data, maps, embeddings) is written by the node: it is given the path by a
`PathDataset` among its inputs, and returns the path it has written for readers to load.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import ImagePreview, JSONPreview, TablePreview

from a2mae.errors import InputError
from a2mae.files import json_text, whole_file, whole_folder, write_arrays
from a2mae.remote.storage import StoreError

if TYPE_CHECKING:
    import pandas as pd

    from a2mae.report.pictures import BytesImage
    from a2mae.stssd.store.store import ImageSetStore
    from a2mae.tasks.datasets.task_data import TaskData
    from a2mae.tasks.evaluation.both_starts import PictureArrays
    from a2mae.tasks.finetune.finetuned import Finetuned, FinetuneRun

Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")
Value = TypeVar("Value")


class _Pictured:
    """What kedro-viz shows as a picture."""

    @abstractmethod
    def picture(self) -> BytesImage:
        """Draw it: `(H, W, 3)`."""

    def preview(self) -> ImagePreview:
        """Show the picture in kedro-viz."""
        from a2mae.report.previews import to_base64_png

        return ImagePreview(to_base64_png(self.picture()))


class TornFileError(InputError):
    """A file that is not as it was written."""


class _LocalDataset(AbstractDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """A file or folder on local disk; a subclass says how it is loaded and saved."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Name the file or folder.

        Args:
            filepath: Where it is.
            metadata: For kedro-viz and `dvc.yaml`; not read here.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class OneFileDataset(_LocalDataset[Value, Value], Generic[Value]):
    """A file that is there whole or not at all; a subclass says how a value is read and written."""

    def load(self) -> Value:
        """Read the file.

        Raises:
            TornFileError: If it is not what was written.
        """
        try:
            return self._read(self._filepath)
        except (ValueError, EOFError) as error:  # JSON, UTF-8 and Arrow's own
            raise TornFileError(
                f"{self._filepath} cannot be read: {error}. It is torn, or nothing of a2mae has written it: make it"
                " again by its stage (kedro run --pipelines=…)"
            ) from error

    def save(self, data: Value) -> None:
        """Replace the file as a whole."""
        with whole_file(self._filepath) as temporary:
            self._write(data, temporary)

    @abstractmethod
    def _read(self, path: Path) -> Value:
        """Read a value from a file."""

    @abstractmethod
    def _write(self, value: Value, path: Path) -> None:
        """Write a value into a new file."""


class JSONFileDataset(OneFileDataset[Any]):
    """JSON with sorted keys: one content, one sequence of bytes."""

    def _read(self, path: Path) -> Any:  # noqa: ANN401 (whatever JSON holds)
        return json.loads(path.read_text("utf-8"))

    def _write(self, value: Any, path: Path) -> None:  # noqa: ANN401
        path.write_text(json_text(value, allow_nan=True), "utf-8")

    def preview(self) -> JSONPreview:
        """Show the content in kedro-viz."""
        return JSONPreview(self._filepath.read_text("utf-8"))


class TextFileDataset(OneFileDataset[str]):
    """HTML or Markdown in UTF-8, whatever the machine's locale."""

    def _read(self, path: Path) -> str:
        return path.read_text("utf-8")

    def _write(self, value: str, path: Path) -> None:
        path.write_text(value, "utf-8")


class CurvesDataset(OneFileDataset["pd.DataFrame"]):
    """A table of numbers as CSV."""

    def _read(self, path: Path) -> pd.DataFrame:
        import pandas as pd

        return pd.read_csv(path)

    def _write(self, value: pd.DataFrame, path: Path) -> None:
        value.to_csv(path, index=False, lineterminator="\n")

    def preview(self, nrows: int = 20) -> TablePreview:
        """Show the first rows in kedro-viz."""
        return TablePreview(self.load().head(nrows).astype(str).to_dict(orient="split"))


class PictureDataset(OneFileDataset[bytes]):
    """The bytes of a PNG."""

    def _read(self, path: Path) -> bytes:
        return path.read_bytes()

    def _write(self, value: bytes, path: Path) -> None:
        path.write_bytes(value)

    def preview(self) -> ImagePreview:
        """Show the picture in kedro-viz."""
        return ImagePreview(base64.b64encode(self.load()).decode("ascii"))


_ARROW_LISTS = b"a2mae.arrow_lists"
"""Marks a file whose lists were Arrow's: read as such here, and as objects by whoever else reads it."""


class TableDataset(OneFileDataset["pd.DataFrame"]):
    """A pandas or geopandas table as (Geo)Parquet; lists of `pandas.ArrowDtype` stay so."""

    def _read(self, path: Path) -> pd.DataFrame:
        """Read a GeoDataFrame where the file has geometries, a DataFrame otherwise."""
        import pyarrow.parquet as pq

        schema = pq.read_schema(path)
        if b"geo" in (schema.metadata or {}):
            import geopandas as gpd

            table: pd.DataFrame = gpd.read_parquet(path)
            return table
        import pandas as pd
        import pyarrow as pa

        if _ARROW_LISTS in (schema.metadata or {}):
            frame: pd.DataFrame = pq.read_table(path).to_pandas(
                types_mapper=lambda kind: pd.ArrowDtype(kind) if pa.types.is_list(kind) else None
            )
            return frame
        return pd.read_parquet(path)

    def _write(self, value: pd.DataFrame, path: Path) -> None:
        import pandas as pd

        lists = {name for name, kind in value.dtypes.items() if isinstance(kind, pd.ArrowDtype)}
        if not lists:
            value.to_parquet(path)
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(value)
        described = json.loads(table.schema.metadata[b"pandas"])
        for column in described["columns"]:
            if column["name"] in lists:  # pandas could not read its own name of the type
                column["numpy_type"] = "object"
        metadata = {b"pandas": json.dumps(described).encode(), _ARROW_LISTS: b"1"}
        pq.write_table(table.replace_schema_metadata(metadata), path)

    def preview(self, nrows: int = 10) -> TablePreview:
        """Show the first rows in kedro-viz, without geometries and long texts."""
        data = self.load().head(nrows)
        shown = data.drop(columns=["geometry", "assets"], errors="ignore").astype(str)
        return TablePreview(shown.to_dict(orient="split"))


class PicturesDataset(_Pictured, _LocalDataset["PictureArrays", Path]):
    """Arrays in an `.npz`; readers get its path and read what they show."""

    def load(self) -> Path:
        """Give the file's path."""
        return self._filepath

    def save(self, data: PictureArrays) -> None:
        """Replace the file as a whole: the same bytes for the same values."""
        write_arrays(self._filepath, data)

    def picture(self) -> BytesImage:
        """Draw the pictures over their truth and prediction."""
        from a2mae.report.previews import task_pictures

        return task_pictures(self._filepath)


class _WrittenDataset(_LocalDataset[Path, Loaded], Generic[Loaded]):
    """What a node has written itself; a subclass says what readers get."""

    def save(self, data: Path) -> None:
        """Check that the node has written here.

        Args:
            data: The path that it has written.

        Raises:
            DatasetError: If that is another path, or nothing is here.
        """
        if Path(data).absolute() != self._filepath.absolute() or not self._exists():
            raise DatasetError(
                f"{self._filepath} is not written as a dataset: a node that writes there itself returns this path,"
                f" found {str(data)!r}"
            )


class PathDataset(_WrittenDataset[Path]):
    """The path of a file or folder that nodes write themselves.

    As an input it says where to write, or where something lies; as an output it takes the path that was written.
    """

    def load(self) -> Path:
        """Give the path, relative to the project's root where it lies below it; nothing need be there."""
        relative = os.path.relpath(self._filepath)
        return self._filepath if relative.startswith(os.pardir) else Path(relative)


class RunDirectory(PathDataset):
    """The folder in which long work keeps what it has so far: a stopped training or evaluation goes on there."""

    def load(self) -> Path:
        """Make the folder and give its path.

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


class RasterDataset(_Pictured, PathDataset):
    """The path of a map, or of a folder with one, that a node has written."""

    def picture(self) -> BytesImage:
        """Draw the map, or the first GeoTIFF of the folder."""
        from a2mae.report.previews import raster_picture

        return raster_picture(min(self._filepath.glob("*.tif")) if self._filepath.is_dir() else self._filepath)


class _StoreDataset(AbstractDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """An image-set store, local or remote."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Name the store.

        Args:
            filepath: Local folder or fsspec URL; who may read it is the environment's or the machine's.
            metadata: For kedro-viz and `dvc.yaml`; not read here.
        """
        self._filepath = filepath
        self.metadata = metadata

    def _open(self) -> ImageSetStore:
        from a2mae.stssd.store.store import ImageSetStore

        return ImageSetStore.open(self._filepath)

    def _exists(self) -> bool:
        try:
            self._open()
        except StoreError:
            return False
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}


class ImageSetStoreDataset(_Pictured, _StoreDataset[str, "ImageSetStore"]):
    """An image-set store: the node that builds it returns its manifest hash, readers get it opened."""

    def load(self) -> ImageSetStore:
        """Open the store."""
        return self._open()

    def save(self, data: str) -> None:
        """Compare the manifest hash that the builder returned with the store on disk.

        Raises:
            DatasetError: If the store is not the one that was built.
        """
        found = self._open().manifest_hash
        if found != data:
            raise DatasetError(
                f"{self._filepath} has manifest {found[:12]}, {data[:12]} was built: did another run write it?"
            )

    def picture(self) -> BytesImage:
        """Draw a contact sheet: a row per sensor, images from its first to its last."""
        from a2mae.report.previews import contact_sheet

        return contact_sheet(self._open())


class StoreUrlDataset(_StoreDataset[Never, str]):
    """The address of a store that need not exist yet: an absolute path, so that remote workers find it, or a URL."""

    def load(self) -> str:
        """Give the address."""
        return self._filepath

    def save(self, data: Never) -> None:
        """Raise a DatasetError: the store is saved as an `ImageSetStoreDataset`."""
        raise DatasetError(f"{self._filepath} is written by the stage that builds it, not as a dataset")


class ModelDirectory(_LocalDataset[Path, Path]):
    """A model directory (`config.json`, weights, metrics); nodes pass its path, never the weights."""

    def load(self) -> Path:
        """Give the directory's path.

        Raises:
            DatasetError: If there is no model in it.
        """
        if not self._exists():
            raise DatasetError(f"{self._filepath} holds no model (config.json is absent): run the stage that makes it")
        return self._filepath

    def save(self, data: Path) -> None:
        """Publish a finished model directory: readers see the old one or the new one, never half of it.

        Args:
            data: A model directory, anywhere; it is copied.
        """
        if not (data / "config.json").is_file():
            raise DatasetError(f"{data} is no model directory: config.json is absent")
        if data.resolve() == self._filepath.resolve():
            return
        with whole_folder(self._filepath) as partial:
            shutil.copytree(data, partial)

    def preview(self) -> JSONPreview:
        """Show the model's description and scores in kedro-viz."""
        files = [path for path in (self._filepath / "config.json", self._filepath / "metrics.json") if path.is_file()]
        return JSONPreview(json.dumps({path.name: json.loads(path.read_text("utf-8")) for path in files}))

    def _exists(self) -> bool:
        return (self._filepath / "config.json").is_file()


class TaskDataDataset(_WrittenDataset["TaskData"]):
    """A task data folder: the node that writes it returns its path, readers get it opened lazily."""

    def load(self) -> TaskData:
        """Open the folder."""
        from a2mae.tasks.datasets.task_data import TaskData

        return TaskData(self._filepath)

    def preview(self) -> JSONPreview:
        """Show classes, bands, splits and rules in kedro-viz."""
        return JSONPreview((self._filepath / "task.json").read_text("utf-8"))

    def _exists(self) -> bool:
        return (self._filepath / "task.json").is_file()


class TaskModelDataset(_LocalDataset["FinetuneRun", "Finetuned"]):
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
        """Show how it was made in kedro-viz."""
        return JSONPreview((self._filepath / "config.json").read_text("utf-8"))

    def _exists(self) -> bool:
        return (self._filepath / "model.safetensors").is_file()
