"""Build the image-set store and its tables from the scene and location tables: survey, register, warp, write.

Every step keeps what it has finished beside the store. A build that was stopped anywhere goes on from there, and ends
with the same bytes for any number of workers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from tqdm import tqdm

from a2mae.errors import A2maeError, InputError
from a2mae.files import PART
from a2mae.parallel import Crew, warm_up
from a2mae.plausibility import Clipped, check_clipped, warn_of_fill
from a2mae.raster.mosaics import prefer_single
from a2mae.raster.read import close_kept
from a2mae.raster.warp import Footprint
from a2mae.registration.network import Offsets, pool, positions
from a2mae.remote.fetch import TRANSIENT
from a2mae.remote.policy import RemoteAccess
from a2mae.remote.storage import Folder, Parts
from a2mae.remote.verify import LEDGER, tell_unverified, verifying
from a2mae.scenes import Scene, scenes_from_table
from a2mae.sensors import Sensor
from a2mae.stssd.coregister.survey import Location, Rejection, Surveyed
from a2mae.stssd.coregister.tables import (
    BuiltTables,
    PlacedImage,
    complete_sets,
    image_table,
    log_result,
    rejected_table,
    tell_missing,
)
from a2mae.stssd.coregister.work import (
    CLIPPED,
    SURVEY,
    SURVEYED,
    UNIFORM,
    Fingerprints,
    ShardTask,
    SurveyTask,
    shard_task,
    survey_task,
)
from a2mae.stssd.parameters import CoregisterParameters, check_recipes
from a2mae.stssd.store.ledger import Shard
from a2mae.stssd.store.store import COPY
from a2mae.stssd.store.writer import SensorPlan, StoreWriter
from a2mae.tables import LOCATION_COLUMNS, SCENE_COLUMNS, check_columns

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What a build starts from.

    Attributes:
        scenes: Accepted scenes by id.
        sensors: Descriptions of their sensors by id.
        parameters: The `coregister` group.
        url: Where the store goes.
        locations: Locations that scenes cover.
        access: How the scenes' files are reached.
        run: Id of this run: a worker keeps files open until a task of another run comes.
    """

    scenes: Mapping[str, Scene]
    sensors: Mapping[str, Sensor]
    parameters: CoregisterParameters
    url: str
    locations: Sequence[Location]
    access: RemoteAccess
    run: str = field(default_factory=lambda: uuid.uuid4().hex)


