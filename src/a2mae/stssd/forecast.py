"""Tell what a build will make: sets and images by counting, the quality gate and the speed by a sample."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd

from a2mae.raster.read import RasterReader
from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import Scene, scenes_from_table
from a2mae.sensors import Sensor
from a2mae.stssd.coregister.build import covered_locations
from a2mae.stssd.coregister.sets import PlannedSet, group
from a2mae.stssd.coregister.survey import Location, survey
from a2mae.stssd.parameters import CoregisterParameters, check_recipes

_MOST_COUNTED = 2000
_SURVEYED = 6


@dataclass(frozen=True, eq=False)
class Forecast:
    """What a build will make, if every scene were clear, and what a sample of its locations says of that.

    Attributes:
        scenes: Scenes of each sensor.
        locations: Squares that scenes cover.
        sets: Sets of each recipe.
        images: Images of each sensor in sets.
        bytes: Of the store's arrays, not compressed.
        surveyed: Locations that were read.
        kept: Images of them that are in a set; `tried` were read.
        tried: Images that were read.
        rejected: Reasons of the others.
        seconds: For one location, by one worker.
        looked: One row for each kept image, as the image table has it: `scene_id`, `location_id`, `sensor`,
            `processing_baseline`, `dark_value`, `bright_value`.
    """

    scenes: Mapping[str, int]
    locations: int
    sets: Mapping[str, int]
    images: Mapping[str, int]
    bytes: int
    surveyed: int
    kept: int
    tried: int
    rejected: Mapping[str, int]
    seconds: float
    looked: pd.DataFrame


def forecast(
    scenes_table: pd.DataFrame,
    locations_table: gpd.GeoDataFrame,
    sensors: Mapping[str, Sensor],
    parameters: CoregisterParameters,
    *,
    access: RemoteAccess | None = None,
) -> Forecast:
    """Count what a build will make, and read a few locations as it will.

    Args:
        scenes_table: As `ingest` has written it.
        locations_table: Likewise.
        sensors: By id.
        parameters: The `coregister` group.
        access: How remote files are reached.

    Raises:
        InputError: If a recipe names a band that its sensors do not have.
    """
    check_recipes(parameters.recipes, sensors)
    scenes = {scene.scene_id: scene for scene in scenes_from_table(scenes_table)}
    locations = covered_locations(list(scenes.values()), locations_table, parameters.quality.min_valid_fraction)
    counted = _spread(locations, _MOST_COUNTED)
    share = len(locations) / max(1, len(counted))
    sets: Counter[str] = Counter()
    images: Counter[str] = Counter()
    size = 0.0
    for location in counted:
        planned = _planned(location, parameters)
        sets.update(one.kind for one in planned)
        for scene_id in {scene_id for one in planned for scene_id in one.scenes}:
            sensor = sensors[scenes[scene_id].sensor]
            images[sensor.id] += 1
            pixels = (location.footprint.size_m / sensor.gsd_m) ** 2
            size += pixels * (len(sensor.bands) * np.dtype(sensor.encoding.dtype).itemsize + 1)
    with_sets = [location for location in counted if _planned(location, parameters)]
    sample = _spread(with_sets, _SURVEYED)
    before = time.perf_counter()
    with RasterReader(access=access) as reader:
        found = survey(reader, sample, sensors, parameters)
    seconds = (time.perf_counter() - before) / max(1, len(sample))
    kept = {(one.location_id, image.scene_id): image for one in found for image in one.images}
    rejected = Counter(rejection.reason for one in found for rejection in one.rejected)
    rows = [
        {
            "scene_id": scene_id,
            "location_id": location_id,
            "sensor": scenes[scene_id].sensor,
            "processing_baseline": scenes[scene_id].processing_baseline,
            "dark_value": image.dark_value,
            "bright_value": image.bright_value,
        }
        for (location_id, scene_id), image in kept.items()
    ]
    columns = ["scene_id", "location_id", "sensor", "processing_baseline", "dark_value", "bright_value"]
    return Forecast(
        scenes=Counter(scene.sensor for scene in scenes.values()),
        locations=len(locations),
        sets={kind: round(count * share) for kind, count in sets.items()},
        images={sensor: round(count * share) for sensor, count in images.items()},
        bytes=round(size * share),
        surveyed=len(sample),
        kept=len(kept),
        tried=len(kept) + sum(rejected.values()),
        rejected=rejected,
        seconds=seconds,
        looked=pd.DataFrame(rows, columns=columns),
    )


def _spread(locations: list[Location], most: int) -> list[Location]:
    places = np.unique(np.linspace(0, len(locations) - 1, min(most, len(locations))).round().astype(int))
    return [locations[place] for place in places]


def _planned(location: Location, parameters: CoregisterParameters) -> list[PlannedSet]:
    recipes = {k: r for k, r in parameters.recipes.items() if r is not None and r.is_at(location.lon, location.lat)}

    def every(_: Scene) -> bool:
        return True

    tries = parameters.quality.max_candidates
    return group(location.scenes, recipes, lat=location.lat, max_candidates=tries, accept=every)
