"""A table as Parquet, or GeoParquet where it has geometries: whole or not there, the same bytes for the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kedro_datasets._typing import TablePreview

from a2mae.io.one_file import OneFileDataset

if TYPE_CHECKING:
    import pandas as pd


class TableDataset(OneFileDataset["pd.DataFrame"]):
    """A pandas or geopandas table."""

    def _read(self, path: Path) -> pd.DataFrame:
        """A GeoDataFrame where the file has geometries."""
        import pyarrow.parquet as pq  # noqa: PLC0415 (the registry stays light)

        if b"geo" in (pq.read_schema(path).metadata or {}):
            import geopandas as gpd  # noqa: PLC0415

            table: pd.DataFrame = gpd.read_parquet(path)
            return table
        import pandas as pd  # noqa: PLC0415

        return pd.read_parquet(path)

    def _write(self, value: pd.DataFrame, path: Path) -> None:
        value.to_parquet(path)

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows for kedro-viz, geometries and long texts left out."""
        data = self.load().head(nrows)
        shown = data.drop(columns=["geometry", "assets"], errors="ignore").astype(str)
        return TablePreview(shown.to_dict(orient="split"))
