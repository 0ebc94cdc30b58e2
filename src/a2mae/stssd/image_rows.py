"""The tables that a build returns: registered images and rejections."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import geopandas as gpd
import pandas as pd
import pyarrow as pa

from a2mae.sensors import Sensor
from a2mae.stssd.coregister_parameters import CoregisterParameters
from a2mae.stssd.pooling import Position
from a2mae.stssd.scenes import Scene
from a2mae.stssd.sets import PlannedSet
from a2mae.stssd.survey import Refusal, Surveyed, SurveyedImage
from a2mae.stssd.tables import IMAGE_COLUMNS, REJECTED_COLUMNS
from a2mae.stssd.warp import Footprint, stored_encoding_note


@dataclass(frozen=True)
class PlacedImage:
    """An image with its place in the store.

    Attributes:
        footprint: Its square.
        scene_id: Scene.
        sensor: Sensor id.
        row: Row of the sensor's array.
        facts: From the survey.
        position: Shift and its quality.
    """

    footprint: Footprint
    scene_id: str
    sensor: str
    row: int
    facts: SurveyedImage
    position: Position


@dataclass(frozen=True, eq=False)
class BuiltTables:
    """What a build returns beside the store.

    Attributes:
        images: `IMAGE_COLUMNS`; one row per set and image, so an image that serves two sets has two rows with the same
            `row`. `geosot` and `is_anchor` are filled by the tag stage.
        rejected: `REJECTED_COLUMNS`.
        manifest_hash: Of the store.
    """

    images: pd.DataFrame
    rejected: pd.DataFrame
    manifest_hash: str


def build_tables(
    images: Sequence[PlacedImage],
    refusals: Sequence[tuple[str, Refusal]],
    failed: Mapping[tuple[str, int], Refusal],
    surveyed: Sequence[Surveyed],
    parameters: CoregisterParameters,
    scenes: Mapping[str, Scene],
    sensors: Mapping[str, Sensor],
    locations: gpd.GeoDataFrame,
    manifest_hash: str,
) -> BuiltTables:
    """Make the tables; sets that lost too many images while writing are dropped with their reason."""
    out: list[tuple[str, Refusal]] = list(refusals)
    out += [
        (image.footprint.location_id, failed[image.sensor, image.row])
        for image in images
        if (image.sensor, image.row) in failed
    ]
    written = {
        (image.footprint.location_id, image.scene_id): image
        for image in images
        if (image.sensor, image.row) not in failed
    }
    centres = {
        str(key): (float(lon), float(lat))
        for key, lon, lat in zip(locations["location_id"], locations["lon"], locations["lat"], strict=True)
    }
    rows: list[dict[str, object]] = []
    used: set[tuple[str, str]] = set()
    for place in surveyed:
        for planned in place.sets:
            members = [written[place.location_id, s] for s in planned.scenes if (place.location_id, s) in written]
            if not _complete(planned, members, parameters):
                continue
            set_id = f"{place.location_id}-{planned.kind}" + (f"-{planned.number}" if planned.number else "")
            rows += [_row(set_id, image, place, centres, scenes, sensors) for image in members]
            used |= {(place.location_id, image.scene_id) for image in members}
    detail = "written, but its set lost too many other images while they were read"
    out += [(key[0], Refusal(key[1], "incomplete_set", detail)) for key in written if key not in used]
    rejected = [
        {
            "scene_id": refusal.scene_id,
            "location_id": location_id,
            "sensor": scenes[refusal.scene_id].sensor,
            "datetime": scenes[refusal.scene_id].datetime,
            "stage": "coregister",
            "reason": refusal.reason,
            "detail": refusal.detail,
        }
        for location_id, refusal in out
    ]
    return BuiltTables(_frame(rows, IMAGE_COLUMNS), _frame(rejected, REJECTED_COLUMNS), manifest_hash)


def _complete(planned: PlannedSet, members: Sequence[PlacedImage], parameters: CoregisterParameters) -> bool:
    recipe = parameters.recipes[planned.kind]
    assert recipe is not None
    sources = len({image.sensor for image in members})
    return len(members) >= recipe.min_images and sources >= (len(recipe.sources) or recipe.min_sources)


def _row(
    set_id: str,
    image: PlacedImage,
    place: Surveyed,
    centres: Mapping[str, tuple[float, float]],
    scenes: Mapping[str, Scene],
    sensors: Mapping[str, Sensor],
) -> dict[str, object]:
    scene, sensor, position = scenes[image.scene_id], sensors[image.sensor], image.position
    scale, offset = stored_encoding_note(scene, sensor)
    lon, lat = centres[place.location_id]
    return {
        "image_id": f"{set_id}--{image.scene_id}",
        "set_id": set_id,
        "location_id": place.location_id,
        "sensor": sensor.id,
        "row": image.row,
        "datetime": scene.datetime.astimezone(dt.UTC),
        "gsd_m": sensor.gsd_m,
        "lon": lon,
        "lat": lat,
        "geosot": None,
        "cloud_fraction": image.facts.cloud_fraction,
        "valid_fraction": image.facts.valid_fraction,
        "is_reference": image.scene_id == place.reference,
        "is_anchor": False,
        "registration": position.registration,
        "shift_x_m": position.shift_x_m,
        "shift_y_m": position.shift_y_m,
        "residual_px": position.residual_px,
        "registration_quality": position.quality,
        "scene_id": scene.scene_id,
        "processing_baseline": scene.processing_baseline,
        "source_scale": scale,
        "source_offset": offset,
    }


def _frame(rows: list[dict[str, object]], schema: pa.Schema) -> pd.DataFrame:
    # Through Arrow, so that an empty or all-null column keeps its type.
    frame: pd.DataFrame = pa.Table.from_pylist(rows, schema=schema).to_pandas(
        types_mapper={pa.string(): pd.StringDtype(na_value=float("nan"))}.get
    )
    return frame
