"""Survey every location: which images are good enough, which sets they make, how far they lie apart.

Only the masks and the few bands that registration compares are read here. The result is plain data: the shifts of
scenes are solved from it before all bands are read and warped, once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2mae.errors import ReadError
from a2mae.raster.read import RasterReader
from a2mae.raster.warp import Footprint, Image, read_image
from a2mae.registration.pairs import BandStack, PairMatch, compare, trusted
from a2mae.scenes import Scene
from a2mae.sensors import Sensor
from a2mae.stssd.coregister.sets import PlannedSet, group
from a2mae.stssd.parameters import CoregisterParameters, Recipe

_RANGE_PIXELS = 4096  # of an image are enough to tell its 1st and 99th percentiles
_COMPARED = (("red",), ("nir", "nir08"), ("swir16", "green"))
_INCOMPLETE = (
    "good enough, but the place lacks what a recipe asks for beside it (another source or date), or the set is full"
)


@dataclass(frozen=True, slots=True)
class Location:
    """A square of ground with the scenes that cover it.

    Attributes:
        footprint: The square.
        lon: Longitude of its centre, degrees.
        lat: Latitude of its centre, degrees.
        scenes: Scenes that cover it: the candidates for its sets.
    """

    footprint: Footprint
    lon: float
    lat: float
    scenes: tuple[Scene, ...]


@dataclass(frozen=True)
class SurveyedImage:
    """An image that passed the quality gate and is in a set.

    Attributes:
        scene_id: Id of its scene.
        cloud_fraction: Cloud and shadow, share of what was seen, 0 to 1.
        valid_fraction: Usable share of the footprint, 0 to 1.
        dark_value: 1st percentile of the valid pixels of the darkest compared band, physical units.
        bright_value: 99th percentile of the brightest.
    """

    scene_id: str
    cloud_fraction: float
    valid_fraction: float
    dark_value: float
    bright_value: float


@dataclass(frozen=True)
class Rejection:
    """An image that is in no set, and why.

    Attributes:
        scene_id: Id of its scene.
        reason: Short code: "cloud", "nodata", "corrupt", "units", "incomplete_set", "no_recipe", ...
        detail: The sentence a person reads.
    """

    scene_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Surveyed:
    """The sets of a location that share a reference. A location with several references has one of these for each.

    Attributes:
        location_id: Id of the location.
        reference: Scene id of the image that the others are moved to, a member of each of the sets; empty without
            sets.
        hub: Scene id of the image that the others were compared with first: the finest of the clearest.
        images: Images of the sets.
        sets: The sets.
        matches: Comparisons made at the location.
        rejected: Rejected images; only the first of a location has them.
    """

    location_id: str
    reference: str
    hub: str
    images: tuple[SurveyedImage, ...]
    sets: tuple[PlannedSet, ...]
    matches: tuple[PairMatch, ...]
    rejected: tuple[Rejection, ...]


def survey(
    reader: RasterReader, locations: Sequence[Location], sensors: Mapping[str, Sensor], parameters: CoregisterParameters
) -> list[Surveyed]:
    """Survey locations one after the other; files stay open between them.

    Args:
        reader: Opens and reads the scenes' files.
        locations: Squares with their scenes.
        sensors: Descriptions of the scenes' sensors, by id.
        parameters: The `coregister` group.

    Returns:
        One or more entries per location, in the order of the locations.
    """
    return [part for location in locations for part in _survey_location(reader, location, sensors, parameters)]


def compared_bands(sensor: Sensor) -> tuple[str, ...]:
    """Choose up to three bands that show structure well: red, near and short-wave infrared where there are any."""
    by_common = {band.common_name: band.name for band in reversed(sensor.bands)}
    found = [next((by_common[name] for name in names if name in by_common), None) for names in _COMPARED]
    return tuple(name for name in found if name) or sensor.band_names[:3]


def _survey_location(
    reader: RasterReader, location: Location, sensors: Mapping[str, Sensor], parameters: CoregisterParameters
) -> list[Surveyed]:
    looked: dict[str, tuple[SurveyedImage, BandStack]] = {}
    rejected: dict[str, Rejection] = {}

    def accept(scene: Scene) -> bool:
        if scene.scene_id not in looked and scene.scene_id not in rejected:
            result = _look(reader, scene, sensors[scene.sensor], location.footprint, parameters)
            if isinstance(result, Rejection):
                rejected[scene.scene_id] = result
            else:
                looked[scene.scene_id] = result
        return scene.scene_id in looked

    recipes = {k: r for k, r in parameters.recipes.items() if r is not None and r.is_at(location.lon, location.lat)}
    tries = parameters.quality.max_candidates
    sets = group(location.scenes, recipes, lat=location.lat, max_candidates=tries, accept=accept)
    used = sorted({scene_id for planned in sets for scene_id in planned.scenes})
    for scene_id in looked.keys() - set(used):
        rejected[scene_id] = Rejection(scene_id, "incomplete_set", _INCOMPLETE)
    if not used:
        detail = _no_recipe(location.scenes, recipes)
        for scene in location.scenes:
            rejected.setdefault(scene.scene_id, Rejection(scene.scene_id, "no_recipe", detail))
    location_id, rejections = location.footprint.location_id, tuple(rejected[key] for key in sorted(rejected))
    if not used:
        return [Surveyed(location_id, "", "", (), (), (), rejections)]

    def clearest(scene_id: str) -> tuple[int, float, str]:
        # Among equally clear ones the finest, then the first by id, so that neighbours agree.
        facts, picture = looked[scene_id]
        return int((1 - facts.valid_fraction) * 20), picture.gsd_m, scene_id

    hub = min(used, key=clearest)
    matches = tuple(_matches(hub, used, {k: v[1] for k, v in looked.items()}, parameters))
    placed = {hub} | {pair.moving for pair in matches if pair.trusted}
    found: list[Surveyed] = []
    for reference, together in _by_reference(sets, lambda scene_id: (scene_id not in placed, clearest(scene_id))):
        members = sorted({scene_id for planned in together for scene_id in planned.scenes})
        images = tuple(looked[scene_id][0] for scene_id in members)
        found.append(Surveyed(location_id, reference, hub, images, together, matches, () if found else rejections))
    return found


def _no_recipe(scenes: Sequence[Scene], recipes: Mapping[str, Recipe]) -> str:
    """Say which scenes there are at a location, and which ones the recipes ask for."""
    seen = ", ".join(f"{sensor} {count}" for sensor, count in Counter(scene.sensor for scene in scenes).items())
    wanted = ", ".join(f"{kind} ({recipe.wants})" for kind, recipe in recipes.items())
    return f"not read: the scenes here ({seen}) fill none of coregister.recipes: {wanted or 'all are off'}"


def _by_reference(
    sets: Sequence[PlannedSet], rank: Callable[[str], tuple[bool, tuple[int, float, str]]]
) -> Iterator[tuple[str, tuple[PlannedSet, ...]]]:
    """Share references among sets: the image that most sets have is theirs, of several the one of the lowest rank."""
    left = list(sets)
    while left:
        served = Counter(scene_id for planned in left for scene_id in planned.scenes)
        reference = min(served, key=lambda scene_id: (-served[scene_id], rank(scene_id)))
        yield reference, tuple(planned for planned in left if reference in planned.scenes)
        left = [planned for planned in left if reference not in planned.scenes]


def _look(
    reader: RasterReader, scene: Scene, sensor: Sensor, footprint: Footprint, parameters: CoregisterParameters
) -> tuple[SurveyedImage, BandStack] | Rejection:
    """Read an image's masks and compared bands and hold them against the quality gate."""
    quality = parameters.quality
    try:
        grid = footprint.grid(sensor.gsd_m)
        image = read_image(reader, scene, sensor, grid, parameters.clouds, bands=compared_bands(sensor))
    except ReadError as error:
        return Rejection(scene.scene_id, error.reason, str(error))
    if image.seen_fraction < quality.min_valid_fraction:
        return Rejection(
            scene.scene_id,
            "nodata",
            f"{image.seen_fraction:.0%} of the footprint was seen, coregister.quality.min_valid_fraction asks for"
            f" {quality.min_valid_fraction:.0%}",
        )
    if image.cloud_fraction > quality.max_cloud_fraction:
        told = "the cloud mask" if scene.mask is not None else "the brightness test"
        return Rejection(
            scene.scene_id,
            "cloud",
            f"{image.cloud_fraction:.0%} is cloud or shadow by {told}, coregister.quality.max_cloud_fraction allows"
            f" {quality.max_cloud_fraction:.0%}",
        )
    if image.valid_fraction < quality.min_valid_fraction:
        return Rejection(
            scene.scene_id,
            "nodata",
            f"{image.valid_fraction:.0%} of the footprint is usable (seen and clear),"
            f" coregister.quality.min_valid_fraction asks for {quality.min_valid_fraction:.0%}",
        )
    facts = SurveyedImage(scene.scene_id, image.cloud_fraction, image.valid_fraction, *_range_of(image))
    picture = BandStack(image.physical, image.valid, sensor.gsd_m, footprint.size_m, scene.datetime)
    return facts, picture


def _range_of(image: Image) -> tuple[float, float]:
    """Estimate the 1st percentile of the darkest band and the 99th of the brightest, physical units."""
    valid = np.flatnonzero(image.valid)
    chosen = valid[:: max(1, len(valid) // _RANGE_PIXELS)]
    values: NDArray[np.float32] = image.physical.reshape(len(image.physical), -1)[:, chosen]
    low, high = np.percentile(values, (1, 99), axis=1)
    return float(low.min()), float(high.max())


def _matches(
    hub: str, used: Sequence[str], pictures: Mapping[str, BandStack], parameters: CoregisterParameters
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
