"""Do two workers map, embed and cut an area in half the time, to the same bytes?

Each job is done by one worker and by two in turn, every time in a process of its own, with one thread in each worker;
the seconds are those of the job, the workers' start and imports included, not those of making its data:

    map     64 scenes (Sentinel-2, three bands) beside one another as a mosaic, by a ViT-T/16 with the default head
    embed   an archive of 64 places, its images listed again up to four files of the embedding store
    cuts    samples of 64 places and 144 dates with polygons of two classes, at most 128 to train on and 64 to test

Bytes are compared between all runs. What else runs on the machine decides the ratios: give it both cores.

Usage: python benchmarks/areas.py [--quick] [--rounds 1] [--jobs map embed cuts] [--depth 3]
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
import torch
from affine import Affine

from a2mae.explore.archive import Archive, embed_archive
from a2mae.models.checkpoint import load_encoder, read_config, save_pretrained
from a2mae.models.registry import create_model
from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import BandAsset, Scene, scenes_to_table
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.store.writer import SensorPlan, StoreWriter
from a2mae.tasks.datasets.inputs import plan_bands
from a2mae.tasks.datasets.sources import prepare
from a2mae.tasks.datasets.store_samples import Tables
from a2mae.tasks.datasets.task_data import TaskSpec
from a2mae.tasks.datasets.writer import write_source
from a2mae.tasks.finetune.finetuned import Finetuned, FinetuneRun, load_task_model, save_task_model
from a2mae.tasks.finetune.model import HeadConfig, TaskModel
from a2mae.tasks.inference.scenes import SceneRasters
from a2mae.tasks.inference.sources import MapSource
from a2mae.tasks.parameters import EmbedParameters, MapParameters, TaskParameters
from a2mae.tasks.registry import Task

JOBS = ("map", "embed", "cuts")
SENSOR = BUILTIN_SENSORS["sentinel-2-l2a"]
BANDS, RGB = ("red", "green", "blue"), ("B04", "B03", "B02")
CRS, LEFT, TOP = "EPSG:32633", 400_000.0, 5_600_000.0
SCENE_PX, STEP_PX = 416, 384
PLACES_A_SIDE, FOOTPRINT_PX, DATES = 8, 96, 2
FIRST_DAY = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def main() -> None:
    """Make the data, run every job by one and by two workers in turn, print a table and one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="9 scenes, fewer images, a model of one block")
    parser.add_argument("--rounds", type=int, default=1, help="of one and two workers")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    parser.add_argument("--depth", type=int, default=3, help="blocks of the ViT-T/16")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        (job,) = arguments.jobs
        print(json.dumps(run(job, Path(arguments.child), arguments)))
        return
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}\n")
    print("| job | one worker, s | two, s | times faster | bytes |\n|---|---|---|---|---|")
    results = {}
    with tempfile.TemporaryDirectory(prefix="a2mae-areas-") as name:
        folder = Path(name)
        write_models(folder, 1 if arguments.quick else arguments.depth)
        write_scenes(folder, 3 if arguments.quick else 8)
        write_archive(folder)
        for job in arguments.jobs:
            found = [
                [in_own_process(job, folder, workers, arguments) for workers in (1, 2)] for _ in range(arguments.rounds)
            ]
            one, two = (statistics.median(float(pair[side]["seconds"]) for pair in found) for side in (0, 1))
            same = len({str(side["digest"]) for pair in found for side in pair}) == 1
            print(f"| {job} | {one:.1f} | {two:.1f} | {one / two:.2f} | {'same' if same else 'DIFFER'} |", flush=True)
            results |= {f"{job}_s": one, f"{job}_two_s": two, f"{job}_times_faster": one / two, f"{job}_same": same}
    print("\nRESULT " + " ".join(f"{key}={float(value):.2f}" for key, value in results.items()))


