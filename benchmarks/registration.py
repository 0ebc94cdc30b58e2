"""How well images are registered on simulated scenes with known shifts, clouds and change, per pair of sensors.

Sides, taken in turn on the same pairs: no registration; scikit-image's plain phase correlation (upsampled, red band,
on the coarser sensor's grid); ours at a single place; ours as the build applies it, with scenes pooled over places.
Residuals are pixels of the coarser sensor of a pair. "False" are pairs called registered that are off by more than
half a pixel.

    python benchmarks/registration.py --quick
"""

from __future__ import annotations

import argparse
import itertools
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import skimage
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation
from skimage.transform import downscale_local_mean, resize

from a2mae.config import RegistrationParameters
from a2mae.raster.read import RasterReader
from a2mae.raster.warp import read_image
from a2mae.registration.correlate import Match
from a2mae.registration.network import pool, positions
from a2mae.registration.pairs import BandStack, compare
from a2mae.scenes import Scene, scenes_from_table, sensors_from_json
from a2mae.sensors import Sensor
from a2mae.simulate.parameters import AcquisitionParameters, RegionParameters, SimulateParameters
from a2mae.simulate.run import simulate
from a2mae.stssd.coregister.build import covered_locations
from a2mae.stssd.coregister.survey import Location, compared_bands, survey
from a2mae.stssd.ingest.ingest import Ingested, ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters

SHORT = {"sentinel-2-l2a": "S2", "landsat-oli-c2-l2": "Landsat", "gaofen-1": "GF1", "gaofen-2": "GF2", "naip": "NAIP"}
RECIPES = {
    "all": {"min_sources": 2, "images_per_source": 6, "max_images": 30},
}
FALSE_PX = 0.5


def world(folder: Path, *, quick: bool, seed: int) -> pd.DataFrame:
    """Simulate regions where every scene is displaced by up to 3 of its pixels."""
    dates = [
        {"period": "before", "season": "growing", "shift_px": 3.0},
        {"period": "before", "season": "dormant", "shift_px": 3.0, "cloud": 0.15},
        {"period": "after", "season": "growing", "shift_px": 3.0, "cloud": 0.25},
        {"period": "after", "season": "dormant", "shift_px": 3.0},
    ]
    biomes = (
        ("temperate_plain", "boreal")
        if quick
        else ("temperate_plain", "boreal", "mediterranean", "corn_belt", "alpine_foreland", "river_delta")
    )
    side = 2 if quick else 3
    regions = tuple(
        RegionParameters(
            name=biome.replace("_", "-"), lon=11.0 + 7 * k, lat=48.0 + k, biome=biome, footprints=side,
            gaofen1_footprints=side, gaofen2_footprints=side - 1, naip_footprints=0 if quick else 1,
        )
        for k, biome in enumerate(biomes)
    )  # fmt: skip
    wanted = {"sentinel-2-l2a": 4, "landsat-oli-c2-l2": 4, "gaofen-1": 2, "gaofen-2": 2} | (
        {} if quick else {"naip": 2}
    )
    parameters = SimulateParameters(
        seed=seed,
        workers=1 if quick else 2,
        regions=regions,
        acquisitions={
            sensor: tuple(AcquisitionParameters(**d) for d in (dates if count == 4 else dates[::2]))
            for sensor, count in wanted.items()
        },
    )
    simulate(parameters, folder)
    return pd.read_parquet(folder / "truth" / "scenes.parquet").set_index("scene_id")


def plain_phase_correlation(fixed: BandStack, moving: BandStack) -> NDArray[np.float64]:
    """East and north shift in metres by scikit-image alone: no masks, no structure, first compared band."""
    coarser = max(fixed.gsd_m, moving.gsd_m)

    def on_grid(picture: BandStack) -> NDArray[np.float64]:
        band = np.nan_to_num(picture.bands[0], nan=float(np.nanmean(picture.bands[0])))
        factor = coarser / picture.gsd_m
        side = round(picture.size_m / coarser)
        if abs(factor - round(factor)) < 1e-6:
            return np.asarray(downscale_local_mean(band, (round(factor),) * 2))
        return np.asarray(resize(band, (side, side), anti_aliasing=True))

    shift, _, _ = phase_cross_correlation(on_grid(fixed), on_grid(moving), upsample_factor=20)
    return np.array([shift[1], -shift[0]]) * coarser


