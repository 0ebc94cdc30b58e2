"""Table operations at the size of the paper's data set: 1,045,000 locations and four images at each.

Synthetic scenes of two sensors and two dates in 60 UTM zones; everything on tables that ingest, coregister, tag, prune
and pretrain do is run on them by the very functions of the stages, at three sizes, in one process each:

    join      squares that enough scenes cover (spatial join), spacing, order: `find_locations`
    group     scenes of every square (spatial join) and the sets they make: `covered_locations`, `group`
    tag       split by location, GeoSOT codes, anchors, set table, the four properties
    prune     features of sets, clusters, caps
    index     flat arrays that training samples from

    python benchmarks/tables.py --quick
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from a2mae.pipelines.pretrain import build_run_index
from a2mae.raster.footprints import ring_lonlat
from a2mae.scenes import BandAsset, Scene
from a2mae.sensors import BUILTIN_SENSORS, Sensor
from a2mae.stssd.coregister.build import covered_locations
from a2mae.stssd.coregister.sets import PlannedSet, group
from a2mae.stssd.coregister.survey import Location
from a2mae.stssd.ingest.locations import find_locations
from a2mae.stssd.ingest.parameters import LocationParameters
from a2mae.stssd.parameters import PruneParameters, Recipe, TagParameters
from a2mae.stssd.prune import prune
from a2mae.stssd.tag import tag as tagging
from a2mae.stssd.tag.properties import four_properties
from a2mae.stssd.tag.statistics import Moments, heterogeneity
from a2mae.stssd.tag.tag import split_by_location
from a2mae.tables import IMAGE_COLUMNS, to_frame

SIDE_M = 1920.0
TILE = 40  # squares per side of a scene
SENSORS = ("sentinel-2-l2a", "landsat-oli-c2-l2")
RECIPE = Recipe(sources=[{"sensors": ["sentinel-2-*"], "images": 3}, {"sensors": ["landsat-*"], "images": 3}])
FULL = 1_045_000


def scenes_for(locations: int) -> list[Scene]:
    """Scenes of two sensors and dates that cover about so many squares, spread over the UTM zones."""
    tiles = -(-locations // TILE**2)
    assets = {
        s: tuple(
            BandAsset(
                b.name, f"{b.name}.tif", 1, 1e-4, 0.0, 0.0, BUILTIN_SENSORS[s].encoding.units, BUILTIN_SENSORS[s].gsd_m
            )
            for b in BUILTIN_SENSORS[s].bands
        )
        for s in SENSORS
    }
    found = []
    for tile in range(tiles):
        zone, step = tile % 60 + 1, tile // 60
        crs = f"EPSG:{(32600 if step % 2 else 32700) + zone}"
        # Stacked to the north, from the second kilometre of the grid on, in the middle of the zone.
        x = 500_000 // SIDE_M * SIDE_M - SIDE_M * TILE / 2
        y = (1_000_000 + step // 2 * (TILE + 2) * SIDE_M) // SIDE_M * SIDE_M
        y = y if step % 2 else 10_000_000 // SIDE_M * SIDE_M - y
        side = SIDE_M * TILE
        along = np.linspace(0, side, 9)[:-1]
        zero = np.zeros_like(along)
        ring_x = np.concatenate([along, zero + side, side - along, zero])
        ring_y = np.concatenate([zero, along, zero + side, side - along])
        outline = ring_lonlat(x + ring_x, y + ring_y, crs)
        for sensor in SENSORS:
            for year, month in ((2020, 7), (2023, 1)):
                found.append(
                    Scene(
                        f"{sensor[:2]}_{tile:06d}_{year}", sensor, dt.datetime(year, month, 5, tzinfo=dt.UTC), "", crs,
                        BUILTIN_SENSORS[sensor].gsd_m, outline, assets[sensor],
                    )
                )  # fmt: skip
    return found


def image_table(places: list[Location], sets: list[list[PlannedSet]], scenes: dict[str, Scene]) -> pd.DataFrame:
    """`IMAGE_COLUMNS` as coregister would write them, with drawn qualities; in Arrow, so that its making is small."""
    rng = np.random.default_rng(0)
    names = list(scenes)
    code = {name: k for k, name in enumerate(names)}
    flat = [(k, one) for k, planned in enumerate(sets) for one in planned]
    members = np.array([len(one.scenes) for _, one in flat])
    scene = np.fromiter((code[name] for _, one in flat for name in one.scenes), np.int32, int(members.sum()))
    of_set = np.repeat(np.arange(len(flat), dtype=np.int32), members)
    place = np.array([k for k, _ in flat], np.int32)[of_set]
    n = len(scene)

    def text(values: list[str], codes: np.ndarray) -> pa.Array:
        return pa.DictionaryArray.from_arrays(codes, pa.array(values, pa.string())).cast(pa.string())

    def of_scene(name: str) -> np.ndarray:
        return np.array([getattr(one, name) for one in scenes.values()])[scene]

    kinds = sorted({one.sensor for one in scenes.values()})
    sensor = np.array([kinds.index(one.sensor) for one in scenes.values()], np.int32)[scene]
    row = np.empty(n, np.int64)
    for k in range(len(kinds)):
        row[sensor == k] = np.arange(np.count_nonzero(sensor == k))
    first = np.zeros(n, np.bool_)
    first[np.cumsum(members) - members] = True
    when = np.array([one.datetime.timestamp() * 1e6 for one in scenes.values()], np.int64)[scene]
    set_ids = text([f"{places[k].footprint.location_id}-{one.kind}" for k, one in flat], of_set)
    del flat, of_set
    columns: dict[str, pa.Array] = {
        "image_id": pc.binary_join_element_wise(set_ids, text(names, scene), "--"),
        "set_id": set_ids,
        "location_id": text([one.footprint.location_id for one in places], place),
        "kind": text(["grid"], np.zeros(n, np.int32)),
        "sensor": text(kinds, sensor),
        "row": pa.array(row),
        "datetime": pa.array(when, pa.timestamp("us", tz="UTC")),
        "gsd_m": pa.array(of_scene("gsd_m")),
        "lon": pa.array(np.zeros(n)),
        "lat": pa.array(np.array([one.lat for one in places])[place]),
        "cloud_fraction": pa.array(rng.random(n) * 0.3),
        "valid_fraction": pa.array(1 - rng.random(n) * 0.2),
        "is_reference": pa.array(first),
        "is_anchor": pa.array(np.zeros(n, np.bool_)),
        "registration": text(["registered", "reference"], first.astype(np.int32)),
        "scene_id": text(names, scene),
        **{
            name: pa.array(rng.normal(size=n))
            for name in ("shift_x_m", "shift_y_m", "residual_px", "registration_quality")
        },
    }
    empty = {field.name: pa.nulls(n, field.type) for field in IMAGE_COLUMNS if field.name not in columns}
    table = pa.table([columns.pop(name, None) or empty[name] for name in IMAGE_COLUMNS.names], schema=IMAGE_COLUMNS)
    return to_frame(table)


def features_of(images: pd.DataFrame) -> pd.DataFrame:
    """`FEATURE_COLUMNS` as tag would measure them, drawn."""
    rng, parts = np.random.default_rng(1), []
    for sensor, group_ in images[["sensor", "row"]].groupby("sensor", sort=True):
        bands, n = len(BUILTIN_SENSORS[str(sensor)].bands), len(group_)
        mean, squares, texture = rng.random((n, bands)), rng.random((n, bands)), rng.random((n, bands))
        moments = Moments(np.ones(n, np.int64), mean, squares, mean, mean, texture, 1)
        statistics = {str(k): {"std": 1.0} for k in range(bands)}
        parts.append(
            tagging.feature_frame(str(sensor), group_["row"].to_numpy(), moments, heterogeneity(moments, statistics))
        )
    return pd.concat(parts, ignore_index=True)


def peak_gib() -> float:
    """Largest resident size since the last call, by Linux' own account (which `getrusage` inherits from a parent)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM:"))
    Path("/proc/self/clear_refs").write_text("5")
    return peak


