"""What the files of a folder hold, as the user states it, and which of them show the same ground.

Which scenes of a folder show the same ground: dates of one place are no places of their own.

What the files of a folder hold, as the user states it, and what is refused because it cannot be that.

Bands, units and GSD are stated by the caller and checked against what the files hold; nothing is guessed. A split by
a hash of the name is the same on every machine and stays when files are added.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2mae.errors import did_you_mean
from a2mae.sensors import BUILTIN_SENSORS, Encoding, Sensor, Units
from a2mae.tasks.datasets.task_data import TaskDataError

BLOCK_DEG = 0.05
"""Georeferenced scenes whose centres lie in one square of this side are one place (about 5 km)."""
SAME_GROUND = 0.5
"""Scenes that share more than this of the smaller one's box show the same ground."""


def square_of(lon: float, lat: float) -> str:
    """The place of a scene whose split nobody has stated: its square of `BLOCK_DEG`.

    Args:
        lon: Degrees of the centre.
        lat: Likewise.
    """
    return f"{math.floor(lon / BLOCK_DEG)}:{math.floor(lat / BLOCK_DEG)}"


class Grounds:
    """Remembers where the scenes lay that were read.

    Attributes:
        across: Scenes that lie on the ground of a scene of another split, in the order of reading.
    """

    def __init__(self) -> None:
        """No scene was read yet."""
        self.across: list[str] = []
        self._boxes = np.empty((0, 4))
        self._seen: list[tuple[str, str]] = []

    def place(self, name: str, split: str, box: tuple[float, float, float, float]) -> str:
        """The place of a scene: that of the first scene of its split on the same ground, else its own.

        Args:
            name: Of the scene.
            split: That the folder or the table says.
            box: West, south, east and north in degrees.
        """
        shared = np.flatnonzero(_shared(self._boxes, np.array(box)) > SAME_GROUND)
        there = [self._seen[index] for index in shared]
        if any(other != split for other, _ in there):
            self.across.append(f"{split}/{name}")
        place = next((place for other, place in there if other == split), f"{split}/{name}")
        self._boxes = np.vstack([self._boxes, box])
        self._seen.append((split, place))
        return place


