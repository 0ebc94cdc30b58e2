"""Make the scene table, the location table and the table of rejected scenes from a source."""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from a2mae.errors import InputError, UnfinishedError, plural
from a2mae.raster.footprints import box_lonlat
from a2mae.raster.mosaics import mosaics
from a2mae.remote.policy import load_signer
from a2mae.scenes import RejectedScene, Scene, rejected_to_table, scenes_to_table, sensors_to_json
from a2mae.sensors import Sensor, UnknownSensorError, get_sensor
from a2mae.stssd.ingest.checks import Found, SensorTable
from a2mae.stssd.ingest.folder import read_folder
from a2mae.stssd.ingest.locations import NoLocationError, find_locations
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.ingest.stac import read_stac_api, read_stac_catalog

logger = logging.getLogger(__name__)

_ONE_VIEW = dt.timedelta(minutes=1)
_SAME_GROUND = 0.9
_CHOSEN = ("excluded", "band_not_used", "sensor_not_used")  # by the user


@dataclass(frozen=True)
class Ingested:
    """What `ingest` makes.

    Attributes:
        scenes: Scene table, accepted and rejected.
        locations: Location table.
        rejected: Rejected scenes and files with their reasons (`REJECTED_COLUMNS`).
        sensors: Full description of the sensors in use, by id.
        stac_items: Items that an API gave, as a FeatureCollection that replays the stage without it; no features for
            other sources.
    """

    scenes: gpd.GeoDataFrame
    locations: gpd.GeoDataFrame
    rejected: pd.DataFrame
    sensors: dict[str, object]
    stac_items: dict[str, object]


def ingest(parameters: IngestParameters, *, simulated_catalog: Path | None = None) -> Ingested:
    """Read the source, reject what cannot be used, and lay out the locations.

    Args:
        parameters: The `ingest` group.
        simulated_catalog: Catalog of this run's simulation, used when no other source is named.

    Raises:
        InputError: If parameters do not fit; the message says what to change.
        UnfinishedError: If nothing usable is found; the message counts the reasons, and the rejected come with it.
    """
    own = parameters.own_sensors()
    table = SensorTable(own, parameters.bands, parameters.use_sensors)
    table.check()
    _check_named(parameters, own)
    load_signer(parameters.source.signing)  # a hook that cannot be imported is told before anything is read
    found = _read(parameters, table, simulated_catalog)
    scenes, rejected = _select(found, parameters)
    if not scenes:
        raise UnfinishedError(_nothing(rejected, parameters), {"refused_scenes": rejected_to_table(rejected)})
    joined = mosaics(scenes) if parameters.mosaics else []
    sensors = [table.get(sensor_id) for sensor_id in sorted({scene.sensor for scene in scenes})]
    try:
        places = find_locations([*scenes, *joined], sensors, parameters.locations)
    except NoLocationError as error:
        told = f"{_rejected_first(rejected)}{error}"
        raise UnfinishedError(told, {"refused_scenes": rejected_to_table(rejected)}) from error
    side = parameters.locations.footprint_m
    unused = set(places.unused)
    joined = [scene for scene in joined if scene.scene_id not in unused]
    in_mosaic = {part[0].href for scene in joined for part in scene.parts}
    detail = f"usable, but no square of {side:g} m that enough scenes share lies in it (ingest.locations)"
    off = [
        scene.rejected("no_location", detail)
        for scene in scenes
        if scene.scene_id in unused and scene.assets[0].href not in in_mosaic
    ]
    _log([*scenes, *joined], rejected, off, places.table)
    return Ingested(
        scenes=scenes_to_table([*scenes, *joined], rejected),
        locations=places.table,
        rejected=rejected_to_table([*rejected, *off]),
        sensors=sensors_to_json(sensors),
        stac_items={"type": "FeatureCollection", "features": found.items},
    )


def _check_named(parameters: IngestParameters, own: Mapping[str, Sensor]) -> None:
    """Check that rules and profiles name sensors that exist: all their scenes would be rejected otherwise."""
    for group, named in (("rules", parameters.rules), ("stac_profiles", parameters.stac_profiles)):
        for entry in named:
            try:
                get_sensor(entry.sensor, own)
            except UnknownSensorError as error:
                raise InputError(f"ingest.{group}, {entry.name!r}: {error}") from error


def _read(parameters: IngestParameters, table: SensorTable, simulated: Path | None) -> Found:
    kind = parameters.source_kind
    if kind == "folder":
        return read_folder(parameters, table)
    if kind == "stac_api":
        return read_stac_api(parameters, table)
    return read_stac_catalog(parameters, table, default=simulated)


def _select(found: Found, parameters: IngestParameters) -> tuple[list[Scene], list[RejectedScene]]:
    """Apply the limits of time, cloud and area, and keep ids unique."""
    rejected = list(found.rejected)
    bbox = None if parameters.source_kind == "folder" else parameters.source.api.bbox
    area = None if bbox is None else box_lonlat(*bbox)
    kept: dict[str, Scene] = {}
    for scene in sorted(found.scenes, key=lambda scene: scene.scene_id):
        reason = _outside(scene, parameters, area)
        if reason is None and scene.scene_id in kept:
            reason = ("duplicate", "another scene has the same id; the first one is used")
        if reason is None:
            kept[scene.scene_id] = scene
        else:
            rejected.append(scene.rejected(*reason))
    return _newest(list(kept.values()), rejected), rejected