def run(locations: int) -> dict[str, float]:
    """All operations at one size."""
    found: dict[str, float] = {}
    begun = time.process_time()

    def told(name: str, start: float) -> None:
        found[name] = time.perf_counter() - start
        found[f"{name}_peak_gib"] = peak_gib()

    sensors: dict[str, Sensor] = {s: BUILTIN_SENSORS[s] for s in SENSORS}
    scenes = scenes_for(locations)
    start = time.perf_counter()
    settings = LocationParameters(footprint_m=SIDE_M, min_scenes=4, max_locations=locations)
    table = find_locations(scenes, list(sensors.values()), settings).table
    told("join", start)
    start = time.perf_counter()
    places = covered_locations(scenes, table, 0.5)
    sets = [
        group(place.scenes, {"grid": RECIPE}, lat=place.lat, max_candidates=12, accept=lambda scene: True)
        for place in places
    ]
    told("group", start)
    images = image_table(places, sets, {scene.scene_id: scene for scene in scenes})
    found["locations"], found["images"] = len(places), len(images)
    del sets, places
    features = features_of(images)
    told("made", start)
    start = time.perf_counter()
    parameters = TagParameters()
    split = parameters.split
    fractions = {"train": split.train, "val": split.val, "test": split.test}
    splits = split_by_location(table, block_m=split.block_m, fractions=fractions, seed=split.seed)
    images = tagging.complete_images(images, table, features, parameters)
    set_table: gpd.GeoDataFrame = tagging.set_table(images, table, features, splits)
    four_properties(images, set_table)
    told("tag", start)
    del table, splits  # not what the next stage is given
    start = time.perf_counter()
    pruned = prune(set_table, images, features, sensors, PruneParameters())
    told("prune", start)
    del features, set_table
    start = time.perf_counter()
    build_run_index(images, pruned.sets, {name: sensor.band_names for name, sensor in sensors.items()})
    told("index", start)
    found["cpu"] = time.process_time() - begun  # the making of synthetic tables included
    found["peak_gib"] = max(value for name, value in found.items() if name.endswith("_peak_gib"))
    return found


