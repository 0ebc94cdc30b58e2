"""Make the tables of a build, registered images and rejections, and log what it came to.

The column `bands` of the image table says which of the stored bands the recipe of a set uses; `bands_of_images` reads
it back for pretraining.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from a2mae.errors import A2maeError, InputError, plural
from a2mae.plausibility import warn_of_offsets, warn_of_ranges
from a2mae.raster.warp import stored_encoding_note
from a2mae.registration.network import Position
from a2mae.remote.fetch import DAMAGED, TRANSIENT
from a2mae.scenes import CloudTest, Scene
from a2mae.sensors import Sensor
from a2mae.stssd.coregister.sets import PlannedSet, is_complete
from a2mae.stssd.coregister.survey import Location, Rejection, Surveyed, SurveyedImage
from a2mae.stssd.parameters import CoregisterParameters, Recipe
from a2mae.tables import IMAGE_COLUMNS, REJECTED_COLUMNS, frame_of_rows

logger = logging.getLogger(__name__)

_NOT_NEEDED = (
    "not read: at each of its places the sets are full, or lack another source; images, images_per_source, max_images"
    " or max_sets of coregister.recipes would let more in"
)


@dataclass(frozen=True)
class PlacedImage:
    """An image with its position on the ground and its row in the store.

    Attributes:
        location: Its location.
        reference: Scene id of the image that it was moved to.
        scene: Its scene.
        row: Row of the sensor's array.
        facts: What the survey found.
        position: Its shift, and the quality of that.
    """

    location: Location
    reference: str
    scene: Scene
    row: int
    facts: SurveyedImage
    position: Position

    @property
    def key(self) -> tuple[str, str, str]:
        """Location id, reference and scene id: what a set names its images by."""
        return self.location.footprint.location_id, self.reference, self.scene.scene_id


@dataclass(frozen=True, eq=False)
class BuiltTables:
    """What a build returns beside the store.

    Attributes:
        images: `IMAGE_COLUMNS`; one row per set and image, so an image that serves two sets has two rows with the same
            `row`. `geosot` and `is_anchor` are filled by the tag stage.
        rejected: `REJECTED_COLUMNS`.
        manifest_hash: Hash of the store's manifest.
    """

    images: pd.DataFrame
    rejected: pd.DataFrame
    manifest_hash: str


CompleteSet = tuple[PlannedSet, list[PlacedImage]]
"""A set with its images, in time order."""


def complete_sets(
    images: Sequence[PlacedImage],
    failed: Mapping[tuple[str, int], Rejection],
    surveyed: Sequence[Surveyed],
    parameters: CoregisterParameters,
) -> list[CompleteSet]:
    """Find the sets that are still complete after what failed while it was read for the store.

    Args:
        images: Images that were to be written.
        failed: Images that could not be read, by sensor and row.
        surveyed: Sets of all locations.
        parameters: The `coregister` group.
    """
    written = {image.key: image for image in images if (image.scene.sensor, image.row) not in failed}
    found: list[CompleteSet] = []
    for part in surveyed:
        for planned in part.sets:
            keys = [(part.location_id, part.reference, scene_id) for scene_id in planned.scenes]
            members = [written[key] for key in keys if key in written]
            recipe = _recipe(planned, parameters)
            if members and is_complete([m.scene for m in members], recipe, lat=members[0].location.lat):
                found.append((planned, members))
    return found


def image_table(
    sets: Sequence[CompleteSet], sensors: Mapping[str, Sensor], parameters: CoregisterParameters
) -> pd.DataFrame:
    """Make the image table (`IMAGE_COLUMNS`) of complete sets."""
    rows = (
        _row(planned, image, sensors[image.scene.sensor], _recipe(planned, parameters))
        for planned, members in sets
        for image in members
    )
    return frame_of_rows(rows, IMAGE_COLUMNS)


def rejected_table(
    images: Sequence[PlacedImage],
    sets: Sequence[CompleteSet],
    rejections: Sequence[tuple[str, Rejection]],
    failed: Mapping[tuple[str, int], Rejection],
    scenes: Mapping[str, Scene],
) -> pd.DataFrame:
    """Make the table of rejections: by the survey, while reading for the store, and of sets that became incomplete.

    A scene that no set of any place needed has one row, without a location.

    Args:
        images: Images that were to be written.
        sets: Complete sets.
        rejections: What was rejected before writing, with the location's id.
        failed: Images that could not be read, by sensor and row.
        scenes: By id, those that cover a location.

    Returns:
        `REJECTED_COLUMNS`.
    """
    used = {image.key for _, members in sets for image in members}
    out = list(rejections)
    for image in images:
        location_id = image.location.footprint.location_id
        if (image.scene.sensor, image.row) in failed:
            out.append((location_id, failed[image.scene.sensor, image.row]))
        elif image.key not in used:
            detail = "written, but its set lost too many other images while they were read"
            out.append((location_id, Rejection(image.scene.scene_id, "incomplete_set", detail)))
    told = {rejection.scene_id for _, rejection in out} | {image.scene.scene_id for image in images}
    out += [("", Rejection(scene_id, "not_needed", _NOT_NEEDED)) for scene_id in sorted(scenes.keys() - told)]
    rows = (
        {
            "scene_id": rejection.scene_id,
            "location_id": location_id,
            "sensor": scenes[rejection.scene_id].sensor,
            "datetime": scenes[rejection.scene_id].datetime.astimezone(dt.UTC),
            "stage": "coregister",
            "reason": rejection.reason,
            "detail": rejection.detail,
        }
        for location_id, rejection in out
    )
    return frame_of_rows(rows, REJECTED_COLUMNS)


def _recipe(planned: PlannedSet, parameters: CoregisterParameters) -> Recipe:
    recipe = parameters.recipes[planned.kind]
    assert recipe is not None
    return recipe


def _row(planned: PlannedSet, image: PlacedImage, sensor: Sensor, recipe: Recipe) -> dict[str, object]:
    scene, location, position = image.scene, image.location, image.position
    location_id = location.footprint.location_id
    set_id = f"{location_id}-{planned.kind}" + (f"-{planned.number}" if planned.number else "")
    scale, offset = stored_encoding_note(scene, sensor)
    return {
        "image_id": f"{set_id}--{scene.scene_id}",
        "set_id": set_id,
        "location_id": location_id,
        "kind": planned.kind,
        "sensor": sensor.id,
        "row": image.row,
        "datetime": scene.datetime.astimezone(dt.UTC),
        "gsd_m": sensor.gsd_m,
        "lon": location.lon,
        "lat": location.lat,
        "geosot": None,
        "cloud_fraction": None if scene.cloud_test is CloudTest.NONE else image.facts.cloud_fraction,
        "valid_fraction": image.facts.valid_fraction,
        "dark_value": image.facts.dark_value,
        "bright_value": image.facts.bright_value,
        "is_reference": scene.scene_id == image.reference,
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
        "bands": recipe.bands_of(sensor),
    }


class BuildIncompleteError(A2maeError, RuntimeError):
    """Images could not be reached; what could be is kept, and the same build goes on with the others."""


def log_result(tables: BuiltTables, sensors: Iterable[Sensor], *, locations: int, pooled: int) -> None:
    """Log how many images and sets a build made, and how many images it rejected for which reasons.

    Args:
        tables: Its tables.
        sensors: Sensors in use, by which implausible values are told.
        locations: How many locations scenes cover.
        pooled: How many scenes have a shift of their own.
    """
    images, rejected = tables.images, tables.rejected
    states = images["registration"].value_counts().to_dict()
    reasons = rejected["reason"].value_counts().to_dict()
    logger.info(
        "Coregistered %s in %s at %d of %s (%s); rejected %d (%s); %s pooled; manifest %s",
        plural(len(images), "image"),
        plural(images["set_id"].nunique(), "set"),
        images["location_id"].nunique(),
        plural(locations, "location"),
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
    """Warn of images that could not be reached or were damaged.

    Args:
        rejected: Rejections of the build.
        parameters: The `coregister` group.

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


def bands_of_images(images: pd.DataFrame, bands: Mapping[str, Sequence[str]]) -> NDArray[np.bool_] | None:
    """Read which bands of its sensor each image is to be used with.

    Args:
        images: Image table, N rows.
        bands: Names of the stored bands of each sensor, in order.

    Returns:
        `(N, B)`, B the largest number of bands; None if every image is used with all of them.

    Raises:
        InputError: If the table names a band that is not stored.
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
                raise InputError(
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
    """Find the images that have all needed bands, or any band where none is needed.

    Args:
        images: Image table, N rows.
        mask: `(N, B)`, as `bands_of_images` returns it.
        bands: Names of the stored bands of each sensor, in order.
        needed: Names of needed bands by sensor.

    Returns:
        `(N,)`.
    """
    keep = np.zeros(len(images), dtype=np.bool_)
    for sensor in images["sensor"].unique():
        of_sensor = (images["sensor"] == sensor).to_numpy()
        wanted = [list(bands[sensor]).index(name) for name in needed.get(sensor, ())]
        has = mask[:, wanted].all(axis=1) if wanted else mask[:, : len(bands[sensor])].any(axis=1)
        keep |= of_sensor & has
    return keep