def _newest(scenes: Sequence[Scene], rejected: list[RejectedScene]) -> list[Scene]:
    """Keep the latest processing of an acquisition: baseline first, then time; the others go to `rejected`.

    One acquisition is the same sensor, platform and grid within a minute (processings differ by fractions of a second)
    and the same ground: two parts of a tile, of two data strips, complete each other.
    """
    by_grid: dict[object, list[Scene]] = defaultdict(list)
    for scene in scenes:
        first = scene.bands[0]
        by_grid[scene.sensor, scene.platform, first.crs, first.transform, first.shape].append(scene)
    best: dict[str, Scene] = {}
    for together in by_grid.values():
        together.sort(key=lambda scene: scene.datetime)
        started = [k for k, s in enumerate(together) if k == 0 or s.datetime - together[k - 1].datetime > _ONE_VIEW]
        for start, end in zip(started, [*started[1:], len(together)], strict=True):
            latest = max(together[start:end], key=_version)
            best |= {scene.scene_id: latest for scene in together[start:end]}
    kept = []
    for scene in scenes:
        latest = best[scene.scene_id]
        same = shapely.intersection(scene.geometry, latest.geometry).area > _SAME_GROUND * scene.geometry.area
        if _version(scene) == _version(latest) or not same:
            kept.append(scene)
            continue
        newer = latest.processing_baseline != scene.processing_baseline
        how = f"with baseline {latest.processing_baseline}" if newer else f"on {latest.processed:%Y-%m-%d %H:%M}"
        rejected.append(scene.rejected("superseded", f"processed again {how}: {latest.scene_id}"))
    return kept


def _version(scene: Scene) -> tuple[str, dt.datetime]:
    return scene.processing_baseline or "", scene.processed or dt.datetime.min.replace(tzinfo=dt.UTC)


def _outside(scene: Scene, parameters: IngestParameters, area: BaseGeometry | None) -> tuple[str, str] | None:
    start, end = parameters.datetime_start, parameters.datetime_end
    if (start and scene.datetime < start) or (end and scene.datetime > end):
        return "outside_time", f"taken {scene.datetime:%Y-%m-%d}, outside ingest.datetime_start/datetime_end"
    cloud = scene.cloud_cover_pct
    if cloud is not None and cloud > parameters.max_cloud_cover_pct:
        return "cloud_cover", f"{cloud:g} % cloud by its provider, ingest.max_cloud_cover_pct allows less"
    if area is not None and not shapely.intersects(scene.geometry, area):
        return "outside_area", "lies outside ingest.source.api.bbox"
    return None


def _reasons(rejected: Iterable[RejectedScene]) -> str:
    counts = Counter(r.reason for r in rejected)
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))


def _nothing(rejected: Sequence[RejectedScene], parameters: IngestParameters) -> str:
    """Say why there is no scene, and what to change."""
    if not rejected:
        where = {
            "folder": "the folder's names need rules under ingest.rules",
            "stac_api": "widen bbox, datetime or filter under ingest.source.api",
            "stac_catalog": "point ingest.source.catalog at another catalog",
        }
        return f"no scene found: {where[parameters.source_kind]}"
    return f"no usable scene among {len(rejected)} rejected ({_reasons(rejected)}). For example {_examples(rejected)}."


def _rejected_first(rejected: Sequence[RejectedScene]) -> str:
    """Count what was rejected before a sentence on what is left: that is where scenes that are missing went."""
    lost = [one for one in rejected if one.reason not in _CHOSEN]
    if not lost:
        return ""
    return (
        f"{plural(len(lost), 'scene or file was', 'scenes and files were')} rejected ({_reasons(lost)}), listed in"
        f" refused_scenes.parquet; for example {_examples(lost)}. With what is left, "
    )


def _examples(rejected: Sequence[RejectedScene]) -> str:
    different = list({r.detail: r for r in reversed(rejected)}.values())[::-1]
    return "; ".join(f"{r.scene_id}: {r.detail.rstrip('.')}" for r in different[:3])


def _log(
    scenes: Sequence[Scene], rejected: Sequence[RejectedScene], off: Sequence[RejectedScene], table: gpd.GeoDataFrame
) -> None:
    sensors = Counter(scene.sensor for scene in scenes)
    logger.info(
        "Ingested %s (%s) and %s; rejected %d%s; %s no location.",
        plural(len(scenes), "scene"),
        ", ".join(f"{sensor} {count}" for sensor, count in sorted(sensors.items())),
        plural(len(table), "location"),
        len(rejected),
        f" ({_reasons(rejected)})" if rejected else "",
        plural(len(off), "usable scene reaches", "usable scenes reach"),
    )