def build(
    scenes_table: pd.DataFrame,
    locations_table: gpd.GeoDataFrame,
    sensors: Mapping[str, Sensor],
    parameters: CoregisterParameters,
    url: str,
    *,
    access: RemoteAccess | None = None,
) -> BuiltTables:
    """Build the store and its tables, or go on with a build that was stopped.

    Args:
        scenes_table: `SCENE_COLUMNS` and geometry.
        locations_table: `LOCATION_COLUMNS` and geometry.
        sensors: Descriptions of the sensors in the scene table, by id.
        parameters: The `coregister` group.
        url: Where the store goes; work in progress is kept beside it in `<url>.work`.
        access: How remote files are reached; its `reading` is replaced by that of `parameters`. None: unsigned, and
            redirects are followed wherever they lead.

    Returns:
        Registered images, rejections and the store's manifest hash.

    Raises:
        InputError: If no scene covers any location, a footprint does not fit a sensor's grid, or a table was written
            by an earlier version.
        StoreError: If `url` holds something else.
        WorkerLostError: If a local worker was killed.
        BuildIncompleteError: If images could not be reached and `fail_if_unreachable` is set.
    """
    check_columns(scenes_table, SCENE_COLUMNS, "scenes", "ingest")
    check_columns(locations_table, LOCATION_COLUMNS, "locations", "ingest")
    if parameters.workers != 1 and parameters.dask_scheduler is None:
        warm_up(survey_task, shard_task)
    scenes = {scene.scene_id: scene for scene in scenes_from_table(scenes_table)}
    locations = covered_locations(list(scenes.values()), locations_table, parameters.quality.min_valid_fraction)
    if not locations:
        raise InputError(
            f"none of {len(scenes)} accepted scenes covers any of {len(locations_table)} locations:"
            " look at the scenes and locations tables of the ingest pipeline"
        )
    sizes = {location.footprint.size_m for location in locations}
    if len(sizes) > 1:
        raise InputError(f"locations have footprints of {sorted(sizes)} m: one store holds squares of one size")
    used = {scene.scene_id: scene for location in locations for scene in location.scenes}
    for sensor_id in sorted({scene.sensor for scene in used.values()}):
        locations[0].footprint.grid(sensors[sensor_id].gsd_m)  # raises before any work if the footprint does not fit
    check_recipes(parameters.recipes, sensors)
    access = replace(access or RemoteAccess(), reading=parameters.reading)
    inputs = _Inputs(scenes, sensors, parameters, url, locations, access)
    tell_unverified((a for scene in used.values() for a in scene.assets), parameters.reading.verify_checksums)
    fingerprints = Fingerprints(used, sensors, parameters)
    fingerprint = fingerprints.of_build(locations)
    verified = verifying(Folder(f"{url}.work"), parameters.reading.verify_checksums)
    with verified, Crew(parameters.workers, parameters.dask_scheduler) as crew:
        try:
            surveyed = _survey(inputs, fingerprint, crew)
            # Sets of a location that have another reference share its comparisons.
            matches = {seen.location_id: seen.matches for seen in surveyed}
            offsets = pool(matches.values(), min_locations=parameters.registration.pool_locations)
            images, rejections = _place_images(inputs, surveyed, offsets)
            failed, manifest = _write(inputs, images, fingerprint, fingerprints, crew)
        finally:
            close_kept()
    sets = complete_sets(images, failed, surveyed, parameters)
    tables = BuiltTables(
        image_table(sets, sensors, parameters),
        rejected_table(images, sets, rejections, failed, used),
        manifest,
    )
    log_result(tables, sensors.values(), locations=len(locations), pooled=len(offsets.part))
    tell_missing(tables.rejected, parameters)
    return tables


def covered_locations(scenes: Sequence[Scene], locations: gpd.GeoDataFrame, min_covered: float) -> list[Location]:
    """Find the locations that scenes cover, with those scenes.

    Args:
        scenes: Accepted scenes.
        locations: `LOCATION_COLUMNS` and geometry.
        min_covered: Share of a square that a scene must cover at least, 0 to 1.

    Returns:
        Locations in the order of the table, the scenes of each by id.
    """
    squares = np.asarray(locations.geometry.values)
    outlines = np.array([scene.geometry for scene in scenes], dtype=object)
    tree = shapely.STRtree(squares)
    # Most squares lie inside their scenes, which a prepared outline tells at once; only the others are cut.
    of_scene, of_location = tree.query(outlines, predicate="intersects")
    shapely.prepare(outlines)
    whole = shapely.covers(outlines[of_scene], squares[of_location])
    covered = whole.astype(np.float64)
    cut, cut_scene = of_location[~whole], of_scene[~whole]
    covered[~whole] = shapely.area(shapely.intersection(squares[cut], outlines[cut_scene])) / shapely.area(squares[cut])
    keep = covered >= min_covered
    keep[keep] = prefer_single(of_location[keep], of_scene[keep], covered[keep], scenes)
    # By location, then by scene id. Neighbours share one tuple of scenes, which saves most of the memory of a million.
    by_id = np.argsort(np.argsort(np.array([scene.scene_id for scene in scenes], dtype=str), kind="stable"))
    pairs = np.lexsort((by_id[of_scene[keep]], of_location[keep]))
    of_location, of_scene = of_location[keep][pairs], of_scene[keep][pairs]
    found, starts = np.unique(of_location, return_index=True)
    ends = np.append(starts, len(of_location))[1:]
    shared: dict[tuple[int, ...], tuple[Scene, ...]] = {}

    def scenes_of(start: int, stop: int) -> tuple[Scene, ...]:
        key = tuple(of_scene[start:stop].tolist())
        return shared.setdefault(key, tuple(scenes[k] for k in key))

    rows = locations[LOCATION_COLUMNS.names].iloc[found].itertuples()
    return [
        Location(
            Footprint(str(row.location_id), str(row.crs), float(row.x_m), float(row.y_m), float(row.footprint_m)),
            float(row.lon),
            float(row.lat),
            scenes_of(start, stop),
        )
        for row, start, stop in zip(rows, starts.tolist(), ends.tolist(), strict=True)
    ]


