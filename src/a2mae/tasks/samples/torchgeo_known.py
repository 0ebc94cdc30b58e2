"""What torchgeo does not say of benchmark data sets: which bands, in which order, stored how, how many metres apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from a2mae.sensors import BUILTIN_SENSORS, Band, Encoding, Sensor, Units
from a2mae.tasks.samples.folders import FORMATS, FolderFormat
from a2mae.tasks.samples.task_data import IGNORE, Task

CHANGE = ("unchanged", "changed")
Numbers = npt.NDArray[Any]


@dataclass(frozen=True)
class Mapped:
    """How a torchgeo data set becomes task data.

    Attributes:
        task: What its labels are good for.
        layout: Bands in torchgeo's order, encoding, GSD.
        splits: torchgeo's split name → ours; None: the class takes no `split`, scenes are split by name.
        classes: Class names; empty: the data set's own attribute `classes`.
        arguments: Further ones of the class.
        val_from_train: Some training scenes become validation: torchgeo has no validation split.
        multi_label: Labels are `(K,)` of 0 and 1.
        target: From a mask to classes, where they differ.
        resized: torchgeo resizes what it reads, so numbers have fractions and are rounded.
        reference: Where the facts stand.
    """

    task: Task
    layout: FolderFormat
    splits: Mapping[str, str] | None
    classes: tuple[str, ...] = ()
    arguments: Mapping[str, object] | None = None
    val_from_train: bool = False
    multi_label: bool = False
    target: Callable[[Numbers], Numbers] | None = None
    resized: bool = False
    reference: str = ""


def _rgb(gsd_m: float, title: str) -> FolderFormat:
    """8-bit pictures of an aerial or satellite camera: digital numbers, whatever made them."""
    sensor = FORMATS["rgb_bytes"].sensor
    bands = tuple(replace(band, gsd_m=gsd_m) for band in sensor.bands)
    return FolderFormat(replace(sensor, title=title, gsd_m=gsd_m, bands=bands), gsd_m)


def _sentinel2(base: str, order: tuple[str, ...], name: str) -> FolderFormat:
    """Sentinel-2 before processing baseline 04.00: reflectance x 10,000 without an offset."""
    bands = BUILTIN_SENSORS[base].subset(order).bands
    return FolderFormat(Sensor(name, name, 10, bands, Encoding("uint16", 1e-4, 0.0, 0, Units.REFLECTANCE)), 10.0)


def _worldview2() -> FolderFormat:
    centers = (("coastal", 427), ("blue", 478), ("green", 546), ("yellow", 608), ("red", 659), ("rededge", 724))
    nir = (("nir", 833), ("nir09", 949))
    bands = tuple(Band(f"B{i}", name, nm, 60, 1.0) for i, (name, nm) in enumerate((*centers, *nir), start=1))
    return FolderFormat(
        Sensor("worldview-2-8bit", "WorldView-2, 8 bands", 1, bands, Encoding("uint8", 1 / 255, 0.0, 0, Units.DN)), 1.0
    )


_L1C = tuple(f"B{i:02d}" for i in range(1, 9))
THREE = {"train": "train", "val": "val", "test": "test"}
TWO = {"train": "train", "test": "test"}
DATA_SETS: Mapping[str, Mapped] = {
    "EuroSAT": Mapped(Task.CLASSIFY, FORMATS["eurosat_ms"], THREE, reference="arXiv 1709.00029"),
    "RESISC45": Mapped(Task.CLASSIFY, _rgb(1.0, "Google Earth, 0.2 to 30 m"), THREE, reference="arXiv 1703.00121"),
    "UCMerced": Mapped(
        Task.CLASSIFY, _rgb(0.3, "USGS aerial, one foot"), THREE, resized=True, reference="10.1145/1869790.1869829"
    ),
    "BigEarthNet": Mapped(
        Task.CLASSIFY,
        _sentinel2("sentinel-2-l2a", (*_L1C, "B8A", "B09", "B11", "B12"), "sentinel-2-l2a-bigearthnet"),
        THREE,
        arguments={"bands": "s2", "num_classes": 19},
        multi_label=True,
        reference="arXiv 1902.06148",
    ),
    "OSCD": Mapped(
        Task.DETECT_CHANGE,
        _sentinel2("sentinel-2-l1c", (*_L1C, "B8A", "B09", "B10", "B11", "B12"), "sentinel-2-l1c-oscd"),
        TWO,
        CHANGE,
        val_from_train=True,
        reference="10.1109/IGARSS.2018.8518015",
    ),
    "LEVIRCD": Mapped(Task.DETECT_CHANGE, _rgb(0.5, "Google Earth"), THREE, CHANGE, reference="10.3390/rs12101662"),
    "LEVIRCDPlus": Mapped(
        Task.DETECT_CHANGE, _rgb(0.5, "Google Earth"), TWO, CHANGE, val_from_train=True, reference="arXiv 2107.09244"
    ),
    "XView2": Mapped(
        Task.DETECT_CHANGE,
        _rgb(0.5, "Maxar"),
        TWO,
        CHANGE,
        val_from_train=True,
        target=lambda damage: (damage >= 1).astype(np.uint8),  # minor damage or worse
        reference="arXiv 1911.09296",
    ),
    "SpaceNet1": Mapped(
        Task.SEGMENT,
        _worldview2(),
        None,
        ("background", "building"),
        arguments={"split": "train", "image": "8band"},
        reference="arXiv 1807.01232",
    ),
    "LoveDA": Mapped(
        Task.SEGMENT,
        _rgb(0.3, "Google Earth"),
        {"train": "train", "val": "test"},  # its test split has no labels
        ("background", "building", "road", "water", "barren", "forest", "agriculture"),
        val_from_train=True,
        target=lambda stored: np.where(stored == 0, IGNORE, stored - 1),
        reference="arXiv 2110.08733",
    ),
}
"""Known data sets by torchgeo's class names."""
