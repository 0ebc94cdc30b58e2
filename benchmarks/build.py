"""How fast image sets are built: 100 footprints x 4 chips, beside what else one would read them with.

Two Sentinel-2 dates (12 bands, 10 m) and two Landsat dates (7 bands, 30 m, delivered in the neighbouring UTM zone)
on simulated scenes. All sides take turns; medians are reported. Sides:

    floor       bare rasterio, files kept open, bilinear, nothing masked, registered or written
    reopened    the same, every file opened anew for every chip
    zarr        the floor, written to sharded Zarr arrays
    torchgeo    RasterDatasets on the footprint's grid, in memory (where installed)
    odc_stac    odc.stac.load per footprint (where installed; a few footprints, scaled up)
    ours_1/_2   scenes and locations to registered sets: masks, registration, store, tables, band statistics

Memory is the largest resident size of a process: ten times the sets on the same scenes, at closer spacing, of the
building process and of the largest of its workers.

    python benchmarks/build.py --quick
    python benchmarks/build.py --memory
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
import zarr
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject, transform_bounds
from rasterio.windows import Window, from_bounds

from a2mae.scenes import Scene, scenes_from_table
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.simulate.parameters import AcquisitionParameters, RegionParameters, SimulateParameters
from a2mae.simulate.run import simulate
from a2mae.stssd.ingest.ingest import Ingested, ingest
from a2mae.stssd.ingest.parameters import IngestParameters

SIDE_M = 1920.0
S2, LANDSAT = "sentinel-2-l2a", "landsat-oli-c2-l2"
Chips = Callable[[Scene, np.ndarray], None]


def world(folder: Path, side: int) -> None:
    """One region of side x side footprints west of a zone border, Landsat delivered in the zone east of it."""
    before, after = AcquisitionParameters(period="before"), AcquisitionParameters(period="after")
    region = RegionParameters(name="jura", lon=5.6, lat=46.8, biome="alpine_foreland", footprints=side, landsat_zone=32)
    acquisitions = {
        S2: (before, after.model_copy(update={"cloud": 0.05})),
        LANDSAT: (before.model_copy(update={"cloud": 0.05}), after),
    }
    simulate(SimulateParameters(workers=1, regions=(region,), acquisitions=acquisitions), folder)


def tables(folder: Path, *, limit: int, spacing_m: float | None = None) -> Ingested:
    """Scene and location tables of the world."""
    settings = {"footprint_m": SIDE_M, "min_scenes": 4, "max_locations": limit, "spacing_m": spacing_m}
    return ingest(IngestParameters(locations=settings), simulated_catalog=folder / "catalog.json")


def bare(found: Ingested, *, keep: bool, sink: Chips | None = None) -> None:
    """Every band of every scene at every footprint on the footprint's grid, by rasterio alone."""
    handles: dict[str, rasterio.DatasetReader] = {}

    def handle(href: str) -> rasterio.DatasetReader:
        if keep and href in handles:
            return handles[href]
        if href in handles:
            handles[href].close()
        handles[href] = rasterio.open(href)
        return handles[href]

    scenes = scenes_from_table(found.scenes)
    with rasterio.Env(GDAL_CACHEMAX=128 * 2**20):
        for place in found.locations.itertuples():
            bounds = (place.x_m, place.y_m - SIDE_M, place.x_m + SIDE_M, place.y_m)
            for scene in scenes:
                sensor = BUILTIN_SENSORS[scene.sensor]
                pixels = round(SIDE_M / sensor.gsd_m)
                chip = np.empty((len(scene.bands), pixels, pixels), "uint16")
                files = [handle(asset.href) for asset in scene.bands]
                if scene.sensor == S2:
                    for file, band in zip(files, chip, strict=True):
                        window = from_bounds(*bounds, transform=file.transform).round_offsets().round_lengths()
                        if file.transform.a == sensor.gsd_m:
                            file.read(1, window=window, out=band)
                        else:
                            file.read(1, window=window, out=band, resampling=Resampling.bilinear)
                else:
                    first = files[0]
                    there = from_bounds(*transform_bounds(place.crs, first.crs, *bounds), transform=first.transform)
                    window = Window(
                        int(there.col_off) - 2, int(there.row_off) - 2, int(there.width) + 5, int(there.height) + 5
                    )
                    source = np.stack([file.read(1, window=window) for file in files])
                    reproject(
                        source, chip, src_transform=first.window_transform(window), src_crs=first.crs,
                        dst_transform=Affine(sensor.gsd_m, 0, place.x_m, 0, -sensor.gsd_m, place.y_m),
                        dst_crs=place.crs, resampling=Resampling.bilinear,
                    )  # fmt: skip
                if sink is not None:
                    sink(scene, chip)
    for file in handles.values():
        file.close()


