"""What image files hold, as the user states it, and what is rejected because it cannot be that.

Bands, units and GSD are stated (`<task>.data.format` and its neighbours) and held against the files; nothing is
guessed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning

from a2mae.errors import did_you_mean
from a2mae.plausibility import DATA_SET_TOO_DARK, impossible_reflectance
from a2mae.sensors import BUILTIN_SENSORS, Encoding, Sensor, Units
from a2mae.tasks.datasets.task_data import TaskDataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


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


def _rgb_bytes() -> Sensor:
    """Describe 8-bit pictures rendered from Sentinel-2; their id is their own, because they hold no reflectance."""
    bands = BUILTIN_SENSORS["sentinel-2-l2a"].subset(("B04", "B03", "B02")).bands
    return Sensor("rgb-bytes", "8-bit RGB pictures", 10, bands, Encoding("uint8", 1 / 255, 0.0, 0, Units.DN))


def _eurosat_ms() -> Sensor:
    """Describe Sentinel-2 L1C in EuroSAT's published band order (B8A comes last) and scale (reflectance x 10,000)."""
    order = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
    bands = BUILTIN_SENSORS["sentinel-2-l1c"].subset(order).bands
    encoding = Encoding("uint16", 1e-4, 0.0, 0, Units.REFLECTANCE)
    return Sensor("sentinel-2-l1c-eurosat", "EuroSAT multispectral", 10, bands, encoding)


FORMATS: dict[str, FolderFormat] = {
    "rgb_bytes": FolderFormat(_rgb_bytes(), gsd_m=10.0),
    "eurosat_ms": FolderFormat(_eurosat_ms(), gsd_m=10.0, benchmark=True),
}
"""Formats beside those of the sensors: 8-bit RGB pictures (digital numbers), and EuroSAT's multispectral GeoTIFFs."""


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
    """Return a known format, or that of a sensor.

    Args:
        name: Of `FORMATS`, or a sensor id.
        gsd_m: Metres per pixel, where they are not the format's own.
        bands: The bands that the files hold, in their order; all of the sensor's by default.
        scale: Physical units per count of the files, where it is not the format's own.
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
    encoding = replace(
        sensor.encoding,
        scale=sensor.encoding.scale if scale is None else scale,
        offset=sensor.encoding.offset if offset is None else offset,
    )
    sensor = replace(sensor, encoding=encoding)
    return replace(layout, sensor=sensor, gsd_m=layout.gsd_m if gsd_m is None else gsd_m, group=group)


@dataclass(frozen=True)
class ImageFile:
    """An image file as read.

    Attributes:
        pixels: `(C, H, W)` numbers as stored.
        valid: `(H, W)` bool.
        grid: Where the pixels lie; None where the file does not say.
    """

    pixels: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]
    grid: GeoBox | None


def read_picture(path: Path, layout: FolderFormat) -> ImageFile:
    """Read the numbers of an image file; floats are taken as physical values and NaN as nodata.

    Args:
        path: Any raster that GDAL reads; pictures without a place are welcome.
        layout: What was stated.

    Raises:
        TaskDataError: If bands are more or fewer than stated, or integers of another type; with the range seen.
    """
    encoding = layout.sensor.encoding
    pixels, nodata, grid = read_raster(path)
    check_bands(str(path), len(pixels), layout)
    valid = np.isfinite(pixels).all(axis=0)
    if nodata is None and encoding.units is not Units.DN:
        nodata = encoding.nodata if pixels.dtype.kind != "f" else None
    if nodata is not None and not math.isnan(nodata):
        valid &= ~(pixels == nodata).all(axis=0)
    if pixels.dtype.kind == "f":
        pixels = np.round((np.where(valid, pixels, encoding.offset) - encoding.offset) / encoding.scale)
    else:
        usable = pixels[:, valid]
        _check_integers(path, usable if usable.size else pixels, layout)
    return ImageFile(pixels, valid, grid)


def read_raster(path: Path) -> tuple[npt.NDArray[Any], float | None, GeoBox | None]:
    """Read a whole raster: its numbers `(C, H, W)`, what it calls nodata, and where it lies.

    Args:
        path: Of a file; one without georeference has no grid.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            grid = source.crs and GeoBox(source.shape, source.transform, source.crs.to_string())
            return source.read(), source.nodata, grid


def check_bands(name: str, found: int, layout: FolderFormat) -> None:
    """Reject an image that has not as many bands as were stated.

    Args:
        name: Of the image, for the message.
        found: Its bands.
        layout: What was stated.

    Raises:
        TaskDataError: With both counts.
    """
    stated = layout.sensor.band_names
    if found != len(stated):
        raise TaskDataError(
            f"{name}: {found} bands, but the stated format has {len(stated)} ({', '.join(stated)}); {layout.advice}"
        )


def _check_integers(path: Path, pixels: npt.NDArray[Any], layout: FolderFormat) -> None:
    """Reject integers of a narrower type than stated (bytes are no reflectance), and values that do not fit it.

    `int16` where `uint16` was stated is fine if nothing is negative.
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


def to_counts(
    images: npt.NDArray[Any], valid: npt.NDArray[np.bool_], encoding: Encoding, name: str
) -> npt.NDArray[np.integer[Any]]:
    """Bring numbers into the stored type.

    Args:
        images: `(T, C, H, W)`; integers, or floats with whole values.
        valid: `(T, H, W)`; what is not valid is not looked at and becomes 0.
        encoding: As stated.
        name: Of the scene, for the message.

    Raises:
        TaskDataError: For NaN in valid pixels, fractions, or values that the type does not hold; with the range seen.
    """
    limits = np.iinfo(encoding.dtype)
    usable = np.broadcast_to(valid[:, None], images.shape)
    inside = images[usable]
    if inside.size:
        low, high = inside.min(), inside.max()
        wrong = None
        if not np.isfinite(inside).all():
            wrong = "holds NaN or infinity"
        elif low < limits.min or high > limits.max:
            wrong = f"has values {low:g} to {high:g}"
        elif images.dtype.kind == "f" and not np.array_equal(inside, np.round(inside)):
            wrong = f"has fractions between {low:g} and {high:g}"
        if wrong:
            raise TaskDataError(
                f"{name} {wrong}, but the stated format is {encoding.dtype} ({encoding.units},"
                f" scale {encoding.scale:g}, offset {encoding.offset:g})"
            )
    return np.where(usable, images, 0).astype(encoding.dtype)


class ValueRange:
    """The values seen so far, so that a wrong unit is rejected instead of trained on."""

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
        """Reject reflectance that is none: too bright, or all but black.

        Raises:
            TaskDataError: With the values seen.
        """
        if self._layout.sensor.encoding.units is not Units.REFLECTANCE or not self._medians:
            return
        encoding, median = self._layout.sensor.encoding, float(np.median(self._medians))
        found = impossible_reflectance(self._low, self._high, median, darkest_median=DATA_SET_TOO_DARK)
        if found:
            raise TaskDataError(
                f"{folder}: decoded as {encoding.units} with scale {encoding.scale} and offset {encoding.offset}"
                f" {found}: {self._layout.advice}"
            )
