"""What contenders are pretrained on: an environment's image sets, or a folder of pictures as sets of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from a2mae.pipelines.pretrain import bands_by_sensor, build_run_index
from a2mae.sensors import Sensor
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.store.writer import SensorPlan, StoreWriter
from a2mae.tasks.datasets.inputs import training_statistics
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.training.data.index import HELD_OUT, TRAIN, SetIndex, build_index

Statistics = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Built:
    """What the stages of an environment have made.

    Attributes:
        images: Image table.
        pruned_sets: Set table after pruning.
        band_statistics: Per sensor and band, physical units.
        store: The pixels.
        tasks: Task data by the name of the task.
    """

    images: pd.DataFrame
    pruned_sets: pd.DataFrame
    band_statistics: Statistics
    store: ImageSetStore
    tasks: Mapping[str, TaskData]


@dataclass(frozen=True)
class Source:
    """Data to pretrain on.

    Attributes:
        suffix: Added to the names of its contenders.
        store: The pixels.
        sensors: In the order of the index's codes.
        index: The sets.
        statistics: Per sensor and band, over training pixels, physical units.
        single_images: Every set is one image: K times as many of them make a batch.
    """

    suffix: str
    store: ImageSetStore
    sensors: list[str]
    index: SetIndex
    statistics: Statistics
    single_images: bool


def source_of_sets(built: Built) -> Source:
    """Take the image sets of an environment as `pretrain` takes them.

    Args:
        built: The outputs of its stages.
    """
    sensors, index = build_run_index(built.images, built.pruned_sets, bands_by_sensor(built.store))
    return Source("", built.store, sensors, index, built.band_statistics, single_images=False)


def source_of_pictures(data: TaskData, url: Path) -> Source:
    """Write the training and validation images of one-date data as a store of single images, or find it written.

    Labels are not read; test images are left out, validation images are the held-out sets.

    Args:
        data: Classification or segmentation data of one sensor.
        url: Folder of the store; continued after a stop.

    Raises:
        TaskDataError: If the data has two dates, several sensors, or pixels that are not square.
    """
    times, bands, height, width = data.image_shape
    sensors = sorted(set(data.samples["sensor"]))
    if times != 1 or len(sensors) != 1 or height != width:
        raise TaskDataError(
            f"pretraining on {data.spec.source!r} needs square images of one date and one sensor; found {times} dates,"
            f" {height} x {width} pixels, sensors {', '.join(sensors)}"
        )
    spec = data.spec
    sensor = Sensor(sensors[0], spec.source, spec.gsd_m, spec.bands, spec.encoding)
    rows = np.concatenate([data.rows("train"), data.rows("val")])
    plan = SensorPlan(sensor, len(rows), height, width)
    writer = StoreWriter.create(url, [plan], fingerprint=data.digest)
    for shard in tqdm(writer.pending(), desc="image sets", unit="shard", leave=False):
        stored = data.read_stored(rows[shard.start : shard.stop], range(bands))
        writer.write(shard, stored.images[:, 0], stored.valid[:, 0])
    writer.finish()
    measured = zip(spec.band_names, training_statistics(data, range(bands), sensor.id), strict=True)
    return Source(
        f" ({spec.source})",
        ImageSetStore.open(url),
        [sensor.id],
        _index(data, rows),
        {sensor.id: {band: {"mean": mean, "std": std} for band, (mean, std) in measured}},
        single_images=True,
    )


def _index(data: TaskData, rows: npt.NDArray[np.int64]) -> SetIndex:
    count = len(rows)
    table = data.samples.iloc[rows]
    place, _ = table["place"].factorize()
    return build_index(
        set_id=np.array([f"{row:09d}" for row in rows], np.bytes_),
        location=place.astype(np.int64),
        split=np.where(table["split"] == "train", TRAIN, HELD_OUT).astype(np.uint8),
        image_set=np.arange(count),
        row=np.arange(count),
        sensor=np.zeros(count, np.int16),
        gsd_m=table["gsd_m"].to_numpy(np.float64),
        day=table["day"].fillna(0).to_numpy(np.float32),
        lonlat_deg=table[["lon", "lat"]].fillna(0).to_numpy(np.float64),
        geosot=np.zeros((count, 8), np.uint32),
        is_anchor=np.ones(count, bool),
    )
