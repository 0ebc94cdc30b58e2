"""What contenders are pretrained on: an environment's image sets, or a folder of pictures as sets of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from a2mae.pipelines.pretrain import bands_by_sensor, build_run_index
from a2mae.stssd.store.store import ImageSetStore
from a2mae.tasks.data_parameters import PicturesParameters
from a2mae.tasks.datasets.picture_sets import build_pictures
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.training.data.index import SetIndex
from benchmarks.compare.settings import CompareParameters

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


def source_of_pictures(options: CompareParameters, name: str, url: Path) -> Source:
    """Store the pictures of the folder that is compared on, as the stage `pictures` does, or find them stored.

    Args:
        options: Name the folder; labels are not read, test pictures are not learned from.
        name: Of the data, for the contenders' names.
        url: Folder of the store; continued after a stop.
    """
    named = {"folder": options.folder, "format": options.format, "max_files": options.folder_samples}
    found = build_pictures(PicturesParameters.model_validate(named), str(url))
    store = ImageSetStore.open(url)
    sensors, index = build_run_index(found.images, found.sets, bands_by_sensor(store))
    return Source(f" ({name})", store, sensors, index, found.statistics, single_images=True)
