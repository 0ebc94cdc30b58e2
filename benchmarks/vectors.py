"""How long a class map of a country takes to become polygons, and how much memory: `python benchmarks/vectors.py`.

The map has fields of some hectares with ragged borders, speckle and unseen ground. Asked for: 10,000 x 10,000 pixels
within 2 minutes and 2 GB. `--quick` draws 2,500 x 2,500.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import shapely
from affine import Affine
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from a2mae.explore.vectors import write_polygons
from a2mae.tasks.inference.read_map import open_class_map

CLASSES = 8
_TILE = 1250


def write_map(folder: Path, side: int) -> None:
    """Draw a map of classes and its confidence."""
    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff", "count": 1, "height": side, "width": side, "dtype": "uint8", "nodata": 255, "tiled": True,
        "blockxsize": 256, "blockysize": 256, "compress": "deflate", "crs": "EPSG:32633",
        "transform": Affine(10, 0, 400_000, 0, -10, 5_900_000),
    }  # fmt: skip
    with (
        rasterio.open(folder / "map.tif", "w", **profile) as classes,
        rasterio.open(folder / "confidence.tif", "w", **profile) as confidence,
    ):
        classes.update_tags(CLASS_NAMES=json.dumps({value: f"class {value}" for value in range(CLASSES)}))
        for row in range(0, side, _TILE):
            for column in range(0, side, _TILE):
                scores = np.stack(
                    [
                        ndimage.gaussian_filter(rng.standard_normal((_TILE, _TILE), np.float32), 6)
                        for _ in range(CLASSES)
                    ]
                )
                scores += 0.004 * rng.standard_normal(scores.shape, np.float32)
                found = scores.argmax(axis=0).astype(np.uint8)
                found[:100, :300] = 255
                place = rasterio.windows.Window(column, row, _TILE, _TILE)
                classes.write(found, 1, window=place)
                sure = rng.integers(100, 251, found.shape).astype(np.uint8)
                confidence.write(np.where(found == 255, found, sure), 1, window=place)


def peak_mb() -> float:
    """Largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(folder: Path, label: str, **options: float) -> tuple[float, float, float]:
    """Write polygons; seconds by the clock, of the CPU, and MB."""
    found = open_class_map(folder / "map.tif", folder / "confidence.tif")
    began, began_cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as out:
        package = Path(out) / "polygons.gpkg"
        count = write_polygons(found, package, Path(out) / "polygons.parquet", layer="segment", **options)
        size = package.stat().st_size / 1e6
    took, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    print(
        f"{label:28} {count:>9,} polygons  {took:7.1f} s ({cpu:.1f} CPU s)  {peak_mb():.0f} MB, file {size:.0f} MB",
        flush=True,
    )
    return took, cpu, peak_mb()


def main() -> None:
    """Print time and memory of each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,500 x 2,500 pixels")
    side = 2500 if parser.parse_args().quick else 10_000
    print(f"{platform.machine()}, {os.cpu_count()} cores")
    print(f"GDAL {rasterio.__gdal_version__}, GEOS {shapely.geos_version_string}")
    ways = {
        "pixels": {},
        "from 0.2 ha": {"smallest_m2": 2000.0},
        "from 0.2 ha, simplified": {"smallest_m2": 2000.0, "simplify_m": 15.0},
    }
    result = [f"side={side}"]
    with tempfile.TemporaryDirectory() as out:
        write_map(Path(out), side)
        for name, options in ways.items():
            reader, writer = os.pipe()
            if not os.fork():
                took, cpu, peak = measure(Path(out), f"{side}² {name}", **options)
                os.write(writer, f"{took:.1f} {cpu:.1f} {peak:.0f}".encode())
                os._exit(0)
            os.wait()
            took, cpu, peak = os.read(reader, 100).decode().split()
            key = name.replace(" ", "_").replace(",", "").replace(".", "")
            result.append(f"{key}_s={took} {key}_cpu_s={cpu} {key}_peak_mb={peak}")
    print("RESULT", *result)


if __name__ == "__main__":
    main()