def with_zarr(found: Ingested, out: Path) -> None:
    """The floor, and its chips into one sharded array per sensor, a shard at a time."""
    shutil.rmtree(out, ignore_errors=True)
    waiting: dict[str, list[np.ndarray]] = {S2: [], LANDSAT: []}
    arrays, done = {}, dict.fromkeys(waiting, 0)
    count = 2 * len(found.locations)

    def flush(sensor: str) -> None:
        chips = np.stack(waiting[sensor])
        if sensor not in arrays:
            shape = chips.shape[1:]
            arrays[sensor] = zarr.create_array(
                str(out / sensor), shape=(count, *shape), chunks=(1, *shape), shards=(32, *shape), dtype="uint16"
            )
        arrays[sensor][done[sensor] : done[sensor] + len(chips)] = chips
        done[sensor] += len(chips)
        waiting[sensor].clear()

    def sink(scene: Scene, chip: np.ndarray) -> None:
        waiting[scene.sensor].append(chip)
        if len(waiting[scene.sensor]) == 32:
            flush(scene.sensor)

    bare(found, keep=True, sink=sink)
    for sensor, left in waiting.items():
        if left:
            flush(sensor)


def by_torchgeo(found: Ingested) -> None:
    """A RasterDataset per sensor and date, all bands, sampled at every footprint."""
    from torchgeo.datasets import RasterDataset  # noqa: PLC0415

    places = list(found.locations.itertuples())
    for scene in scenes_from_table(found.scenes):
        sensor = BUILTIN_SENSORS[scene.sensor]
        sets = []
        for asset in scene.bands:
            one = RasterDataset([asset.href], crs=rasterio.crs.CRS.from_string(places[0].crs), res=sensor.gsd_m)
            sets.append(one)
        for place in places:
            query = slice(place.x_m, place.x_m + SIDE_M), slice(place.y_m - SIDE_M, place.y_m)
            chips = [one[query]["image"] for one in sets]
            assert len(chips) == len(scene.bands)


def by_odc_stac(found: Ingested, folder: Path, count: int) -> None:
    """odc.stac.load with the footprint's own grid, item by item."""
    import odc.stac  # noqa: PLC0415
    import pystac  # noqa: PLC0415
    from odc.geo.geobox import GeoBox  # noqa: PLC0415

    items = list(pystac.Catalog.from_file(str(folder / "catalog.json")).get_items(recursive=True))
    for place in list(found.locations.itertuples())[:count]:
        for item in items:
            sensor = BUILTIN_SENSORS[S2 if item.collection_id == S2 else LANDSAT]
            pixels = round(SIDE_M / sensor.gsd_m)
            affine = Affine(sensor.gsd_m, 0, place.x_m, 0, -sensor.gsd_m, place.y_m)
            bands = [name for name, asset in item.assets.items() if "data" in (asset.roles or ())]
            odc.stac.load([item], bands=bands, geobox=GeoBox((pixels, pixels), affine, place.crs)).load()


def ours(folder: Path, workers: int, *, limit: int, spacing_m: float | None = None) -> dict[str, float]:
    """Build in a process of its own: seconds from tables to statistics, and peaks of the processes."""
    command = [sys.executable, __file__, "--child", str(folder), "--workers", str(workers), "--limit", str(limit)]
    if spacing_m:
        command += ["--spacing", str(spacing_m)]
    peaks: dict[int, float] = {}
    seconds: dict[int, float] = {}
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=told, stderr=errors, start_new_session=True) as process:
            while process.poll() is None:
                look_at_workers(process.pid, peaks, seconds)
                time.sleep(0.2)
        for file in (told, errors):
            file.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{errors.read()}")
        row: dict[str, float] = json.loads(told.read().splitlines()[-1])
    row["cpu"] += sum(seconds.values())
    return row | {"worker_mib": max(peaks.values(), default=0.0)}


