"""What a build came to: one line of figures, and what could not be reached."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pandas as pd

from a2mae.sensors import Sensor
from a2mae.stssd.access.retries import DAMAGED, TRANSIENT
from a2mae.stssd.building.dark_pixels import warn_of_offsets
from a2mae.stssd.building.image_rows import BuiltTables
from a2mae.stssd.building.parameters import CoregisterParameters
from a2mae.stssd.building.value_ranges import warn_of_ranges
from a2mae.words import plural

logger = logging.getLogger(__name__)


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
