"""The tables that a build returns, and what it came to.

Which of the stored bands an image is to be used with: what the recipe of its set names, or all of them.

The tables that a build returns: registered images and rejections.

What a build came to: one line of figures, and what could not be reached.
"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from a2mae.errors import plural
from a2mae.plausibility import warn_of_offsets, warn_of_ranges
from a2mae.raster.warp import Footprint, stored_encoding_note
from a2mae.registration.network import Position
from a2mae.remote.fetch import DAMAGED, TRANSIENT
from a2mae.scenes import CloudTest, Scene
from a2mae.sensors import Sensor
from a2mae.stssd.coregister.sets import PlannedSet
from a2mae.stssd.coregister.survey import Refusal, Surveyed, SurveyedImage
from a2mae.stssd.parameters import CoregisterParameters, Recipe
from a2mae.tables import IMAGE_COLUMNS, REJECTED_COLUMNS

logger = logging.getLogger(__name__)


def bands_of_images(images: pd.DataFrame, bands: Mapping[str, Sequence[str]]) -> NDArray[np.bool_] | None:
    """Which bands of its sensor each image has.

    Args:
        images: Image table.
        bands: The stored bands of each sensor, in order.

    Returns:
        `(N, B)`; None where every image has all of them.

    Raises:
        ValueError: If the table names a band that is not stored.
    """
    if "bands" not in images or images["bands"].isna().all():
        return None
    mask = np.ones((len(images), max(len(bands[name]) for name in images["sensor"].unique())), dtype=np.bool_)
    some = np.flatnonzero(images["bands"].notna())
    for sensor, names in images.iloc[some].groupby("sensor", sort=False)["bands"]:
        rows = some[(images["sensor"].iloc[some] == sensor).to_numpy()]
        kinds = names.map(tuple)
        for kind in kinds.unique():  # a recipe's: few
            unknown = sorted(set(kind) - set(bands[str(sensor)]))
            if unknown:
                raise ValueError(
                    f"images.parquet names bands of {sensor} that the store does not have ({', '.join(unknown)}):"
                    " both must be of one run of coregister"
                )
            mask[np.ix_(rows[(kinds == kind).to_numpy()], range(len(bands[str(sensor)])))] = [
                name in kind for name in bands[str(sensor)]
            ]
    return None if mask.all() else mask


def with_bands(
    images: pd.DataFrame,
    mask: NDArray[np.bool_],
    bands: Mapping[str, Sequence[str]],
    needed: Mapping[str, Sequence[str]],
) -> NDArray[np.bool_]:
    """`(N,)`: which images have a band at all, and those that are needed.

    Args:
        images: Image table.
        mask: Of `bands_of_images`.
        bands: The stored bands of each sensor, in order.
        needed: Bands by sensor.
    """
    keep = np.zeros(len(images), dtype=np.bool_)
    for sensor in images["sensor"].unique():
        of_sensor = (images["sensor"] == sensor).to_numpy()
        wanted = [list(bands[sensor]).index(name) for name in needed.get(sensor, ())]
        has = mask[:, wanted].all(axis=1) if wanted else mask[:, : len(bands[sensor])].any(axis=1)
        keep |= of_sensor & has
    return keep


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


class BuildIncompleteError(RuntimeError):
    """Images could not be reached; what could be is kept, and the same build goes on with the others."""


def log_result(tables: BuiltTables, sensors: Iterable[Sensor], *, places: int, pooled: int) -> None:
    """Log how many images and sets were made of how many places, and how many were kept out for which reasons."""
    images, rejected = tables.images, tables.rejected
    states = images["registration"].value_counts().to_dict()
    reasons = rejected["reason"].value_counts().to_dict()
    logger.info(
        "Coregistered %s in %s at %d of %s (%s); kept out %d (%s); %s pooled; manifest %s",
        plural(len(images), "image"),
        plural(images["set_id"].nunique(), "set"),
        images["location_id"].nunique(),
        plural(places, "place"),
        ", ".join(f"{count} {state}" for state, count in sorted(states.items())),
        len(rejected),
        ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "none",
        plural(pooled, "scene"),
        tables.manifest_hash[:12],
    )
    if images.empty and len(rejected):
        one = rejected.iloc[0]
        logger.warning("no set was made; for example %s at %s: %s", one["scene_id"], one["location_id"], one["detail"])
    warn_of_offsets(images)
    warn_of_ranges(images, sensors)


def _what(missing: pd.DataFrame) -> str:
    damaged = missing["reason"].isin(DAMAGED)
    return "read" if damaged.all() else "reached or read" if damaged.any() else "reached"


def tell_missing(rejected: pd.DataFrame, parameters: CoregisterParameters) -> None:
    """Say what could not be reached, or was damaged.

    Raises:
        BuildIncompleteError: If something is missing and `fail_if_unreachable` is set.
    """
    missing = rejected[rejected["reason"].isin(TRANSIENT)]
    if missing.empty:
        return
    scenes = missing["scene_id"].nunique()
    detail = (
        f"{plural(len(missing), 'image')} of {plural(scenes, 'scene')} could not be {_what(missing)}, the first:"
        f" {missing['detail'].iloc[0]}. Run the same command again: it asks for what is missing"
    )
    if parameters.fail_if_unreachable:
        raise BuildIncompleteError(f"{detail}; everything else is kept (coregister.fail_if_unreachable)")
    logger.warning("%s.", detail)
