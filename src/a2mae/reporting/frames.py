"""Rows of a table as mappings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows, each a mapping from column to cell; what a cell holds is the table's schema (`stssd/tables.py`)."""
    return [{str(name): cell for name, cell in row.items()} for row in table.to_dict("records")]