def in_own_process(job: str, folder: Path, workers: int, arguments: argparse.Namespace) -> dict[str, object]:
    """Run a job by so many workers in a new process; seconds and the digest of what it wrote."""
    command = [sys.executable, __file__, "--child", str(folder), "--jobs", job, "--workers", str(workers)]
    command += ["--quick"] * arguments.quick
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(job: str, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Do a job here."""
    work = {"map": map_scenes, "embed": embed_places, "cuts": cut_places}[job]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        out = Path(name)
        seconds = work(folder, out, arguments)
        digest = hashlib.sha256()
        for path in sorted(path for path in out.rglob("*") if path.is_file()):
            digest.update(str(path.relative_to(out)).encode() + path.read_bytes())
    return {"seconds": seconds, "digest": digest.hexdigest()}


def map_scenes(folder: Path, out: Path, arguments: argparse.Namespace) -> float:
    """Map all scenes as one mosaic."""
    table = gpd.read_parquet(folder / "scenes.parquet")
    tile = 48 if arguments.quick else 96  # enough rows of windows for two workers
    windows = {"tile_px": tile, "overlap_px": tile // 3}
    options = MapParameters.model_validate({"scene_ids": table["scene_id"].tolist(), **windows})
    crew = TaskParameters(task=Task.SEGMENT, workers=arguments.workers)
    scenes = SceneRasters(table, {}, RemoteAccess(), None)
    source = MapSource(options, "cpu", 1, load_task_model(folder / "task"), scenes, precision="32-true", workers=crew)
    began = time.perf_counter()
    source.write(out / "map.tif", out / "confidence.tif")
    return time.perf_counter() - began


def embed_places(folder: Path, out: Path, arguments: argparse.Namespace) -> float:
    """Embed every image and set of the archive."""
    tables = archive_of(folder, dates=128 if arguments.quick else 256)  # two files, or four
    options = EmbedParameters(
        device="cpu", threads=1, workers=arguments.workers, bands=BANDS, precision="32-true", batch_size=64
    )
    archive = Archive(tables.store, tables.images, gpd.GeoDataFrame(tables.sets))
    began = time.perf_counter()
    embed_archive(options, folder / "pretrained", archive, out / "store")
    return time.perf_counter() - began


def cut_places(folder: Path, out: Path, arguments: argparse.Namespace) -> float:
    """Cut and write samples where labels lie."""
    cut = {"chip_px": 32, "max_train": 128, "max_test": 64}
    options = TaskParameters.model_validate({
        "task": "segment", "workers": arguments.workers,
        "data": {"labels": str(folder / "labels.gpkg"), "archive": cut},
    })  # fmt: skip
    tables = archive_of(folder, dates=20 if arguments.quick else 144)
    began = time.perf_counter()
    write_source(out / "data", prepare(options, tables, None))
    return time.perf_counter() - began


def write_models(folder: Path, depth: int) -> None:
    """A pretrained model and a segmenter of ten classes, with random weights."""
    torch.manual_seed(0)
    network = create_model("a2mae_vit_tiny_patch16", depth=depth, decoder_dim=32, decoder_depth=1)
    statistics_of = {SENSOR.id: {band: [0.05, 0.03] for band in RGB}}
    pretrained = save_pretrained(network, folder / "pretrained", config={"normalization": statistics_of})
    plan = plan_bands(SENSOR, BANDS, statistics_of, bands_per_view=3)
    classes = tuple(f"class {number}" for number in range(10))
    spec = TaskSpec(Task.SEGMENT, "benchmark", classes, (), SENSOR.subset(BANDS).bands, SENSOR.encoding, 10.0)
    model = TaskModel(load_encoder(pretrained), HeadConfig(Task.SEGMENT, "rcf", len(classes))).eval()
    run = FinetuneRun(Finetuned(model, plan, spec), read_config(pretrained), "pretrained", {})
    save_task_model(folder / "task", run)


def write_scenes(folder: Path, side: int) -> None:
    """Scenes of which neighbours share some ground, a corner of each nodata; and their table."""
    rng, encoding, scenes = np.random.default_rng(0), SENSOR.encoding, []
    for row in range(side):
        for column in range(side):
            counts = rng.integers(1200, 2500, (3, SCENE_PX, SCENE_PX)).astype(np.uint16)
            counts[:, :24, :24] = 0
            affine = Affine(10, 0, LEFT + 10 * STEP_PX * column, 0, -10, TOP - 10 * STEP_PX * row)
            path = folder / f"scene-{row}-{column}.tif"
            with rasterio.open(
                path, "w", driver="GTiff", count=3, height=SCENE_PX, width=SCENE_PX, dtype="uint16", nodata=0, crs=CRS,
                transform=affine, tiled=True, blockxsize=256, blockysize=256, compress="ZSTD",
            ) as target:  # fmt: skip
                target.write(counts)
            assets = tuple(
                BandAsset(
                    band, str(path), number, encoding.scale, encoding.offset, 0, encoding.units, 10.0,
                    crs=CRS, shape=(SCENE_PX, SCENE_PX), transform=tuple(affine)[:6],
                )
                for number, band in enumerate(RGB, start=1)
            )  # fmt: skip
            west, north, side_m = affine.c, affine.f, 10 * SCENE_PX
            ground = (
                gpd.GeoSeries([shapely.box(west, north - side_m, west + side_m, north)], crs=CRS).to_crs(4326).iloc[0]
            )
            scenes.append(Scene(path.stem, SENSOR.id, FIRST_DAY, "", CRS, 10.0, ground, assets))
    scenes_to_table(scenes).to_parquet(folder / "scenes.parquet")


def write_archive(folder: Path) -> None:
    """Two images of every place, and two polygons on each."""
    places = PLACES_A_SIDE**2
    images, bands = places * DATES, len(SENSOR.bands)
    rng = np.random.default_rng(0)
    writer = StoreWriter.create(
        folder / "store.zarr", [SensorPlan(SENSOR, images, FOOTPRINT_PX, FOOTPRINT_PX)], fingerprint="benchmark"
    )
    for shard in writer.pending():
        shape = (shard.stop - shard.start, bands, FOOTPRINT_PX, FOOTPRINT_PX)
        writer.write(shard, rng.integers(1200, 2500, shape).astype(np.uint16), np.ones((shape[0], *shape[2:]), bool))
    writer.finish()
    rows = []
    for name, at in (("meadow", 100), ("wood", 500)):
        for place in locations().itertuples():
            x, y = place.x_m + at, place.y_m - at
            rows.append((name, shapely.box(x, y - 300, x + 300, y)))
    frame = gpd.GeoDataFrame({"class": [name for name, _ in rows]}, geometry=[shape for _, shape in rows], crs=CRS)
    frame.to_file(folder / "labels.gpkg")


def locations() -> pd.DataFrame:
    """The places: squares side by side."""
    side_m = FOOTPRINT_PX * 10.0
    numbers = range(PLACES_A_SIDE**2)
    return pd.DataFrame({
        "location_id": [f"place-{number:02d}" for number in numbers],
        "x_m": [LEFT + side_m * (number % PLACES_A_SIDE) for number in numbers],
        "y_m": [TOP - side_m * (number // PLACES_A_SIDE) for number in numbers],
        "footprint_m": side_m,
        "crs": CRS,
    })  # fmt: skip


def archive_of(folder: Path, *, dates: int) -> Tables:
    """The archive with every place's two images listed again for so many dates."""
    places = locations()
    squares = [
        shapely.box(place.x_m, place.y_m - place.footprint_m, place.x_m + place.footprint_m, place.y_m)
        for place in places.itertuples()
    ]
    grounds = gpd.GeoSeries(squares, crs=CRS).to_crs(4326)
    centres = grounds.geometry.representative_point()
    table = pd.DataFrame({
        "location_id": places["location_id"].repeat(dates).to_numpy(),
        "lon": np.repeat(centres.x.to_numpy(), dates), "lat": np.repeat(centres.y.to_numpy(), dates),
        "date": np.tile(np.arange(dates), len(places)),
        "row": np.repeat(np.arange(len(places)) * DATES, dates) + np.tile(np.arange(dates) % DATES, len(places)),
    })  # fmt: skip
    table = table.assign(
        image_id=table["location_id"] + "-" + table["date"].astype(str),
        scene_id="scene-" + table["date"].astype(str),
        set_id=table["location_id"], sensor=SENSOR.id, gsd_m=10.0,
        datetime=[FIRST_DAY + dt.timedelta(days=int(date)) for date in table["date"]],
        shift_x_m=0.0, shift_y_m=0.0, valid_fraction=1.0, dark_value=0.0, bright_value=1.0,
        is_reference=table["date"] == 0, registration="registered",
    )  # fmt: skip
    splits = ["train" if number % 4 else "test" for number in range(len(places))]
    sets = gpd.GeoDataFrame({"set_id": places["location_id"], "split": splits}, geometry=grounds.array, crs=4326)
    return Tables(ImageSetStore.open(str(folder / "store.zarr")), table, sets, places)


if __name__ == "__main__":
    main()