def look_at_workers(session: int, peaks: dict[int, float], seconds: dict[int, float]) -> None:
    """Note size (VmHWM, MiB) and processor seconds of the session's processes but its first; by Linux' own account."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(session):
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != session:
                continue
            seconds[int(entry.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            lines = (entry / "status").read_text().splitlines()
        except (OSError, IndexError):
            continue  # it has just ended
        for line in lines:
            if line.startswith("VmHWM:"):
                peaks[int(entry.name)] = max(peaks.get(int(entry.name), 0.0), int(line.split()[1]) / 1024)


def own_peak_mib() -> float:
    """Largest resident size of this process; `getrusage` would give the parent's where that was larger."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def child(folder: Path, workers: int, limit: int, spacing_m: float | None) -> None:
    """What `ours` starts: prints one line of JSON."""
    from a2mae.scenes import sensors_from_json  # noqa: PLC0415
    from a2mae.stssd.coregister.build import build  # noqa: PLC0415
    from a2mae.stssd.parameters import CoregisterParameters  # noqa: PLC0415
    from a2mae.stssd.store.store import ImageSetStore  # noqa: PLC0415
    from a2mae.stssd.tag.statistics import measure  # noqa: PLC0415

    found = tables(folder, limit=limit, spacing_m=spacing_m)
    recipe = {"sources": [{"sensors": ["sentinel-2-*"]}, {"sensors": ["landsat-*"]}]}
    parameters = CoregisterParameters(recipes={"grid": recipe}, workers=workers)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        start, cpu = time.perf_counter(), os.times()
        built = build(found.scenes, found.locations, sensors_from_json(found.sensors), parameters, f"{out}/s.zarr")
        measure(ImageSetStore.open(f"{out}/s.zarr"), built.images, workers=workers)
        seconds, after = time.perf_counter() - start, os.times()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": sum(after[:4]) - sum(cpu[:4]),
                "peak_mib": own_peak_mib(),
                "sets": int(built.images["set_id"].nunique()),
                "images": len(built.images),
                "registered": float((built.images["registration"] != "nominal").mean()),
            }
        )
    )


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    start, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    """Simulate, run all sides in turn, print the table and one line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--quick", action="store_true", help="9 footprints, one turn, no memory run at ten times the sets"
    )
    options.add_argument("--memory", action="store_true", help="only the runs at ten times the sets (and at one)")
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--world", type=Path, help="keep the simulated scenes here and use them again")
    options.add_argument("--sides", nargs="+", help="only these (and floor, ours_1, ours_2)")
    options.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    options.add_argument("--limit", type=int, default=100, help=argparse.SUPPRESS)
    options.add_argument("--spacing", type=float, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.child:
        child(arguments.child, arguments.workers, arguments.limit, arguments.spacing)
        return
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},"
        f" rasterio {rasterio.__version__} (GDAL {rasterio.__gdal_version__}), zarr {zarr.__version__},"
        f" NumPy {np.__version__}"
    )
    side, turns = (3, 1) if arguments.quick else (10, arguments.turns)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.world or Path(temporary)
        if not (folder / "catalog.json").exists():
            world(folder, side)
        if arguments.memory:
            told(more_sets(folder, side * side))
            return
        compare(folder, side * side, turns, quick=arguments.quick, only=arguments.sides)


def compare(folder: Path, count: int, turns: int, *, quick: bool, only: list[str] | None = None) -> None:
    """All sides on one world."""
    found = tables(folder, limit=count)
    few = 2 if quick else 4
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        "floor": lambda: timed(lambda: bare(found, keep=True)),
        "reopened": lambda: timed(lambda: bare(found, keep=False)),
        "zarr": lambda: timed(lambda: with_zarr(found, folder / "plain.zarr")),
    }
    if importlib.util.find_spec("torchgeo"):
        sides["torchgeo"] = lambda: timed(lambda: by_torchgeo(found))
    if importlib.util.find_spec("odc.stac"):
        scale = len(found.locations) / few
        sides["odc_stac"] = lambda: tuple(scale * t for t in timed(lambda: by_odc_stac(found, folder, few)))  # type: ignore[assignment,return-value]
    if only:
        sides = {name: side for name, side in sides.items() if name in {"floor", *only}}
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in (*sides, "ours_1", "ours_2")}
    for _ in range(turns):
        for name, side in sides.items():
            results[name].append(side())
        for workers in (1, 2):
            built = ours(folder, workers, limit=count)
            results[f"ours_{workers}"].append((built["seconds"], built["cpu"]))
    shutil.rmtree(folder / "plain.zarr", ignore_errors=True)
    medians = {
        name: [statistics.median(column) for column in zip(*values, strict=True)] for name, values in results.items()
    }
    print(f"\n{len(found.locations)} footprints x 4 chips, {turns} turns; ours: {built['images']} images in"
          f" {built['sets']} sets, {built['registered']:.0%} registered\n")  # fmt: skip
    print("| side | seconds | processor seconds | x floor | x floor (processor) |\n|---|---|---|---|---|")
    floor = medians["floor"]
    for name, (wall, cpu) in medians.items():
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {wall / floor[0]:.2f} | {cpu / floor[1]:.2f} |")
    line = {
        "footprints": len(found.locations),
        "floor_s": floor[0],
        "ours_s": medians["ours_1"][0],
        "ratio": medians["ours_1"][0] / floor[0],
        "ratio_cpu": medians["ours_1"][1] / floor[1],
    }
    line["speedup_2_floors"] = both_cores(folder, count, turns)
    line["speedup_2_workers_small"] = medians["ours_1"][0] / medians["ours_2"][0]
    told(line | ({} if quick else more_sets(folder, count)))


def both_cores(folder: Path, count: int, turns: int) -> float:
    """How much two processes that share nothing gain on this machine: floors at once against floors in turn."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(floor_seconds, [folder] * 2, [count] * 2))  # not timed: imports, the files' first reading
        gains = []
        for _ in range(turns):
            alone = pool.submit(floor_seconds, folder, count).result()
            together = list(pool.map(floor_seconds, [folder] * 2, [count] * 2))
            gains.append(2 * alone / max(together))
    return statistics.median(gains)