def _survey(inputs: _Inputs, fingerprint: str, crew: Crew) -> list[Surveyed]:
    """Survey the locations that no earlier run of the same build has surveyed; return all, in order."""
    locations, sensors, parameters = inputs.locations, inputs.sensors, inputs.parameters
    work = Folder(f"{inputs.url}.work")
    for name in {key.split("/")[0] for key in work.sizes()} - {SURVEY, LEDGER, COPY}:
        work.remove(name)  # of an earlier version
    parts = Parts(Folder(f"{work.url}/{SURVEY}"), fingerprint)
    for name in parts.keys():
        if name.endswith(PART):  # of a killed worker
            parts.folder.remove(name)
    size = parameters.locations_per_task
    used = {s.sensor: sensors[s.sensor] for location in locations for s in location.scenes}
    keys = [f"{start:08d}-{start + size:08d}" for start in range(0, len(locations), size)]
    done = {key for key in parts.keys() & set(keys) if not _lacks_something(parts.get(key))}
    if not done:
        parts.clear()  # of another fingerprint
    tasks = [
        SurveyTask(
            inputs.run,
            work.url,
            key,
            fingerprint,
            tuple(locations[k * size : (k + 1) * size]),
            used,
            parameters,
            inputs.access,
        )
        for k, key in enumerate(keys)
        if key not in done
    ]
    if done:
        logger.info("Going on with a survey: %d of %d parts are done", len(done), len(keys))
    for _ in tqdm(crew.run(survey_task, tasks), total=len(tasks), desc="survey", unit="part", disable=not tasks):
        pass
    surveyed: list[Surveyed] = []
    for key in keys:
        part = parts.get(key)
        if part is None:
            raise A2maeError(f"{parts.folder.key(key)} vanished while the survey was running: run the build again")
        surveyed += SURVEYED.validate_json(part)
    return surveyed


def _lacks_something(part: bytes | None) -> bool:
    """Check whether a part of the survey is not there or could not reach an image that may be there by now."""
    return part is None or any(
        rejection.reason in TRANSIENT for place in SURVEYED.validate_json(part) for rejection in place.rejected
    )


def _place_images(
    inputs: _Inputs, surveyed: Sequence[Surveyed], offsets: Offsets
) -> tuple[list[PlacedImage], list[tuple[str, Rejection]]]:
    """Give every image its position and its row in the store; rows of a sensor follow the locations.

    Returns:
        The images, and rejections with their location's id.
    """
    scenes, sensors = inputs.scenes, inputs.sensors
    gsd_m = {scene_id: sensors[scene.sensor].gsd_m for scene_id, scene in scenes.items()}
    rows: Counter[str] = Counter()
    images: list[PlacedImage] = []
    rejections: list[tuple[str, Rejection]] = []
    locations = {location.footprint.location_id: location for location in inputs.locations}
    for seen in surveyed:
        rejections += [(seen.location_id, rejection) for rejection in seen.rejected]
        facts = {image.scene_id: image for image in seen.images}
        put = positions(facts, seen.matches, offsets, gsd_m, reference=seen.reference, hub=seen.hub)
        for scene in sorted((scenes[scene_id] for scene_id in put), key=lambda scene: (scene.datetime, scene.scene_id)):
            position = put[scene.scene_id]
            if position.registration == "nominal" and not inputs.parameters.keep_nominal:
                detail = "its position could not be told and coregister.keep_nominal is false"
                rejections.append((seen.location_id, Rejection(scene.scene_id, "unregistered", detail)))
                continue
            row = rows[scene.sensor]
            location, known = locations[seen.location_id], facts[scene.scene_id]
            images.append(PlacedImage(location, seen.reference, scene, row, known, position))
            rows[scene.sensor] += 1
    return images, rejections


