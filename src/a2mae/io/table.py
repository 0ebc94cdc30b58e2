"""A table as Parquet, or GeoParquet where it has geometries: whole or not there, the same bytes for the same rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

if TYPE_CHECKING:
    import pandas as pd


class TableDataset(AbstractDataset["pd.DataFrame", "pd.DataFrame"]):
    """A pandas or geopandas table on local disk."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Name the file.

        Args:
            filepath: Where it is; folders are made.
            metadata: For kedro-viz and `dvc.yaml`.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """The table; a GeoDataFrame where the file has geometries."""
        import pyarrow.parquet as pq  # noqa: PLC0415 (the registry stays light)

        if b"geo" in (pq.read_schema(self._filepath).metadata or {}):
            import geopandas as gpd  # noqa: PLC0415

            table: pd.DataFrame = gpd.read_parquet(self._filepath)
            return table
        import pandas as pd  # noqa: PLC0415

        return pd.read_parquet(self._filepath)

    def save(self, data: pd.DataFrame) -> None:
        """Write atomically."""
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._filepath.with_name(f".{self._filepath.name}.part")
        try:
            data.to_parquet(temporary)
            os.replace(temporary, self._filepath)
        finally:
            temporary.unlink(missing_ok=True)

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows for kedro-viz, geometries and long texts left out."""
        data = self.load().head(nrows)
        shown = data.drop(columns=["geometry", "assets"], errors="ignore").astype(str)
        return TablePreview(shown.to_dict(orient="split"))

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
