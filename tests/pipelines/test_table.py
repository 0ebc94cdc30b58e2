"""Tables keep their types on the way through a file, and lists do not become an object each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from a2mae.pipelines.datasets import TableDataset


def test_lists_of_arrow_stay_so_and_anybody_reads_the_file(tmp_path: Path) -> None:
    kind = pd.ArrowDtype(pa.list_(pa.float64()))
    frame = pd.DataFrame(
        {"name": ["a", "b"], "n": [1, 2], "lists": pd.Series([[1.5, 2.0], [np.pi, 4.0]], dtype=kind)},
    )
    dataset = TableDataset(filepath=str(tmp_path / "t.parquet"))
    dataset.save(frame)
    read = dataset.load()
    pd.testing.assert_frame_equal(read, frame)
    assert read["lists"].dtype == kind
    plain = pd.read_parquet(tmp_path / "t.parquet")
    assert plain["lists"].dtype == object
    np.testing.assert_array_equal(np.stack(plain["lists"].to_list()), [[1.5, 2.0], [np.pi, 4.0]])
    first = (tmp_path / "t.parquet").read_bytes()
    dataset.save(frame)
    assert (tmp_path / "t.parquet").read_bytes() == first
