"""The tables that a build returns: registered images and rejections."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import geopandas as gpd
import pandas as pd
import pyarrow as pa

from a2mae.sensors import Sensor
from a2mae.stssd.building.parameters import CoregisterParameters
from a2mae.stssd.building.pooling import Position
from a2mae.stssd.building.recipes import Recipe
from a2mae.stssd.building.sets import PlannedSet
from a2mae.stssd.building.survey import Refusal, Surveyed, SurveyedImage
from a2mae.stssd.pixels.warp import Footprint, stored_encoding_note
from a2mae.stssd.scenes import CloudTest, Scene
from a2mae.stssd.tables import IMAGE_COLUMNS, REJECTED_COLUMNS

_BATCH_ROWS = 50_000


@dataclass(frozen=True)
class PlacedImage:
    """An image with its place in the store.

    Attributes:
        footprint: Its square.
        reference: Scene id of the image that it was moved to.
        scene_id: Scene.
        sensor: Sensor id.
        row: Row of the sensor's array.
        facts: From the survey.
        position: Shift and its quality.
    """

    footprint: Footprint
    reference: str
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


def image_table(
    images: Sequence[PlacedImage],
    failed: Mapping[tuple[str, int], Refusal],
    surveyed: Sequence[Surveyed],
    *,
    parameters: CoregisterParameters,
    scenes: Mapping[str, Scene],
    sensors: Mapping[str, Sensor],
    locations: gpd.GeoDataFrame,
) -> pd.DataFrame:
    """`IMAGE_COLUMNS` of the sets that are complete after what failed while it was read for the store."""
    centres = {
        str(key): (float(lon), float(lat))
        for key, lon, lat in zip(locations["location_id"], locations["lon"], locations["lat"], strict=True)
    }

    def rows() -> Iterator[dict[str, object]]:
        for place, planned, members in _complete_sets(images, failed, surveyed, parameters):
            set_id = f"{place.location_id}-{planned.kind}" + (f"-{planned.number}" if planned.number else "")
            for image in members:
                scene, sensor = scenes[image.scene_id], sensors[image.sensor]
                yield _row(set_id, image, scene, sensor, centres[place.location_id]) | {
                    "is_reference": image.scene_id == place.reference,
                    "bands": _recipe(planned, parameters).bands_of(sensor),
                }

    return _frame(rows(), IMAGE_COLUMNS)


def rejected_table(
    images: Sequence[PlacedImage],
    refusals: Sequence[tuple[str, Refusal]],
    failed: Mapping[tuple[str, int], Refusal],
    surveyed: Sequence[Surveyed],
    *,
    parameters: CoregisterParameters,
    scenes: Mapping[str, Scene],
) -> pd.DataFrame:
    """`REJECTED_COLUMNS`: what the survey refused, what could not be read, and what lost its set by that."""
    used = {
        (place.location_id, place.reference, image.scene_id)
        for place, _, members in _complete_sets(images, failed, surveyed, parameters)
        for image in members
    }
    out = list(refusals)
    for image in images:
        key = (image.footprint.location_id, image.reference, image.scene_id)
        if (image.sensor, image.row) in failed:
            out.append((key[0], failed[image.sensor, image.row]))
        elif key not in used:
            detail = "written, but its set lost too many other images while they were read"
            out.append((key[0], Refusal(image.scene_id, "incomplete_set", detail)))
    rows = (
        {
            "scene_id": refusal.scene_id,
            "location_id": location_id,
            "sensor": scenes[refusal.scene_id].sensor,
            "datetime": scenes[refusal.scene_id].datetime.astimezone(dt.UTC),
            "stage": "coregister",
            "reason": refusal.reason,
            "detail": refusal.detail,
        }
        for location_id, refusal in out
    )
    return _frame(rows, REJECTED_COLUMNS)


def _complete_sets(
    images: Sequence[PlacedImage],
    failed: Mapping[tuple[str, int], Refusal],
    surveyed: Sequence[Surveyed],
    parameters: CoregisterParameters,
) -> Iterator[tuple[Surveyed, PlannedSet, list[PlacedImage]]]:
    written = {
        (image.footprint.location_id, image.reference, image.scene_id): image
        for image in images
        if (image.sensor, image.row) not in failed
    }
    for place in surveyed:
        for planned in place.sets:
            keys = [(place.location_id, place.reference, scene_id) for scene_id in planned.scenes]
            members = [written[key] for key in keys if key in written]
            if _complete(planned, members, parameters):
                yield place, planned, members


def _complete(planned: PlannedSet, members: Sequence[PlacedImage], parameters: CoregisterParameters) -> bool:
    recipe = _recipe(planned, parameters)
    sources = len({image.sensor for image in members})
    return len(members) >= recipe.min_images and sources >= (len(recipe.sources) or recipe.min_sources)


def _recipe(planned: PlannedSet, parameters: CoregisterParameters) -> Recipe:
    recipe = parameters.recipes[planned.kind]
    assert recipe is not None
    return recipe


def _row(
    set_id: str,
    image: PlacedImage,
    scene: Scene,
    sensor: Sensor,
    centre: tuple[float, float],
) -> dict[str, object]:
    position = image.position
    scale, offset = stored_encoding_note(scene, sensor)
    lon, lat = centre
    return {
        "image_id": f"{set_id}--{image.scene_id}",
        "set_id": set_id,
        "location_id": image.footprint.location_id,
        "sensor": sensor.id,
        "row": image.row,
        "datetime": scene.datetime.astimezone(dt.UTC),
        "gsd_m": sensor.gsd_m,
        "lon": lon,
        "lat": lat,
        "geosot": None,
        "cloud_fraction": None if scene.cloud_test is CloudTest.NONE else image.facts.cloud_fraction,
        "valid_fraction": image.facts.valid_fraction,
        "dark_value": image.facts.dark_value,
        "bright_value": image.facts.bright_value,
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


def _frame(rows: Iterable[dict[str, object]], schema: pa.Schema) -> pd.DataFrame:
    # Through Arrow, so that an empty or all-null column keeps its type; in batches, so that rows do not pile up.
    each = iter(rows)
    batches = iter(lambda: list(itertools.islice(each, _BATCH_ROWS)), [])
    table = pa.Table.from_batches(
        [pa.RecordBatch.from_pylist(batch, schema=schema) for batch in batches], schema=schema
    )
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.string(): pd.StringDtype(na_value=float("nan"))}.get)
    return frame
