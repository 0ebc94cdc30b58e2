"""First look at every place: which images are good enough, which sets they make, how far they lie apart.

Only the few bands that registration compares and the masks are read here. The result is plain data, from which the
shifts of scenes are pooled (`pooling`) before all bands are read and warped once (`build`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2mae.errors import ReadError
from a2mae.raster.footprints import transformer
from a2mae.raster.read import RasterReader
from a2mae.raster.warp import Footprint, Image, read_image
from a2mae.registration.pairs import PairMatch, Picture, compare, trusted
from a2mae.scenes import Scene
from a2mae.sensors import Sensor
from a2mae.stssd.coregister.sets import PlannedSet, group
from a2mae.stssd.parameters import CoregisterParameters

logger = logging.getLogger(__name__)

_RANGE_PIXELS = 4096  # of an image are enough to tell its 1st and 99th percentiles
_COMPARED = (("red",), ("nir", "nir08"), ("swir16", "green"))


@dataclass(frozen=True, slots=True)
class Place:
    """A location with the scenes that cover it.

    Attributes:
        footprint: The square.
        lat: Of its centre, degrees.
        scenes: Candidates.
    """

    footprint: Footprint
    lat: float
    scenes: tuple[Scene, ...]


@dataclass(frozen=True)
class SurveyedImage:
    """An image that passed the quality gate and is in a set.

    Attributes:
        scene_id: Scene.
        cloud_fraction: Cloud and shadow, share of what was seen.
        valid_fraction: Usable share of the footprint.
        dark_value: 1st percentile of the valid pixels of the darkest compared band, physical units.
        bright_value: 99th percentile of the brightest.
    """

    scene_id: str
    cloud_fraction: float
    valid_fraction: float
    dark_value: float
    bright_value: float


@dataclass(frozen=True)
class Refusal:
    """An image kept out.

    Attributes:
        scene_id: Scene.
        reason: Short code: "cloud", "nodata", "corrupt", "units", "incomplete_set", "no_recipe", ...
        detail: The sentence a person reads.
    """

    scene_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Surveyed:
    """What is known of a place after the first look: its sets that share a reference.

    Attributes:
        location_id: Place.
        reference: Scene id of the image that the others are moved to, a member of each of the sets; empty without
            sets.
        hub: Scene id of the image that the others were compared with first: the finest of the clearest.
        images: Images of the sets.
        sets: The sets.
        matches: Comparisons made at the place.
        refused: Images kept out.
    """

    location_id: str
    reference: str
    hub: str
    images: tuple[SurveyedImage, ...]
    sets: tuple[PlannedSet, ...]
    matches: tuple[PairMatch, ...]
    refused: tuple[Refusal, ...]


def survey(
    reader: RasterReader, places: Sequence[Place], sensors: Mapping[str, Sensor], parameters: CoregisterParameters
) -> list[Surveyed]:
    """Look at places one after the other; files stay open between them."""
    return [part for place in places for part in _survey_place(reader, place, sensors, parameters)]


def compared_bands(sensor: Sensor) -> tuple[str, ...]:
    """Up to three bands that show structure well: red, near and short-wave infrared where there are any."""
    by_common = {band.common_name: band.name for band in reversed(sensor.bands)}
    found = [next((by_common[name] for name in names if name in by_common), None) for names in _COMPARED]
    return tuple(name for name in found if name) or sensor.band_names[:3]


def _survey_place(
    reader: RasterReader, place: Place, sensors: Mapping[str, Sensor], parameters: CoregisterParameters
) -> list[Surveyed]:
    looked: dict[str, tuple[SurveyedImage, Picture]] = {}
    refused: dict[str, Refusal] = {}

    def accept(scene: Scene) -> bool:
        if scene.scene_id not in looked and scene.scene_id not in refused:
            result = _look(reader, scene, sensors[scene.sensor], place.footprint, parameters)
            if isinstance(result, Refusal):
                refused[scene.scene_id] = result
            else:
                looked[scene.scene_id] = result
        return scene.scene_id in looked

    lon = _longitude(place.footprint)
    recipes = {kind: r if r is not None and r.is_at(lon, place.lat) else None for kind, r in parameters.recipes.items()}
    sets = group(
        place.scenes,
        recipes,
        lat=place.lat,
        max_candidates=parameters.quality.max_candidates,
        accept=accept,
    )
    used = sorted({scene_id for planned in sets for scene_id in planned.scenes})
    for scene_id in sorted(set(looked) - set(used)):
        refused[scene_id] = Refusal(
            scene_id,
            "incomplete_set",
            "good enough, but the place lacks what a recipe asks for beside it (another source or date), or the set"
            " is full",
        )
    if not used:
        seen = ", ".join(f"{sensor} {count}" for sensor, count in Counter(s.sensor for s in place.scenes).items())
        wanted = ", ".join(f"{kind} ({recipe.wants})" for kind, recipe in recipes.items() if recipe is not None)
        for scene in place.scenes:
            refused.setdefault(
                scene.scene_id,
                Refusal(
                    scene.scene_id,
                    "no_recipe",
                    f"not read: the scenes here ({seen}) fill none of coregister.recipes: {wanted or 'all are off'}",
                ),
            )
    location_id, kept_out = place.footprint.location_id, tuple(refused[key] for key in sorted(refused))
    if not used:
        return [Surveyed(location_id, "", "", (), (), (), kept_out)]

    def clearest(scene_id: str) -> tuple[int, float, str]:
        # Among equally clear ones the finest, then the first by id, so that neighbours agree.
        facts, picture = looked[scene_id]
        return int((1 - facts.valid_fraction) * 20), picture.gsd_m, scene_id

    hub = min(used, key=clearest)
    matches = tuple(_matches(hub, used, {k: v[1] for k, v in looked.items()}, parameters))
    placed = {hub} | {pair.moving for pair in matches if pair.trusted}
    parts: list[Surveyed] = []
    left = list(sets)
    while left:
        # The image that most sets have is the reference of those; it is better one that could be placed.
        members = {scene_id for planned in left for scene_id in planned.scenes}
        served = {key: sum(key in planned.scenes for planned in left) for key in members}
        reference = min(members, key=lambda key: (-served[key], key not in placed, clearest(key)))
        together = tuple(planned for planned in left if reference in planned.scenes)
        left = [planned for planned in left if reference not in planned.scenes]
        images = sorted({scene_id for planned in together for scene_id in planned.scenes})
        facts = tuple(looked[scene_id][0] for scene_id in images)
        parts.append(Surveyed(location_id, reference, hub, facts, together, matches, () if parts else kept_out))
    return parts


def _longitude(footprint: Footprint) -> float:
    half = footprint.size_m / 2
    lon, _ = transformer(footprint.crs, "EPSG:4326").transform(footprint.x_m + half, footprint.y_m - half)
    return float(lon)


def _look(
    reader: RasterReader, scene: Scene, sensor: Sensor, footprint: Footprint, parameters: CoregisterParameters
) -> tuple[SurveyedImage, Picture] | Refusal:
    quality = parameters.quality
    try:
        grid = footprint.grid(sensor.gsd_m)
        image = read_image(reader, scene, sensor, grid, parameters.clouds, bands=compared_bands(sensor))
    except ReadError as error:
        return Refusal(scene.scene_id, error.reason, str(error))
    if image.seen_fraction < quality.min_valid_fraction:
        return Refusal(
            scene.scene_id,
            "nodata",
            f"{image.seen_fraction:.0%} of the footprint was seen, coregister.quality.min_valid_fraction asks for"
            f" {quality.min_valid_fraction:.0%}",
        )
    if image.cloud_fraction > quality.max_cloud_fraction:
        told = "the cloud mask" if scene.mask is not None else "the brightness test"
        return Refusal(
            scene.scene_id,
            "cloud",
            f"{image.cloud_fraction:.0%} is cloud or shadow by {told}, coregister.quality.max_cloud_fraction allows"
            f" {quality.max_cloud_fraction:.0%}",
        )
    if image.valid_fraction < quality.min_valid_fraction:
        return Refusal(
            scene.scene_id,
            "nodata",
            f"{image.valid_fraction:.0%} of the footprint is usable (seen and clear),"
            f" coregister.quality.min_valid_fraction asks for {quality.min_valid_fraction:.0%}",
        )
    facts = SurveyedImage(scene.scene_id, image.cloud_fraction, image.valid_fraction, *_range_of(image))
    picture = Picture(image.physical, image.valid, sensor.gsd_m, footprint.size_m, scene.datetime)
    return facts, picture


def _range_of(image: Image) -> tuple[float, float]:
    """1st percentile of the darkest band and 99th of the brightest."""
    valid = np.flatnonzero(image.valid)
    chosen = valid[:: max(1, len(valid) // _RANGE_PIXELS)]
    values: NDArray[np.float32] = image.physical.reshape(len(image.physical), -1)[:, chosen]
    low, high = np.percentile(values, (1, 99), axis=1)
    return float(low.min()), float(high.max())


def _matches(
    hub: str, used: Sequence[str], pictures: Mapping[str, Picture], parameters: CoregisterParameters
) -> list[PairMatch]:
    """Compare every image with the hub; where that says nothing, with images that could be placed."""
    settings = parameters.registration
    if not settings.enabled or len(used) < 2:
        return []
    found: list[PairMatch] = []
    placed, waiting = [hub], [scene_id for scene_id in used if scene_id != hub]
    while waiting:
        fixed_now: list[str] = []
        for scene_id in waiting:
            tried = {m.fixed for m in found if m.moving == scene_id}
            nearest = sorted(
                (p for p in placed if p not in tried),
                key=lambda p, s=scene_id: (p != hub, pictures[p].days_of_year_from(pictures[s]), p),  # type: ignore[misc]
            )
            for fixed in nearest[:2]:
                result = compare(pictures[fixed], pictures[scene_id], settings)
                if result is None:
                    continue
                coarser = max(pictures[fixed].gsd_m, pictures[scene_id].gsd_m)
                pair = PairMatch(scene_id, fixed, coarser, result, trusted(result, coarser, settings))
                found.append(pair)
                if pair.trusted:
                    fixed_now.append(scene_id)
                    break
        if not fixed_now:
            break
        placed += fixed_now
        waiting = [scene_id for scene_id in waiting if scene_id not in fixed_now]
    return found
