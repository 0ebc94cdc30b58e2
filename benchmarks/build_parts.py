"""Where the time of a build goes: processor seconds of its parts, each without the parts that it calls.

On the scenes of build.py, one process, beside the floor: bare rasterio with files kept open and nothing written.

    python benchmarks/build_parts.py --quick
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from a2mae.raster import read as rasters
from a2mae.raster import warp
from a2mae.registration import pairs as matching
from a2mae.remote.verify import Verifier
from a2mae.scenes import sensors_from_json
from a2mae.stssd.coregister import build as building
from a2mae.stssd.coregister import survey
from a2mae.stssd.coregister import work as build_tasks
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.store.writer import StoreWriter
from a2mae.stssd.tag import statistics

REST = "around them"
PARTS: tuple[tuple[str, Any, str], ...] = (
    ("reading windows and scaling", rasters.RasterReader, "_window"),
    ("open files, checksums", rasters.RasterReader, "_file"),
    ("open files, checksums", Verifier, "check"),
    ("resampling", rasters, "find_map"),
    ("resampling", rasters, "resample"),
    ("cloud masks, dark pixels", warp, "_classes"),
    ("cloud masks, dark pixels", warp, "grow"),
    ("cloud masks, dark pixels", survey, "_range_of"),
    ("registration: orientation fields", matching, "structure"),
    ("registration: correlation", matching, "match"),
    ("encoding", build_tasks, "encode"),
    ("writing", StoreWriter, "write"),
    ("statistics", statistics, "measure"),
)


class Stopwatch:
    """Processor seconds by part; whoever is called stops the clock of the caller."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._running, self._since = [REST], time.process_time()

    def turn(self, part: str | None) -> None:
        """Begin a part, or end the one that runs."""
        now = time.process_time()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now
        if part is None:
            self._running.pop()
        else:
            self._running.append(part)
            self.calls[part] += 1

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: object, **kwargs: object) -> object:
            self.turn(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.turn(None)

        return timed


def main() -> None:
    """Build once with a stopwatch at every part, between two runs of the floor."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="9 footprints instead of 100")
    options.add_argument("--world", type=Path, help="keep the simulated scenes here and use them again")
    arguments = options.parse_args()
    from build import tables, world  # noqa: PLC0415 (beside this script)

    side = 3 if arguments.quick else 10
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.world or Path(temporary)
        if not (folder / "catalog.json").exists():
            world(folder, side)
        found = tables(folder, limit=side * side)
        recipe = {"sources": [{"sensors": ["sentinel-2-*"]}, {"sensors": ["landsat-*"]}]}
        parameters = CoregisterParameters(recipes={"grid": recipe}, workers=1)
        sensors = sensors_from_json(found.sensors)
        floors = [floor(found)]
        watch = Stopwatch()
        for part, owner, name in PARTS:
            setattr(owner, name, watch.around(part, getattr(owner, name)))
        with tempfile.TemporaryDirectory() as out:
            watch.turn(REST)
            built = building.build(found.scenes, found.locations, sensors, parameters, f"{out}/stssd.zarr")
            statistics.measure(ImageSetStore.open(f"{out}/stssd.zarr"), built.images, workers=1)
            watch.turn(None)
        floors.append(floor(found))
    whole, least = sum(watch.seconds.values()), sum(floors) / 2
    print(f"{len(found.locations)} footprints x 4 chips, floor {floors[0]:.2f} and {floors[1]:.2f} processor seconds\n")
    print("| part | calls | processor seconds | share |\n|---|---|---|---|")
    for part, seconds in watch.seconds.most_common():
        print(f"| {part} | {watch.calls[part] if part != REST else '–'} | {seconds:.2f} | {seconds / whole:.0%} |")
    print(f"\nRESULT seconds={whole:.3f} floor={least:.3f} ratio={whole / least:.3f}")


def floor(found: Any) -> float:  # noqa: ANN401 (build.py's)
    """Processor seconds of bare rasterio."""
    from build import bare  # noqa: PLC0415

    start = time.process_time()
    bare(found, keep=True)
    return time.process_time() - start


if __name__ == "__main__":
    main()