def _write(
    inputs: _Inputs, images: Sequence[PlacedImage], fingerprint: str, fingerprints: Fingerprints, crew: Crew
) -> tuple[dict[tuple[str, int], Rejection], str]:
    """Write the shards that are not there yet.

    Returns:
        Images that could not be read, by sensor and row, and the store's manifest hash.
    """
    sensors, url = inputs.sensors, inputs.url
    by_sensor: dict[str, list[PlacedImage]] = {}
    for image in images:
        by_sensor.setdefault(image.scene.sensor, []).append(image)
    plans = []
    for sensor_id, members in sorted(by_sensor.items()):
        height, width = members[0].location.footprint.grid(sensors[sensor_id].gsd_m).shape
        plans.append(SensorPlan(sensors[sensor_id], len(members), height, width))
    # Shards fit only the survey that they were made by: an image that was out of reach then moves the rows after it.
    rows = [
        [image.scene.sensor, image.scene.scene_id, image.location.footprint.location_id, *astuple(image.position)]
        for image in images
    ]
    content = hashlib.sha256(json.dumps([fingerprint, rows]).encode()).hexdigest()

    def images_of(shard: Shard) -> list[tuple[Scene, Footprint, tuple[float, float]]]:
        return [
            (image.scene, image.location.footprint, (image.position.shift_x_m, image.position.shift_y_m))
            for image in by_sensor[shard.sensor][shard.start : shard.stop]
        ]

    def made_of(shard: Shard) -> str:
        return fingerprints.of_images(shard.sensor, images_of(shard))

    writer = StoreWriter.create(url, plans, fingerprint=content, made_of=made_of, again=_unreached)
    shards = writer.pending()
    if len(shards) < len(writer.shards()):
        logger.info(
            "Going on with a store: %d of %d shards are there",
            len(writer.shards()) - len(shards),
            len(writer.shards()),
        )
    tasks = [
        ShardTask(
            inputs.run,
            url,
            shard,
            sensors[shard.sensor],
            tuple(images_of(shard)),
            inputs.parameters.clouds,
            inputs.access,
            made_of(shard),
        )
        # Large ones first, so that workers end together.
        for shard in sorted(shards, key=lambda shard: -_pixels(shard, sensors, by_sensor))
    ]
    for _ in tqdm(crew.run(shard_task, tasks), total=len(tasks), desc="write", unit="shard", disable=not tasks):
        pass
    manifest = writer.finish()
    failed: dict[tuple[str, int], Rejection] = {}
    notes = dict(writer.notes())
    check_clipped(
        (sensor, _clipped(notes.get(shard, {}), len(sensor.bands), _pixels(shard, sensors, by_sensor)))
        for shard in writer.shards()
        for sensor in (sensors[shard.sensor],)
    )
    filled: dict[str, float] = {}
    for shard, note in notes.items():
        for entry in note.get(UNIFORM, []):
            scene_id = by_sensor[shard.sensor][int(entry["row"])].scene.scene_id
            filled[scene_id] = max(filled.get(scene_id, 0.0), float(entry["share"]))
        entries = note.get("failed", [])
        assert isinstance(entries, list)
        for entry in entries:
            row = int(entry["row"])
            scene_id = by_sensor[shard.sensor][row].scene.scene_id
            failed[shard.sensor, row] = Rejection(scene_id, str(entry["reason"]), str(entry["detail"]))
    warn_of_fill(filled)
    return failed, manifest


def _unreached(note: Mapping[str, object]) -> bool:
    """Check whether a shard lacks an image that may be reached by now."""
    entries = note.get("failed", [])
    assert isinstance(entries, list)
    return any(entry["reason"] in TRANSIENT for entry in entries)


def _clipped(note: Mapping[str, Any], bands: int, values: int) -> Clipped:
    """What a shard's note says of values beyond the encoding; a shard without has none among all of its pixels."""
    told = note.get(CLIPPED)
    return Clipped((0,) * bands, values // bands) if told is None else Clipped(tuple(told["px"]), int(told["of"]))


def _pixels(shard: Shard, sensors: Mapping[str, Sensor], images: Mapping[str, Sequence[PlacedImage]]) -> int:
    """Count the values of a shard."""
    height, width = images[shard.sensor][0].location.footprint.grid(sensors[shard.sensor].gsd_m).shape
    return (shard.stop - shard.start) * len(sensors[shard.sensor].bands) * int(height * width)