def main() -> None:
    """Run the sizes, each in a process of its own, and print the table and one line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="2,500, 5,000 and 10,000 locations")
    options.add_argument("--sizes", type=int, nargs="+", metavar="N", help="numbers of locations, two or more, rising")
    options.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.child:
        print(json.dumps(run(arguments.child)))
        return
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},"
        f" pandas {pd.__version__}, geopandas {gpd.__version__}, pyarrow {pa.__version__}"
    )
    sizes = arguments.sizes or ((2_500, 5_000, 10_000) if arguments.quick else (FULL // 16, FULL // 4, FULL))
    rows = []
    for size in sizes:
        command = [sys.executable, str(Path(__file__)), "--child", str(size)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    steps = ("join", "group", "tag", "prune", "index")
    print(
        "\n| locations | images | " + " | ".join(f"{step} s" for step in steps) + " | all s | processor s | peak GiB |"
    )
    print("|" + "---|" * (len(steps) + 5))
    for row in rows:
        row["all"] = sum(row[step] for step in steps)
        cells = " | ".join(f"{row[step]:.1f}" for step in (*steps, "all"))
        print(f"| {row['locations']:,} | {row['images']:,} | {cells} | {row['cpu']:.1f} | {row['peak_gib']:.2f} |")
    last, before = rows[-1], rows[-2]
    # 1 where twice the rows take twice the time.
    exponent = np.log(last["all"] / before["all"]) / np.log(last["images"] / before["images"])
    if last["locations"] < FULL:  # the line through the last two sizes
        more = (FULL - last["locations"]) / (last["locations"] - before["locations"])
        cpu, peak = (last[key] + more * (last[key] - before[key]) for key in ("cpu", "peak_gib"))
        print(f"\nExpected at {FULL:,} locations, not run: {cpu:.0f} processor seconds, {peak:.1f} GiB")
    print(
        f"\nRESULT locations={last['locations']} images={last['images']} seconds={last['all']:.1f}"
        f" peak_gib={last['peak_gib']:.2f} growth_exponent={exponent:.2f}"
        f" us_per_image={1e6 * last['all'] / last['images']:.1f}"
    )


if __name__ == "__main__":
    main()