def main() -> None:
    """Simulate, compare every pair at every place, print the table and one line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="two small regions, done within a minute or two of CPU")
    options.add_argument("--seed", type=int, default=1)
    arguments = options.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__},"
          f" SciPy {scipy.__version__}, scikit-image {skimage.__version__}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = world(folder, quick=arguments.quick, seed=arguments.seed)
        found = ingest(IngestParameters(locations={"footprint_m": 1920.0}), simulated_catalog=folder / "catalog.json")
        measure(found, truth)


def measure(found: Ingested, truth: pd.DataFrame) -> None:
    """Run all sides on all pairs of images of the same place."""
    sensors = sensors_from_json(found.sensors)
    scenes = {scene.scene_id: scene for scene in scenes_from_table(found.scenes)}
    parameters = CoregisterParameters(recipes=RECIPES, workers=1, quality={"max_cloud_fraction": 0.5})
    settings = parameters.registration
    places = covered_locations(list(scenes.values()), found.locations, parameters.quality.min_valid_fraction)

    def needed(moving: str, fixed: str) -> NDArray[np.float64]:
        axes = ["true_shift_x_m", "true_shift_y_m"]
        return (truth.loc[fixed, axes] - truth.loc[moving, axes]).to_numpy(np.float64)

    rows: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    spent = {"ours": 0.0, "plain": 0.0}
    unrelated: list[bool] = []
    with RasterReader() as reader:
        previous: dict[str, BandStack] = {}
        for place in places:
            pictures: dict[str, BandStack] = {}
            for scene in place.scenes:
                sensor = sensors[scene.sensor]
                grid = place.footprint.grid(sensor.gsd_m)
                image = read_image(reader, scene, sensor, grid, parameters.clouds, bands=compared_bands(sensor))
                if image.cloud_fraction <= 0.5 and image.valid_fraction >= 0.5:
                    pictures[scene.scene_id] = BandStack(
                        image.physical, image.valid, sensor.gsd_m, 1920.0, scene.datetime
                    )
            for one, other in itertools.combinations(sorted(pictures), 2):
                fixed, moving = sorted((one, other), key=lambda key: (pictures[key].gsd_m, key))
                coarser = max(pictures[fixed].gsd_m, pictures[moving].gsd_m)
                need = needed(moving, fixed)
                if np.abs(need).max() > settings.max_shift_px * coarser:
                    continue  # beyond the search range by construction: two scenes displaced in opposite directions
                start = time.process_time()
                result = compare(pictures[fixed], pictures[moving], settings)
                spent["ours"] += time.process_time() - start
                start = time.process_time()
                plain = plain_phase_correlation(pictures[fixed], pictures[moving])
                spent["plain"] += time.process_time() - start
                told = trusted(result, coarser, settings)
                own = np.array([result.shift_x_m, result.shift_y_m]) if result is not None else np.zeros(2)
                kinds = tuple(sorted((SHORT[scenes[fixed].sensor], SHORT[scenes[moving].sensor])))
                rows[kinds].append(
                    {
                        "none": np.hypot(*need) / coarser,
                        "plain": np.hypot(*(plain - need)) / coarser,
                        "ours": np.hypot(*(own - need)) / coarser if told else np.nan,
                    }
                )
            for key in sorted(set(previous) & set(pictures)):  # another place: nothing to find
                result = compare(pictures[key], previous[key], settings)
                unrelated.append(trusted(result, pictures[key].gsd_m, settings))
            previous = pictures
    tell(rows, spent, unrelated, applied(places, sensors, parameters, scenes, needed))


def trusted(result: Match | None, coarser: float, settings: RegistrationParameters) -> bool:
    """Whether the build would act on a match."""
    return (
        result is not None
        and not result.at_edge
        and result.error_m <= settings.max_error_px * coarser
        and result.significance >= settings.min_significance
        and result.known_fraction >= settings.min_known_fraction
    )


def applied(
    places: list[Location],
    sensors: dict[str, Sensor],
    parameters: CoregisterParameters,
    scenes: dict[str, Scene],
    needed: Callable[[str, str], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Residuals of what the build applies: survey, pooled scenes, positions."""
    with RasterReader() as reader:
        surveyed = survey(reader, places, sensors, parameters)
    matches = {part.location_id: part.matches for part in surveyed}
    offsets = pool(matches.values(), min_locations=parameters.registration.pool_locations)
    gsd_m = {scene_id: sensors[scene.sensor].gsd_m for scene_id, scene in scenes.items()}
    residuals = []
    for part in surveyed:
        images = [image.scene_id for image in part.images]
        put = positions(images, part.matches, offsets, gsd_m, reference=part.reference, hub=part.hub)
        for scene_id, position in put.items():
            if position.registration == "registered":
                away = np.array([position.shift_x_m, position.shift_y_m]) - needed(scene_id, part.reference)
                residuals.append(np.hypot(*away) / max(gsd_m[scene_id], gsd_m[part.reference]))
    return np.array(residuals)


