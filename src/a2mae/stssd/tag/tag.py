"""Complete the image table and make the set table, band statistics and image features, in one pass over the store.

Sets are split into training, validation and test by location: whole blocks of the map, never single images.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from a2mae.errors import InputError, plural
from a2mae.stssd.parameters import TagParameters
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.tag.properties import footprint_codes
from a2mae.stssd.tag.statistics import BandStatistics, Moments, heterogeneity, measure, merged
from a2mae.tables import FEATURE_COLUMNS, IMAGE_COLUMNS, LOCATION_COLUMNS, SET_COLUMNS, check_columns, to_frame

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Tagged:
    """What tagging makes.

    Attributes:
        images: `IMAGE_COLUMNS`, one row per image of a set.
        sets: `SET_COLUMNS` and geometry, one row per set.
        features: `FEATURE_COLUMNS`, one row per image in the store.
        statistics: Band statistics of the training split, in physical units.
    """

    images: pd.DataFrame
    sets: gpd.GeoDataFrame
    features: pd.DataFrame
    statistics: BandStatistics


def tag(
    store: ImageSetStore, registered: pd.DataFrame, locations: gpd.GeoDataFrame, parameters: TagParameters
) -> Tagged:
    """Complete the image table and make the set table.

    Args:
        store: The image-set store.
        registered: Image table of the coregister stage.
        locations: Location table.
        parameters: The `tag` group.

    Raises:
        InputError: If there are no images, the store does not belong to them, or a table was written by an earlier
            version.
    """
    check_columns(registered, IMAGE_COLUMNS, "registered_images", "coregister")
    check_columns(locations, LOCATION_COLUMNS, "locations", "ingest")
    if registered.empty:
        raise InputError(
            "registered_images is empty, no set could be made: rejected_images says why, scene by scene"
            " (coregister.recipes: what makes a set; coregister.quality: how clear an image must be)"
        )
    used = locations[locations["location_id"].isin(registered["location_id"])].reset_index(drop=True)
    settings = parameters.split
    fractions = {"train": settings.train, "val": settings.val, "test": settings.test}
    splits = split_by_location(used, block_m=settings.block_m, fractions=fractions, seed=settings.seed)
    measured = measure(store, registered, workers=parameters.workers, dask_scheduler=parameters.dask_scheduler)

    training = registered[registered["location_id"].map(splits) == "train"]
    if training.empty:
        training = registered
    statistics: BandStatistics = {}
    features: list[pd.DataFrame] = []
    for sensor, (rows, moments) in measured.items():
        names = store.sensor(sensor).band_names
        in_training = np.isin(rows, training.loc[training["sensor"] == sensor, "row"].to_numpy())
        found = merged(moments, in_training, names) or merged(moments, np.ones(len(rows), dtype=np.bool_), names)
        if not found:
            raise InputError(f"no image of {sensor} has a valid pixel: the store does not belong to registered_images")
        statistics[sensor] = found
        features.append(feature_frame(sensor, rows, moments, heterogeneity(moments, found)))
    feature_table = pd.concat(features, ignore_index=True)
    images = complete_images(registered, used, feature_table, parameters)
    sets = set_table(images, used, feature_table, splits)
    logger.info(
        "Tagged %s in %s at %s: %s",
        plural(len(images), "image"),
        plural(len(sets), "set"),
        plural(len(used), "location"),
        ", ".join(f"{count} {split}" for split, count in sets["split"].value_counts().sort_index().items()),
    )
    return Tagged(images, sets, feature_table, statistics)


def split_by_location(
    locations: pd.DataFrame, *, block_m: float, fractions: Mapping[str, float], seed: int
) -> pd.Series:
    """Assign locations to splits, all of a block to the same one, so that neighbours are not split up.

    Blocks are squares of the UTM grid. In the order of a seeded hash, each goes to the split that lacks most of its
    share, so that small data sets get their fractions too.

    Args:
        locations: `LOCATION_COLUMNS` of the locations in use.
        block_m: Side of a block, metres.
        fractions: Share of the locations per split, 0 to 1; they add up to 1.
        seed: Seed of the hash.

    Returns:
        Split by `location_id`.
    """
    column = np.floor((locations["x_m"] + locations["footprint_m"] / 2) / block_m).astype(np.int64)
    row = np.floor((locations["y_m"] - locations["footprint_m"] / 2) / block_m).astype(np.int64)
    block = locations["crs"].astype(str) + ":" + column.astype(str) + ":" + row.astype(str)
    sizes = block.value_counts().sort_index()
    ranks = {name: hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in sizes.index}
    total, got = len(locations), dict.fromkeys(SPLITS, 0)
    chosen: dict[str, str] = {}
    for name in sorted(sizes.index, key=ranks.__getitem__):
        lacking = {split: fractions.get(split, 0.0) * total - got[split] for split in SPLITS}
        best = max(SPLITS, key=lambda split: (lacking[split], fractions.get(split, 0.0)))
        chosen[name] = best
        got[best] += int(sizes[name])
    return pd.Series(block.map(chosen).to_numpy(), index=locations["location_id"].to_numpy(), name="split")


def feature_frame(sensor: str, rows: NDArray[np.int64], moments: Moments, varied: NDArray[np.float64]) -> pd.DataFrame:
    """Make the features of one sensor's images (`FEATURE_COLUMNS`).

    Args:
        sensor: Sensor id.
        rows: `(N,)` rows of the store.
        moments: Their moments.
        varied: `(N,)` their heterogeneity.
    """
    # Lists are Arrow's: an object each would be most of the table.
    lists = {"mean": moments.mean, "std": moments.std, "texture": moments.texture}
    return pd.DataFrame(
        {
            "sensor": sensor,
            "row": rows,
            "valid_fraction": moments.valid_fraction,
            "heterogeneity": varied,
            **{name: _lists(values, FEATURE_COLUMNS.field(name).type) for name, values in lists.items()},
        }
    )


def _lists(values: NDArray[np.float64], kind: pa.DataType) -> pd.arrays.ArrowExtensionArray:
    """Make a column of lists of the rows of `(N, B)`."""
    count, bands = values.shape
    ends = pa.array(np.arange(0, count * bands + 1, bands, dtype=np.int32))
    return pd.arrays.ArrowExtensionArray(pa.ListArray.from_arrays(ends, pa.array(values.ravel()), type=kind))


def complete_images(
    registered: pd.DataFrame, locations: pd.DataFrame, features: pd.DataFrame, parameters: TagParameters
) -> pd.DataFrame:
    """Fill GeoSOT codes, exact valid fractions and anchors into the image table of coregister.

    Args:
        registered: Image table of the coregister stage; its other columns are used as they are, without a copy.
        locations: `LOCATION_COLUMNS` of the locations in use.
        features: `FEATURE_COLUMNS`.
        parameters: The `tag` group.
    """
    images = registered[IMAGE_COLUMNS.names]
    codes = footprint_codes(locations, parameters.geosot_layer)
    at = pd.Index(locations["location_id"]).get_indexer(images["location_id"])
    each = np.empty(len(locations), dtype=object)
    each[:] = list(codes.astype(np.uint32, copy=False))
    # The images of a location share its codes: of millions of images, a small array each would be most of the table.
    images = images.assign(geosot=each[at], valid_fraction=_of_images(images, features, "valid_fraction"))
    clear = -images["valid_fraction"].to_numpy().round(2)
    gsd_m = images["gsd_m"].to_numpy()
    first = {"clearest": clear, "reference": ~images["is_reference"].to_numpy(), "finest": gsd_m}[parameters.anchor]
    # In codes: texts of millions of images would be copied by sorting. Within a set, ids follow the scenes'.
    sets, scenes = (pd.factorize(images[name], sort=True)[0] for name in ("set_id", "scene_id"))
    order = np.lexsort((scenes, images["datetime"].to_numpy("datetime64[us]"), gsd_m, clear, first, sets))
    anchors = np.zeros(len(images), dtype=np.bool_)
    anchors[order[np.flatnonzero(np.diff(sets[order], prepend=-1))]] = True
    complete: pd.DataFrame = images.assign(is_anchor=anchors)
    return complete


def _of_images(images: pd.DataFrame, features: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Look up a feature of every image by sensor and row.

    Raises:
        InputError: If an image has no features.
    """
    found = np.full(len(images), np.nan)
    known = np.zeros(len(images), dtype=np.bool_)
    rows, sensors = images["row"].to_numpy(), images["sensor"]
    for sensor, group in features.groupby("sensor", sort=False)[["row", name]]:
        table = pd.Series(group[name].to_numpy(), index=group["row"].to_numpy())
        here = np.flatnonzero((sensors == sensor).to_numpy())
        at = table.index.get_indexer(pd.Index(rows[here]))
        found[here], known[here] = table.to_numpy()[at], at >= 0
    if not known.all():
        missing = images.loc[~known, ["sensor", "row"]].iloc[0]
        raise InputError(f"no features of row {missing['row']} of {missing['sensor']}: run the tag stage again")
    return found


