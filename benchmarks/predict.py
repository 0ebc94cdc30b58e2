"""Whole rasters through a model: time and peak memory of class maps, change maps and embeddings, by raster size.

Every side is a process of its own, so that its peak resident memory is its own. The rasters are three-band uint16
GeoTIFFs with a tenth of nodata; the models are small ViTs with random weights: speed and memory do not depend on them.

With `--against CHECKOUT` (a git worktree of an older commit) every side is followed by the same of that code, by its
own script and its own defaults, on the same raster; heads are ours to choose, older scripts have `conv`.

Usage: python benchmarks/predict.py [--quick] [--sides 2500 20000] [--what map change embed] [--against ../old]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine

from a2mae.models.registry import create_model
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.tasks.datasets.inputs import plan_bands
from a2mae.tasks.datasets.task_data import TaskSpec
from a2mae.tasks.finetune.finetuned import Finetuned
from a2mae.tasks.finetune.model import HeadConfig, TaskModel
from a2mae.tasks.inference.embed import embed_raster, write_block_vectors
from a2mae.tasks.inference.files import raster_from_file
from a2mae.tasks.inference.raster_map import map_raster
from a2mae.tasks.registry import Task
from a2mae.tasks.tiling import Windows

SENSOR = BUILTIN_SENSORS["sentinel-2-l2a"]
BANDS = ("red", "green", "blue")
BLOCK = 512


def main() -> None:
    """Make the rasters, run every side, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="rasters of 512 and 1,024 pixels")
    parser.add_argument("--sides", type=int, nargs="+", default=[2500, 20_000], help="of the rasters, pixels")
    parser.add_argument("--what", nargs="+", choices=("map", "change", "embed"), default=["map", "change", "embed"])
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--depth", type=int, default=12, help="blocks of the ViT-T")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--head", default="rcf", help="of maps: linear, rcf, conv, upernet, detail")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--against", type=Path, help="checkout of another commit, to compare with")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(Path(arguments.child), arguments)
        return
    sides = (512, 1024) if arguments.quick else arguments.sides
    print(
        f"{platform.machine()} cpu torch {torch.__version__} threads {torch.get_num_threads()},"
        f" ViT-T/{arguments.patch} depth {arguments.depth}, windows {arguments.tile} overlap {arguments.overlap},"
        f" head {arguments.head}, precision {arguments.precision}"
    )
    results: dict[str, float] = {}
    for side in sides:
        with tempfile.TemporaryDirectory(prefix="a2mae-predict-") as folder:
            write_raster(Path(folder) / "raster.tif", side)
            for what in arguments.what:
                found = told("ours", what, side, in_own_process(Path(folder), what, arguments))
                results |= {f"{what}_{side}_s": found["cpu_s"], f"{what}_{side}_peak_mb": found["peak_mb"]}
                if arguments.against is not None:
                    theirs = in_own_process(Path(folder), what, arguments, checkout=arguments.against)
                    told("theirs", what, side, theirs)
                    results[f"{what}_{side}_times_faster"] = theirs["seconds"] / found["seconds"]
                    results[f"{what}_{side}_times_less_cpu"] = theirs["cpu_s"] / found["cpu_s"]
    print("RESULT " + " ".join(f"{name}={value:.2f}" for name, value in results.items()))


def told(whose: str, what: str, side: int, found: dict[str, float]) -> dict[str, float]:
    """Print what one side measured, and return it."""
    rate = side * side / found["seconds"] / 1e6
    print(
        f"{whose:7s}{what:7s} {side:6d}²  {found['seconds']:8.1f} s  cpu {found['cpu_s']:8.1f} s  {rate:6.2f} Mpx/s"
        f"  peak {found['peak_mb']:6.0f} MB  (before the raster {found['base_mb']:.0f} MB)"
        f"  file {found['file_mb']:.0f} MB",
        flush=True,
    )
    return found


def in_own_process(
    folder: Path, what: str, arguments: argparse.Namespace, *, checkout: Path | None = None
) -> dict[str, float]:
    """Run one side alone and return what it measured; its processor time is of the whole process, imports included."""
    options = [f"--{name}={getattr(arguments, name)}" for name in ("patch", "depth", "tile", "overlap")]
    script, env = Path(__file__).resolve(), dict(os.environ)
    if checkout is None:
        options += [f"--head={arguments.head}", f"--precision={arguments.precision}"]
    else:
        script = checkout.resolve() / "benchmarks" / "predict.py"
        env["PYTHONPATH"] = str(checkout.resolve() / "src")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(script), "--child", str(folder), "--what", what, *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(done.stdout.splitlines()[-1]), "cpu_s": cpu_s}


def measure(folder: Path, arguments: argparse.Namespace) -> None:
    """One side: stream the raster through the model, print time and peak memory as JSON."""
    (what,) = arguments.what
    torch.manual_seed(0)
    name = f"a2mae_vit_tiny_patch{arguments.patch}"
    encoder = create_model(name, depth=arguments.depth, decoder_dim=32, decoder_depth=1).encoder.eval()
    statistics = {SENSOR.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}
    plan = plan_bands(SENSOR, BANDS, statistics, bands_per_view=3)
    raster = raster_from_file(folder / "raster.tif", SENSOR, BANDS)
    windows = Windows(arguments.tile, arguments.overlap, 4)
    base_mb, started, path = peak_mb(), time.perf_counter(), folder / f"{what}.tif"
    if what == "embed":
        embed_raster(
            encoder, plan, raster, path, windows,
            device=torch.device("cpu"), precision=arguments.precision, quantise=True,
        )  # fmt: skip
        write_block_vectors(path, 4, folder / "embed.parquet")
    else:
        task = Task.SEGMENT if what == "map" else Task.DETECT_CHANGE
        classes = tuple(f"class {i}" for i in range(10 if what == "map" else 2))
        spec = TaskSpec(task, "benchmark", classes, (), SENSOR.subset(BANDS).bands, SENSOR.encoding, 10.0)
        model = TaskModel(encoder, HeadConfig(task, arguments.head, len(classes))).eval()
        rasters = [raster] * (1 if what == "map" else 2)
        finetuned = Finetuned(model, plan, spec)
        map_raster(finetuned, rasters, path, windows, device=torch.device("cpu"), precision=arguments.precision)
    found = {
        "seconds": time.perf_counter() - started,
        "peak_mb": peak_mb(),
        "base_mb": base_mb,
        "file_mb": path.stat().st_size / 1e6,
    }
    print(json.dumps(found))


def peak_mb() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_raster(path: Path, side: int) -> None:
    """A raster of one noisy block, repeated; its left tenth is nodata."""
    rng = np.random.default_rng(0)
    block = rng.integers(1200, 2500, (3, BLOCK, BLOCK)).astype(np.uint16)
    profile = {
        "driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": "uint16", "nodata": 0,
        "crs": "EPSG:32633", "transform": Affine(10, 0, 300_000, 0, -10, 5_600_000),
        "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "ZSTD",
    }  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=64 * 2**20), rasterio.open(path, "w", **profile) as target:
        for _, window in target.block_windows(1):
            part = block[:, : window.height, : window.width].copy()
            part[:, :, : max(side // 10 - window.col_off, 0)] = 0
            target.write(part, window=window)
        for number, name in enumerate(("B04", "B03", "B02"), start=1):
            target.set_band_description(number, name)


if __name__ == "__main__":
    main()
