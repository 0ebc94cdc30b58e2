"""Pictures without labels as image sets of one image: what `pretrain` takes where there are no scenes.

Pictures of the splits `val` and `test` are stored, too, but not learned from: `val` is held out to measure the loss on.
So a task on the same folder is scored on pictures that no training has seen.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from tqdm import tqdm

from a2mae.errors import plural
from a2mae.files import digest_of, file_digest
from a2mae.sensors import Sensor
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.store.writer import SensorPlan, StoreWriter
from a2mae.stssd.tag.statistics import BandStatistics, measure, merged
from a2mae.tables import IMAGE_COLUMNS, SET_COLUMNS, frame_of_rows
from a2mae.tasks.data_parameters import PicturesParameters
from a2mae.tasks.datasets.class_folders import unlabelled_folder
from a2mae.tasks.datasets.formats import stated_layout
from a2mae.tasks.datasets.labelled import LabelledScenes
from a2mae.tasks.datasets.task_data import TaskDataError

logger = logging.getLogger(__name__)

KIND = "picture"
"""The kind of these sets, where others have the name of their recipe."""
_VERSION = 1
"""Of what this module makes of a file: stores of another are made again."""


@dataclass(frozen=True, eq=False)
class PictureSets:
    """What pictures become.

    Attributes:
        manifest_hash: Of the store.
        images: `IMAGE_COLUMNS`, one row per picture; no date, and no place where the files say none.
        sets: `SET_COLUMNS` and geometry, a set per picture, all kept.
        statistics: Band statistics of the training split, in physical units.
    """

    manifest_hash: str
    images: pd.DataFrame
    sets: gpd.GeoDataFrame
    statistics: BandStatistics


def build_pictures(parameters: PicturesParameters, url: str) -> PictureSets:
    """Write the pictures of a folder as an image-set store with its tables; a build that was stopped goes on.

    Args:
        parameters: The `pictures` group.
        url: Of the store.

    Raises:
        TaskDataError: If no folder is named or it holds nothing to train on, or files do not hold what was stated.
    """
    folder, source, files = find_pictures(parameters)
    side = parameters.chip_px or _shorter_side(folder, source)
    source = source.squared(side, resize=parameters.resize)
    spec = source.spec
    layout = stated_layout(parameters, "pictures")
    sensor = Sensor(layout.sensor.id, layout.sensor.title, spec.gsd_m, spec.bands, spec.encoding)
    digests = {name: file_digest(path) for name, path in files.items()}
    writer = StoreWriter.create(
        url,
        [SensorPlan(sensor, len(files), side, side)],
        fingerprint=digest_of([_VERSION, digests, sensor.to_dict(), side, parameters.resize]),
    )
    rows = _write(writer, source, list(files), sensor, side)
    manifest_hash = writer.finish()
    for note in (*spec.notes, *source.late_notes()):
        logger.info("pictures: %s", note)
    images, sets = _tables(rows, sensor)
    (measured,) = measure(ImageSetStore.open(url), images).values()
    training = images["set_id"].map(sets.set_index("set_id")["split"]).eq("train").to_numpy()
    statistics = merged(measured[1], training, sensor.band_names)
    if not statistics:
        raise TaskDataError(f"{folder}: no picture of the split 'train' has a valid pixel: give others")
    counts = sets["split"].value_counts().sort_index()
    logger.info(
        "%s of %d x %d px: %s",
        plural(len(images), "picture"),
        side,
        side,
        ", ".join(f"{count} {split}" for split, count in counts.items()),
    )
    return PictureSets(manifest_hash, images, sets, {sensor.id: statistics})


def find_pictures(parameters: PicturesParameters) -> tuple[Path, LabelledScenes, dict[str, Path]]:
    """Find the pictures that a group names.

    Args:
        parameters: The `pictures` group.

    Returns:
        Their folder, what reads them, and each one's file by its name.

    Raises:
        TaskDataError: If no folder is named, or it holds nothing to train on.
    """
    if parameters.folder is None:
        raise TaskDataError("pictures.folder: name the folder of the pictures")
    folder = Path(parameters.folder)
    return folder, *unlabelled_folder(folder, stated_layout(parameters, "pictures"), max_files=parameters.max_files)


def _shorter_side(folder: Path, source: LabelledScenes) -> int:
    """The shorter side of the first picture that can be read, pixels."""
    first = next(source.samples(), None)
    if first is None:
        raise TaskDataError(f"{folder}: none of its pictures can be read: {source.late_notes()[0]}")
    return int(min(first.pixels.shape[-2:]))


def _write(
    writer: StoreWriter, source: LabelledScenes, names: Sequence[str], sensor: Sensor, side: int
) -> list[tuple[int, dict[str, object], float]]:
    """Read every picture in its order and write the shards that are not there yet.

    Returns:
        Of each picture that could be read: its row in the store, what is known of it, and its share of valid pixels.
    """
    position = {name: row for row, name in enumerate(names)}
    pending, found = {shard.name for shard in writer.pending()}, list[tuple[int, dict[str, object], float]]()
    read = tqdm(source.samples(), total=len(names), desc="pictures", unit="picture", leave=False)
    samples = ((position[str(sample.row["sample_id"])], sample) for sample in read)
    ahead = next(samples, None)
    for shard in writer.shards():
        count = shard.stop - shard.start
        pixels = np.full((count, len(sensor.bands), side, side), sensor.encoding.nodata, sensor.encoding.dtype)
        valid = np.zeros((count, side, side), np.bool_)
        while ahead is not None and ahead[0] < shard.stop:
            row, sample = ahead
            pixels[row - shard.start], valid[row - shard.start] = sample.pixels[0], sample.valid[0]
            found.append((row, dict(sample.row), float(sample.valid.mean())))
            ahead = next(samples, None)
        if shard.name in pending:
            writer.write(shard, pixels, valid)
    return found


def _tables(
    found: Sequence[tuple[int, Mapping[str, object], float]], sensor: Sensor
) -> tuple[pd.DataFrame, gpd.GeoDataFrame]:
    """Make the image table and the set table of what was read."""
    encoding, bands = sensor.encoding, len(sensor.bands)
    of_all = {
        "kind": KIND,
        "sensor": sensor.id,
        "is_reference": True,
        "is_anchor": True,
        "registration": "reference",
        "shift_x_m": 0.0,
        "shift_y_m": 0.0,
        "source_scale": [encoding.scale] * bands,
        "source_offset": [encoding.offset] * bands,
    }
    images = frame_of_rows(
        (
            {
                **of_all,
                **dict.fromkeys(("image_id", "set_id", "location_id", "scene_id"), known["sample_id"]),
                **{name: known[name] for name in ("gsd_m", "lon", "lat")},
                "row": row,
                "valid_fraction": valid,
            }
            for row, known, valid in found
        ),
        IMAGE_COLUMNS,
    )
    sets = frame_of_rows(
        (
            {
                **dict.fromkeys(("set_id", "location_id"), known["sample_id"]),
                **{name: known[name] for name in ("lon", "lat", "split")},
                "kind": KIND,
                "sensors": [sensor.id],
                "image_count": 1,
                "cluster": -1,
                "kept": True,
                "keep_reason": "",
            }
            for _, known, _ in found
        ),
        SET_COLUMNS,
    )
    places = gpd.GeoSeries.from_xy(sets["lon"], sets["lat"], crs=4326).where(sets["lon"].notna(), None)
    return images, gpd.GeoDataFrame(sets, geometry=places)
