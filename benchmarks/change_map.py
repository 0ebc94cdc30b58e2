"""What registration, cloud masks and windows are worth in a change map: whole scenes of every region against truth.

The scenes are as a provider gives them: up to some pixels from where they should lie, with clouds. Places that the
detector was finetuned on lie in them, too: this compares ways to map, not detectors.

Usage: python benchmarks/change_map.py [--data data] [--model data/06_models/detect_change] [--regions jura iowa]
       python benchmarks/change_map.py --windows 192/64 192/32 256/32

After `kedro run --pipelines=simulate,ingest` and a finetuned detector.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
import torch
from affine import Affine
from rasterio.warp import Resampling, reproject

from a2mae.config import CloudParameters
from a2mae.remote.policy import RemoteAccess
from a2mae.tasks.datasets.task_data import IGNORE
from a2mae.tasks.finetune.finetuned import Finetuned, load_task_model
from a2mae.tasks.inference.scenes import SceneRasters, choose_scenes
from a2mae.tasks.inference.sources import MapSource
from a2mae.tasks.parameters import MapParameters

WAYS = {
    "as provided": {"registration": {"enabled": False}, "mask_clouds": False},
    "registered": {"mask_clouds": False},
    "masked": {"registration": {"enabled": False}},
    "registered, masked": {},
}
SENSOR = "sentinel-2-l2a"


def main() -> None:
    """Map every region in every way, print a table of precision, recall and F1 of all pixels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", type=Path, default=None, help="default: 06_models/detect_change below --data")
    parser.add_argument("--regions", nargs="*", help="default: all that have two dates")
    parser.add_argument("--windows", nargs="+", default=[], help="compare these in place of the ways: side/overlap, px")
    arguments = parser.parse_args()
    ways = {windows: windows_named(windows) for windows in arguments.windows} or WAYS
    data: Path = arguments.data
    detector = load_task_model(arguments.model or data / "06_models" / "detect_change")
    scenes = gpd.read_parquet(data / "02_intermediate" / "scenes.parquet")
    simulated = data / "01_raw" / "simulated"
    truth = pd.read_parquet(simulated / "truth" / "scenes.parquet").set_index("scene_id")
    region_of = scenes["scene_id"].map(truth["region"])
    print(f"{platform.machine()} cpu torch {torch.__version__}, 1 thread")
    counts, spent = {way: np.zeros(3) for way in ways}, dict.fromkeys(ways, 0.0)
    regions, started = 0, time.process_time()
    for region in arguments.regions or sorted(region_of.dropna().unique()):
        here = scenes[region_of == region]
        chosen = choose_scenes(here, SENSOR)
        if chosen.before is None:
            continue
        regions += 1
        moved = truth.loc[chosen.before.scene_id]
        displaced = Affine.translation(moved["true_shift_x_m"], moved["true_shift_y_m"])
        told = []
        for way, options in ways.items():
            with tempfile.TemporaryDirectory(prefix="a2mae-change-map-") as folder:
                path = Path(folder) / "map.tif"
                began = time.process_time()
                draw(detector, here, options, path)
                spent[way] += time.process_time() - began
                found = compared(path, simulated / "truth" / region / "change.tif", displaced)
            counts[way] += found
            told.append(f"{way} {scores(found)['f1']:.3f}")
        print(f"{region}: F1 {', '.join(told)}", flush=True)
    print("\n| two whole scenes | precision | recall | F1 | processor seconds |\n|---|---|---|---|---|")
    for way, found in counts.items():
        print(f"| {way} | " + " | ".join(f"{value:.3f}" for value in scores(found).values()) + f" | {spent[way]:.0f} |")
    results = {way.replace(", ", "_").replace(" ", "_"): scores(found)["f1"] for way, found in counts.items()}
    line = " ".join(f"{way}_f1={value:.3f}" for way, value in results.items())
    print(f"\nRESULT regions={regions} {line} cpu_s={time.process_time() - started:.0f}")


def windows_named(name: str) -> dict[str, object]:
    """Parameters of a map by windows of a side and an overlap: `192/64`, pixels."""
    side, overlap = name.split("/")
    return {"tile_px": int(side), "overlap_px": int(overlap)}


def draw(detector: Finetuned, scenes: gpd.GeoDataFrame, options: dict[str, object], path: Path) -> None:
    """The default pair of scenes as a change map."""
    rasters = SceneRasters(scenes, {}, RemoteAccess(), CloudParameters())
    MapSource(MapParameters.model_validate(options), "cpu", 1, detector, rasters).write(path)


def compared(path: Path, truth: Path, displaced: Affine) -> npt.NDArray[np.float64]:
    """Pixels that are found and true, found, and true, where the map says anything."""
    with rasterio.open(path) as source, rasterio.open(truth) as changed:
        classes = source.read(1)
        true = np.full(classes.shape, IGNORE, np.uint8)
        reproject(
            changed.read(1), true, src_transform=displaced @ changed.transform, src_crs=changed.crs,
            dst_transform=source.transform, dst_crs=source.crs, dst_nodata=IGNORE, src_nodata=IGNORE,
            resampling=Resampling.nearest,
        )  # fmt: skip
    known = (classes != IGNORE) & (true != IGNORE)
    said, is_so = classes[known] == 1, true[known] == 1
    return np.array([(said & is_so).sum(), said.sum(), is_so.sum()], np.float64)


def scores(found: npt.NDArray[np.float64]) -> dict[str, float]:
    """Precision, recall and F1 of counts."""
    both, said, is_so = found
    return {"precision": both / max(said, 1), "recall": both / max(is_so, 1), "f1": 2 * both / max(said + is_so, 1)}


if __name__ == "__main__":
    main()