def floor_seconds(folder: Path, count: int) -> float:
    """Three floors, in a process of its own."""
    found = tables(folder, limit=count)
    return timed(lambda: [bare(found, keep=True) for _ in range(3)])[0]


def more_sets(folder: Path, count: int) -> dict[str, float]:
    """Ten times the sets on the same scenes, with one worker and with two: the table of memory, and its ratios."""
    few = [ours(folder, workers, limit=count) for workers in (1, 2)]
    many = [ours(folder, workers, limit=10 * count, spacing_m=576.0) for workers in (1, 2)]
    print(
        "\n| sets | workers | seconds | processor seconds | peak MiB | largest worker MiB |\n|---|---|---|---|---|---|"
    )
    for workers, row in ((1, few[0]), (2, few[1]), (1, many[0]), (2, many[1])):
        print(
            f"| {row['sets']} | {workers} | {row['seconds']:.1f} | {row['cpu']:.1f} | {row['peak_mib']:.0f}"
            f" | {row['worker_mib']:.0f} |"
        )
    return {
        "sets_ratio": many[0]["sets"] / few[0]["sets"],
        "memory_ratio": many[0]["peak_mib"] / few[0]["peak_mib"],
        "memory_ratio_parent_of_2": many[1]["peak_mib"] / few[1]["peak_mib"],
        "memory_ratio_workers": many[1]["worker_mib"] / few[1]["worker_mib"],
        "speedup_2_workers_large": many[0]["seconds"] / many[1]["seconds"],
    }


def told(line: dict[str, float]) -> None:
    """The last line, for other tools."""
    print("\nRESULT " + " ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in line.items()))


if __name__ == "__main__":
    main()
