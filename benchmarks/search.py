"""How long a search over many vectors takes: `python benchmarks/search.py`.

Asked for: one million vectors of 192 dimensions within 5 s on two cores. `--quick` takes 200,000.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import shapely

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from a2mae.explore.search import Searcher
from a2mae.explore.store import StoreAbout, begin_store

DIMENSIONS = 192
_PART = 65_536


def write_store(folder: Path, count: int, dtype: str) -> None:
    """Write vectors of places spread over a continent."""
    rng = np.random.default_rng(0)
    store = begin_store(folder, StoreAbout("0" * 64, DIMENSIONS, dtype, "mean", ("red", "green", "blue"), False, 192))
    moment = dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC)
    for first in range(0, count, _PART):
        size = min(_PART, count - first)
        lon, lat = rng.uniform(-10, 40, size), rng.uniform(35, 70, size)
        ids = [f"image-{first + number}" for number in range(size)]
        rows = {
            "id": ids, "level": ["image"] * size, "set_id": ids, "location_id": ids, "sensor": ["s2"] * size,
            "datetime": [moment] * size, "split": ["train"] * size, "lon": lon, "lat": lat, "content": ids,
        }  # fmt: skip
        vectors = rng.standard_normal((size, DIMENSIONS), np.float32) + 2
        store.add(rows, shapely.to_wkb(shapely.box(lon, lat, lon + 0.02, lat + 0.02)).tolist(), vectors)


def main() -> None:
    """Print how long the first search takes, and how long the next one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200,000 vectors")
    count = 200_000 if parser.parse_args().quick else 1_000_000
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}, {count:,} vectors of {DIMENSIONS}")
    result = [f"count={count}"]
    for dtype in ("float16", "int8"):
        with tempfile.TemporaryDirectory() as out:
            write_store(Path(out), count, dtype)
            store = begin_store(
                Path(out), StoreAbout("0" * 64, DIMENSIONS, dtype, "mean", ("red", "green", "blue"), False, 192)
            )
            size = sum(path.stat().st_size for path in store.parts()) / 1e6
            examples = store.take("image", [1, count // 2, count - 1])
            began, cpu = time.perf_counter(), time.process_time()
            found = Searcher(store, "image").similar(examples, top=50, exclude_m=10_000)
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        assert len(found.number) == 50
        print(f"{dtype:8} {took:6.2f} s ({cpu:.2f} CPU s)  peak {peak:.0f} MB  store {size:.0f} MB", flush=True)
        result.append(f"{dtype}_s={took:.2f} {dtype}_cpu_s={cpu:.2f} {dtype}_peak_mb={peak:.0f}")
    print("RESULT", *result)


if __name__ == "__main__":
    main()
