"""A table as Parquet, or GeoParquet where it has geometries: whole or not there, the same bytes for the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from kedro_datasets._typing import TablePreview

from a2mae.io.one_file import OneFileDataset

if TYPE_CHECKING:
    import pandas as pd


_ARROW_LISTS = b"a2mae.arrow_lists"
"""Marks a file whose lists were Arrow's: read as such here, and as objects by whoever else reads it."""


class TableDataset(OneFileDataset["pd.DataFrame"]):
    """A pandas or geopandas table; lists of `pandas.ArrowDtype` stay so."""

    def _read(self, path: Path) -> pd.DataFrame:
        """A GeoDataFrame where the file has geometries."""
        import pyarrow.parquet as pq  # noqa: PLC0415 (the registry stays light)

        schema = pq.read_schema(path)
        if b"geo" in (schema.metadata or {}):
            import geopandas as gpd  # noqa: PLC0415

            table: pd.DataFrame = gpd.read_parquet(path)
            return table
        import pandas as pd  # noqa: PLC0415
        import pyarrow as pa  # noqa: PLC0415

        if _ARROW_LISTS in (schema.metadata or {}):
            frame: pd.DataFrame = pq.read_table(path).to_pandas(
                types_mapper=lambda kind: pd.ArrowDtype(kind) if pa.types.is_list(kind) else None
            )
            return frame
        return pd.read_parquet(path)

    def _write(self, value: pd.DataFrame, path: Path) -> None:
        import pandas as pd  # noqa: PLC0415

        lists = {name for name, kind in value.dtypes.items() if isinstance(kind, pd.ArrowDtype)}
        if not lists:
            value.to_parquet(path)
            return
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415

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
