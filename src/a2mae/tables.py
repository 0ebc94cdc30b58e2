"""Schemas of the tables that pass between the stages: column names, types and units.

Every table is Parquet; those with a `geometry` column are GeoParquet in EPSG:4326. Times are UTC.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
from pyproj import CRS

from a2mae.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_UTC = pa.timestamp("us", tz="UTC")
_BATCH_ROWS = 50_000

SCENE_COLUMNS = pa.schema(
    [
        ("scene_id", pa.string()),
        ("sensor", pa.string()),  # Sensor.id
        ("datetime", _UTC),
        ("platform", pa.string()),
        ("crs", pa.string()),  # "EPSG:32633" or WKT, of the finest asset
        ("gsd_m", pa.float64()),  # of the finest asset, metres
        ("cloud_cover_pct", pa.float64()),  # provider's figure for the whole scene, null if not given
        ("processing_baseline", pa.string()),  # Sentinel-2 "04.00"; null elsewhere
        ("assets", pa.string()),  # JSON list of scenes.BandAsset
        ("cloud_test", pa.string()),  # scenes.CloudTest: "mask", "brightness" or "none"
        ("status", pa.string()),  # "accepted" or "refused" (rejected)
        ("reason", pa.string()),  # why it was rejected, empty if accepted
    ]
)
"""Scene table (plus `geometry`, the scene's footprint): one row per acquisition found, accepted or rejected."""

LOCATION_COLUMNS = pa.schema(
    [
        ("location_id", pa.string()),
        ("lon", pa.float64()),  # of the centre, degrees
        ("lat", pa.float64()),
        ("crs", pa.string()),  # UTM zone of the centre, "EPSG:326xx" / "EPSG:327xx"
        ("x_m", pa.float64()),  # upper left corner in that zone, metres
        ("y_m", pa.float64()),
        ("footprint_m", pa.float64()),  # side of the square, metres
    ]
)
"""Location table (plus `geometry`, the square)."""

IMAGE_COLUMNS = pa.schema(
    [
        ("image_id", pa.string()),
        ("set_id", pa.string()),
        ("location_id", pa.string()),
        ("kind", pa.string()),  # recipe of the set: "grid", "city", "gf1", "gf2", or the user's own
        ("sensor", pa.string()),
        ("row", pa.int64()),  # row of the sensor's array in the store
        ("datetime", _UTC),
        ("gsd_m", pa.float64()),
        ("lon", pa.float64()),  # of the footprint's centre, degrees
        ("lat", pa.float64()),
        ("geosot", pa.list_(pa.uint32(), 8)),  # four corners x (lon, lat): UL, UR, LR, LL
        ("cloud_fraction", pa.float64()),  # cloud and shadow, share of what was seen; null where nothing was seen
        ("valid_fraction", pa.float64()),  # usable pixels, share of the footprint
        ("dark_value", pa.float64()),  # 1st percentile of the usable pixels, darkest compared band, sensor's units
        ("bright_value", pa.float64()),  # 99th percentile of them, brightest compared band
        ("is_reference", pa.bool_()),  # the image that the others of its set are registered to
        ("is_anchor", pa.bool_()),
        ("registration", pa.string()),  # "reference", "registered" or "nominal" (unknown: provider's position kept)
        ("shift_x_m", pa.float64()),  # how far the image was moved east, metres
        ("shift_y_m", pa.float64()),  # how far the image was moved north, metres
        ("residual_px", pa.float64()),  # left over after the move, pixels of the coarser sensor; null if not measured
        ("registration_quality", pa.float64()),  # 0..1
        ("scene_id", pa.string()),
        ("processing_baseline", pa.string()),
        ("source_scale", pa.list_(pa.float64())),  # per band: physical = source * scale + offset, as applied
        ("source_offset", pa.list_(pa.float64())),
        ("bands", pa.list_(pa.string())),  # what the recipe of the set uses of the stored bands; null: all of them
    ]
)
"""Image table: one row per image in the store."""

REJECTED_COLUMNS = pa.schema(
    [
        ("scene_id", pa.string()),
        ("location_id", pa.string()),  # empty where the whole scene was rejected
        ("sensor", pa.string()),
        ("datetime", _UTC),
        ("stage", pa.string()),  # "ingest", "coregister", ...
        ("reason", pa.string()),  # short code, counted in the report: "cloud", "nodata", "corrupt", "no_crs", ...
        ("detail", pa.string()),  # the sentence a person reads
    ]
)
"""Rejection table: one row per rejected image or scene, with its reason."""

FEATURE_COLUMNS = pa.schema(
    [
        ("sensor", pa.string()),
        ("row", pa.int64()),  # row of the sensor's array in the store
        ("valid_fraction", pa.float64()),  # usable pixels, share of the footprint
        ("heterogeneity", pa.float64()),  # within the image, 0..1
        ("mean", pa.list_(pa.float64())),  # per band, physical units
        ("std", pa.list_(pa.float64())),  # within the image
        ("texture", pa.list_(pa.float64())),  # mean absolute difference of neighbouring pixels
    ]
)
"""Image features: one row per image in the store, from which pruning clusters the sets."""

SET_COLUMNS = pa.schema(
    [
        ("set_id", pa.string()),
        ("location_id", pa.string()),
        ("kind", pa.string()),  # recipe: "grid", "city", "gf1", "gf2", or the user's own
        ("sensors", pa.list_(pa.string())),  # distinct, sorted
        ("image_count", pa.int64()),
        ("time_start", _UTC),
        ("time_end", _UTC),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("heterogeneity", pa.float64()),  # within the images, 0..1
        ("cluster", pa.int64()),  # -1 until pruned
        ("kept", pa.bool_()),
        ("keep_reason", pa.string()),
        ("split", pa.string()),  # "train", "val" or "test": by location, never by image
    ]
)
"""Set table (plus `geometry`, the footprint)."""


def check_columns(table: pd.DataFrame, schema: pa.Schema, name: str, stage: str) -> None:
    """Check that a table has the columns of this version.

    Args:
        table: As the stage before left it.
        schema: What it must have.
        name: Of the table, as the catalog has it.
        stage: The stage that writes it.

    Raises:
        InputError: If columns are missing; the message says which stage to run again.
    """
    missing = [column for column in schema.names if column not in table]
    if missing:
        raise InputError(
            f"the table {name} has no {', '.join(missing)}: it was written by an earlier version of this program;"
            f" run the {stage} stage again (kedro run --pipelines={stage})"
        )


def frame_of_rows(rows: Iterable[Mapping[str, object]], schema: pa.Schema) -> pd.DataFrame:
    """Make a frame of rows with the columns and types of a schema, also where a column is empty or all null.

    Args:
        rows: Values by column; columns that a row lacks are null. They are taken in batches, so that rows that are
            made one by one do not pile up.
        schema: Columns and types.
    """
    each = iter(rows)
    batches = iter(lambda: list(itertools.islice(each, _BATCH_ROWS)), [])
    return to_frame(
        pa.Table.from_batches([pa.RecordBatch.from_pylist(batch, schema=schema) for batch in batches], schema=schema)
    )


def geo_schema(
    columns: Sequence[tuple[str, pa.DataType]],
    crs: str,
    kinds: Sequence[str],
    metadata: Mapping[str, str] | None = None,
) -> pa.Schema:
    """Make the schema of a GeoParquet 1.0 file that is written row group by row group.

    Args:
        columns: Names and types; `geometry`, as WKB, is added as the last.
        crs: Of the geometries, "EPSG:…" or WKT.
        kinds: Of the geometries, as `Polygon`.
        metadata: Further entries of the file.
    """
    geometry = {"encoding": "WKB", "geometry_types": list(kinds), "crs": CRS.from_user_input(crs).to_json_dict()}
    about = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    return pa.schema([*columns, ("geometry", pa.binary())], metadata={**(metadata or {}), "geo": json.dumps(about)})


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Make a frame of an Arrow table; texts stay Arrow's, and so does what is null."""
    import pandas as pd  # noqa: PLC0415 (whoever needs the schemas alone starts sooner without)

    frame: pd.DataFrame = table.to_pandas(
        types_mapper={pa.string(): pd.StringDtype(na_value=float("nan"))}.get, split_blocks=True
    )
    return frame