def _shared(boxes: npt.NDArray[np.float64], box: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Overlap of a box with others `(N, 4)`, as a share of the smaller of both."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    smaller = np.minimum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), (box[2:] - box[:2]).prod())
    shares: npt.NDArray[np.float64] = sides.clip(min=0).prod(axis=1) / smaller
    return shares


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
BYTE = 255
UNIT_REFLECTANCE_LIMIT = 2.0
"""Reflectance above this (snow and specular glint stay below) means that the scale is not what was stated."""


@dataclass(frozen=True)
class FolderFormat:
    """What the files of a folder hold, as stated by the user.

    Attributes:
        sensor: Bands in file order, and how file integers become physical values.
        gsd_m: Metres per pixel.
        benchmark: Its published scores rest on a split by the files' names: a folder per class is split so even where
            the files say where they lie.
        group: Parameters that state it, as `segment.data`, for messages; empty where none do.
    """

    sensor: Sensor
    gsd_m: float
    benchmark: bool = False
    group: str = ""

    @property
    def advice(self) -> str:
        """Which parameters to look at where files do not hold this: the end of a sentence."""
        if not self.group:
            return "the files are not those of the data set that is named"
        if self.group.endswith(".data"):
            return f"set {self.group}.format, {self.group}.file_bands, {self.group}.scale or {self.group}.offset"
        return f"set {self.group}.format"


def _rgb_bytes_sensor() -> Sensor:
    """8-bit pictures rendered from Sentinel-2: an id of their own, because their numbers are not reflectance."""
    bands = BUILTIN_SENSORS["sentinel-2-l2a"].subset(("B04", "B03", "B02")).bands
    encoding = Encoding("uint8", 1 / BYTE, 0.0, 0, Units.DN)
    return Sensor("rgb-bytes", "8-bit RGB pictures", 10, bands, encoding)


def _eurosat_ms_sensor() -> Sensor:
    """Sentinel-2 L1C in EuroSAT's published band order (B8A comes last) and scale (reflectance x 10,000)."""
    order = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
    bands = BUILTIN_SENSORS["sentinel-2-l1c"].subset(order).bands
    encoding = Encoding("uint16", 1e-4, 0.0, 0, Units.REFLECTANCE)
    return Sensor("sentinel-2-l1c-eurosat", "EuroSAT multispectral", 10, bands, encoding)


FORMATS: dict[str, FolderFormat] = {
    "rgb_bytes": FolderFormat(sensor=_rgb_bytes_sensor(), gsd_m=10.0),
    "eurosat_ms": FolderFormat(sensor=_eurosat_ms_sensor(), gsd_m=10.0, benchmark=True),
}
"""Known layouts: 8-bit RGB pictures (digital numbers, not reflectance), and EuroSAT's multispectral GeoTIFFs."""


def layout_named(
    name: str,
    *,
    gsd_m: float | None = None,
    bands: Sequence[str] = (),
    scale: float | None = None,
    offset: float | None = None,
    own: Iterable[Sensor] = (),
    group: str = "",
) -> FolderFormat:
    """A known layout, or that of a sensor.

    Args:
        name: Of `FORMATS`, or a sensor id.
        gsd_m: Metres per pixel, where they are not the layout's own.
        bands: The bands that the files hold, in their order; all of the sensor's by default.
        scale: Physical units per count of the files, where it is not the layout's own.
        offset: Physical value of the files' zero, likewise.
        own: Sensors that are described beside the built-in ones; one of these keeps its name.
        group: Parameters that state all this, as `segment.data`, for messages.

    Raises:
        TaskDataError: If there is none of the name; the message lists those there are.
    """
    sensors = {**{sensor.id: sensor for sensor in own}, **BUILTIN_SENSORS}
    known = FORMATS | {sensor.id: FolderFormat(sensor, sensor.gsd_m) for sensor in sensors.values()}
    if name not in known:
        raise TaskDataError(
            f"{group and group + '.format: '}unknown format {name!r}:"
            f" {did_you_mean(name, known)}Known are {', '.join(known)}; a"
            " sensor that is described under ingest.sensors is known once image sets of it are built"
        )
    layout = known[name]
    sensor = layout.sensor.subset(bands) if bands else layout.sensor
    encoding = sensor.encoding
    sensor = replace(
        sensor,
        encoding=replace(
            encoding,
            scale=encoding.scale if scale is None else scale,
            offset=encoding.offset if offset is None else offset,
        ),
    )
    return replace(layout, sensor=sensor, gsd_m=layout.gsd_m if gsd_m is None else gsd_m, group=group)


def split_of(name: str, *, test_share: float = 0.2, val_share: float = 0.1) -> str:
    """Split of a file, from a hash of its name alone.

    Args:
        name: `Class/Class_12` without suffix, so that a JPEG and a GeoTIFF of one place fall into one split.
        test_share: Of all files.
        val_share: Of all files, taken from what is not test.
    """
    position = position_of(name)
    if position < test_share:
        return "test"
    return "val" if position < test_share + val_share else "train"


def check_integers(path: Path, pixels: npt.NDArray[Any], layout: FolderFormat) -> None:
    """Refuse integers that cannot be what was stated; `int16` where `uint16` was is fine if nothing is negative.

    Args:
        path: The file, for the message.
        pixels: Its integers.
        layout: What was stated.

    Raises:
        TaskDataError: If the type is narrower than stated (bytes are no reflectance), or a value does not fit.
    """
    encoding = layout.sensor.encoding
    low, high = int(pixels.min()), int(pixels.max())
    stated = np.dtype(encoding.dtype)
    limits = np.iinfo(stated)
    if pixels.dtype.itemsize < stated.itemsize or low < limits.min or high > limits.max:
        raise TaskDataError(
            f"{path}: {pixels.dtype.name} with values {low} to {high}, but the stated format is"
            f" {encoding.dtype} ({encoding.units}); {layout.advice}"
        )


class ValueRange:
    """Values seen, so that a wrong unit is refused instead of trained on."""

    def __init__(self, layout: FolderFormat) -> None:
        self._layout = layout
        self._medians: list[float] = []
        self._low, self._high = math.inf, -math.inf

    def add(self, pixels: npt.NDArray[np.integer[Any]]) -> None:
        """Look at one image's stored numbers."""
        encoding = self._layout.sensor.encoding
        self._low = min(self._low, float(pixels.min()) * encoding.scale + encoding.offset)
        self._high = max(self._high, float(pixels.max()) * encoding.scale + encoding.offset)
        self._medians.append(float(np.median(pixels)) * encoding.scale + encoding.offset)

    def check(self, folder: str) -> None:
        """Refuse reflectance that is not one: too bright, or all but black.

        Raises:
            TaskDataError: With the values seen.
        """
        if self._layout.sensor.encoding.units is not Units.REFLECTANCE or not self._medians:
            return
        encoding, median = self._layout.sensor.encoding, float(np.median(self._medians))
        if not 0.005 < median < UNIT_REFLECTANCE_LIMIT:
            raise TaskDataError(
                f"{folder}: decoded as {encoding.units} with scale {encoding.scale} and offset {encoding.offset} the"
                f" values are {self._low:.4g} to {self._high:.4g} with median {median:.4g}; reflectance is 0 to 1:"
                f" {self._layout.advice}"
            )


def position_of(name: str) -> float:
    """0 to 1, evenly spread, from a hash of a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
