"""Kedro datasets of one file, one folder or one path on local disk: there whole or not at all.

Where a catalog's datasets lie, as DVC and the lineage records see it.

What every dataset of a path on local disk shares.

What every dataset of one file on local disk shares: it is there whole or not at all.

A folder as a dataset: nodes that need files beside a dataset get its path, wherever the environment puts it.

A JSON file that is there whole or not at all.

Datasets for one HTML page and one Markdown page.

A dataset for one PNG, shown by kedro-viz.

A table as Parquet, or GeoParquet where it has geometries: whole or not there, the same bytes for the same rows.
"""

from __future__ import annotations

import base64
import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar

from kedro.io import AbstractDataset, DataCatalog, DatasetError
from kedro_datasets._typing import ImagePreview, JSONPreview, TablePreview

from a2mae.files import json_text, whole_file

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Tracked:
    """A dataset on disk.

    Attributes:
        path: As the catalog has it, or the folder that its `metadata: dvc: out:` names.
        filepath: As the catalog has it.
        notes: Its `metadata: dvc:`.
    """

    path: str
    filepath: str
    notes: Mapping[str, object]


def tracked(catalog: DataCatalog, dataset: str) -> Tracked | None:
    """What is tracked of a dataset; None for parameters, what stays in memory, and what another entry tracks."""
    if dataset.startswith("params:") or dataset == "parameters":
        return None
    config = catalog.config_resolver.resolve_pattern(dataset)
    path = config.get("filepath") or config.get("path")
    notes = (config.get("metadata") or {}).get("dvc", {})
    if path is None or notes.get("kind") == "untracked":
        return None
    return Tracked(str(notes.get("out", path)), str(path), notes)


Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")


class PathDataset(AbstractDataset[Saved, Loaded], Generic[Saved, Loaded]):
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


Value = TypeVar("Value")


class OneFileDataset(PathDataset[Value, Value], Generic[Value]):
    """A file on local disk; a subclass says how a value is read and written."""

    def load(self) -> Value:
        """The file's content."""
        return self._read(self._filepath)

    def save(self, data: Value) -> None:
        """Write atomically."""
        with whole_file(self._filepath) as temporary:
            self._write(data, temporary)

    @abstractmethod
    def _read(self, path: Path) -> Value:
        """The value that the file holds."""

    @abstractmethod
    def _write(self, value: Value, path: Path) -> None:
        """Write the value into a new file."""

    def _exists(self) -> bool:
        return self._filepath.is_file()


class FolderDataset(AbstractDataset[Never, Path]):
    """Gives a folder's path, relative to the project's root where it lies below it; it is never written."""

    def __init__(self, *, filepath: str, metadata: dict[str, object] | None = None) -> None:
        """Name the folder.

        Args:
            filepath: The folder.
            metadata: For kedro-viz.
        """
        self._filepath = filepath
        self.metadata = metadata

    def load(self) -> Path:
        """The folder's path; it need not exist."""
        relative = os.path.relpath(self._filepath)
        return Path(self._filepath if relative.startswith(os.pardir) else relative)

    def save(self, data: Never) -> None:
        """Refuse: what lies in the folder is written by the datasets that own it.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError(f"the folder {self._filepath} is not written as a dataset")

    def _exists(self) -> bool:
        return Path(self._filepath).is_dir()

    def _describe(self) -> dict[str, object]:
        return {"filepath": self._filepath}


class JSONFileDataset(OneFileDataset[Any]):
    """JSON with sorted keys: one content, one sequence of bytes."""

    def _read(self, path: Path) -> Any:  # noqa: ANN401 (whatever JSON holds)
        return json.loads(path.read_text("utf-8"))

    def _write(self, value: Any, path: Path) -> None:  # noqa: ANN401
        path.write_text(json_text(value, allow_nan=True), "utf-8")

    def preview(self) -> JSONPreview:
        """The content for kedro-viz."""
        return JSONPreview(self._filepath.read_text("utf-8"))


class HtmlPageDataset(OneFileDataset[str]):
    """UTF-8 HTML, whatever the machine's locale."""

    def _read(self, path: Path) -> str:
        return path.read_text("utf-8")

    def _write(self, value: str, path: Path) -> None:
        path.write_text(value, "utf-8")


class MarkdownDataset(HtmlPageDataset):
    """UTF-8 Markdown."""


class PictureDataset(OneFileDataset[bytes]):
    """The bytes of a PNG."""

    def _read(self, path: Path) -> bytes:
        return path.read_bytes()

    def _write(self, value: bytes, path: Path) -> None:
        path.write_bytes(value)

    def preview(self) -> ImagePreview:
        """The picture itself."""
        return ImagePreview(base64.b64encode(self.load()).decode("ascii"))


_ARROW_LISTS = b"a2mae.arrow_lists"
"""Marks a file whose lists were Arrow's: read as such here, and as objects by whoever else reads it."""


class TableDataset(OneFileDataset["pd.DataFrame"]):
    """A pandas or geopandas table; lists of `pandas.ArrowDtype` stay so."""

    def _read(self, path: Path) -> pd.DataFrame:
        """A GeoDataFrame where the file has geometries."""
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
        """The first rows for kedro-viz, geometries and long texts left out."""
        data = self.load().head(nrows)
        shown = data.drop(columns=["geometry", "assets"], errors="ignore").astype(str)
        return TablePreview(shown.to_dict(orient="split"))
