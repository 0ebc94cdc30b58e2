"""A build in a process of its own, for tests that kill it: `python build_runs.py WORLD OUT WORKERS [DASK]`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

RECIPES = {"grid": {"sources": [{"sensors": ["sentinel-2-*"]}, {"sensors": ["landsat-*"]}]}}


def start(world: Path, out: Path, *, workers: int, dask: str = "") -> subprocess.Popen[bytes]:
    """Begin (or go on with) a build of a simulated world into `out`; its own group, so that it can be killed whole."""
    return subprocess.Popen(
        [sys.executable, __file__, str(world), str(out), str(workers), dask],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def digests(out: Path) -> dict[str, str]:
    """sha256 of every file of the store and of the tables."""
    files = [*(out / "stssd.zarr").rglob("*"), out / "images.parquet", out / "rejected.parquet"]
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}


def main(world: Path, out: Path, workers: int, dask: str) -> None:
    from a2mae.scenes import sensors_from_json
    from a2mae.stssd.coregister.build import build
    from a2mae.stssd.ingest.ingest import ingest
    from a2mae.stssd.ingest.parameters import IngestParameters
    from a2mae.stssd.parameters import CoregisterParameters

    found = ingest(IngestParameters(locations={"footprint_m": 1920.0}), simulated_catalog=world / "catalog.json")
    parameters = CoregisterParameters(
        recipes=RECIPES, workers=workers, dask_scheduler=dask or None, locations_per_task=1
    )
    tables = build(found.scenes, found.locations, sensors_from_json(found.sensors), parameters, str(out / "stssd.zarr"))
    tables.images.to_parquet(out / "images.parquet")
    tables.rejected.to_parquet(out / "rejected.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