def set_table(
    images: pd.DataFrame, locations: gpd.GeoDataFrame, features: pd.DataFrame, splits: pd.Series
) -> gpd.GeoDataFrame:
    """Make the set table (`SET_COLUMNS` and geometry) of the sets that an image table names.

    Args:
        images: Image table.
        locations: Location table with its geometry.
        features: `FEATURE_COLUMNS`.
        splits: Split by `location_id`.
    """
    columns = ["set_id", "location_id", "kind", "image_id", "datetime", "lon", "lat"]
    varied = images[columns].assign(heterogeneity=_of_images(images, features, "heterogeneity"))
    groups = varied.groupby("set_id", sort=True)
    sets = groups.agg(
        location_id=("location_id", "first"),
        kind=("kind", "first"),
        image_count=("image_id", "size"),
        time_start=("datetime", "min"),
        time_end=("datetime", "max"),
        lon=("lon", "first"),
        lat=("lat", "first"),
        heterogeneity=("heterogeneity", "mean"),
    ).reset_index()
    used = images[["set_id", "sensor"]].drop_duplicates().sort_values(["set_id", "sensor"])
    ends = np.cumsum(used.groupby("set_id", sort=True).size().to_numpy())
    names = used["sensor"].to_numpy(object)
    sets["sensors"] = [list(names[a:b]) for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]
    sets["cluster"], sets["kept"], sets["keep_reason"] = -1, True, ""
    sets["split"] = sets["location_id"].map(splits).to_numpy()
    geometry = locations.set_index("location_id").geometry.loc[sets["location_id"]].to_numpy()
    table = pa.Table.from_pandas(sets[SET_COLUMNS.names], schema=SET_COLUMNS, preserve_index=False)
    return gpd.GeoDataFrame(to_frame(table), geometry=geometry, crs=4326)