def tell(
    rows: dict[tuple[str, ...], list[dict[str, float]]],
    spent: dict[str, float],
    unrelated: list[bool],
    pooled: NDArray[np.float64],
) -> None:
    """Print the table and the line for other tools."""
    print("\n| pair | pairs | none med | plain med | plain p95 | ours med | ours p95 | registered | false |")
    print("|---|---|---|---|---|---|---|---|---|")
    everything: list[dict[str, float]] = []
    for kinds, entries in sorted(rows.items()):
        everything += entries
        print(f"| {'–'.join(kinds)} | {line(entries)} |")
    print(f"| all | {line(everything)} |")
    frame = pd.DataFrame(everything)
    middle, tail = np.quantile(pooled, (0.5, 0.95))
    print(f"\nas the build applies it (pooled): {len(pooled)} images, median {middle:.3f}, p95 {tail:.3f} px")
    print(f"pairs of different places called registered: {sum(unrelated)} of {len(unrelated)}")
    count = len(frame)
    print(f"CPU per pair: ours {1e3 * spent['ours'] / count:.0f} ms, plain {1e3 * spent['plain'] / count:.0f} ms")
    ours = frame["ours"]
    print(
        f"RESULT pairs={count} median_px={ours.median():.3f} p95_px={ours.quantile(0.95):.3f}"
        f" registered={ours.notna().mean():.3f} false={float((ours > FALSE_PX).mean()):.4f}"
        f" unrelated_registered={np.mean(unrelated) if unrelated else 0:.4f}"
        f" pooled_median_px={np.median(pooled):.3f} pooled_p95_px={np.quantile(pooled, 0.95):.3f}"
        f" plain_median_px={frame['plain'].median():.3f} none_median_px={frame['none'].median():.3f}"
        f" ms_per_pair={1e3 * spent['ours'] / count:.1f}"
    )


def line(entries: list[dict[str, float]]) -> str:
    """A row of the table."""
    frame = pd.DataFrame(entries)
    ours, plain = frame["ours"], frame["plain"]
    return (
        f"{len(frame)} | {frame['none'].median():.2f} | {plain.median():.2f} | {plain.quantile(0.95):.2f} |"
        f" {ours.median():.3f} | {ours.quantile(0.95):.3f} | {ours.notna().mean():.0%} | {(ours > FALSE_PX).mean():.1%}"
    )


if __name__ == "__main__":
    main()
