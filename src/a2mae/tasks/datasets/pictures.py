"""Read image files as stated, in the data set's encoding, and reject what cannot be that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from a2mae.errors import RejectedError
from a2mae.plausibility import DATA_SET_TOO_DARK, MOST_CLIPPED, NOTED_CLIPPED, impossible_reflectance
from a2mae.raster.header import FileBands
from a2mae.raster.statements import check_descriptions, check_gsd
from a2mae.raster.warp import clipped, encode
from a2mae.raster.whole import WholeRaster, read_whole
from a2mae.sensors import Encoding, Units
from a2mae.tasks.datasets.formats import FolderFormat, file_factors
from a2mae.tasks.datasets.task_data import TaskDataError

Note = Callable[[str, str], None]
"""Takes what was done, and to which file or feature."""


@dataclass(frozen=True)
class ImageFile:
    """An image file as read.

    Attributes:
        pixels: `(C, H, W)` numbers in the data set's encoding.
        valid: `(H, W)` bool.
        grid: Where the pixels lie; None where the file does not say.
        gsd_m: Metres per pixel.
    """

    pixels: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]
    grid: GeoBox | None
    gsd_m: float


def read_picture(path: Path, layout: FolderFormat, note: Note) -> ImageFile:
    """Read an image file by what it says of itself and what was stated, as maps read theirs.

    Args:
        path: Of a raster; pictures without a place are welcome.
        layout: What was stated, settled with the first of the files.
        note: Told of values that the stored integers cannot hold.

    Raises:
        ReadError: If it cannot be opened or decoded.
        TaskDataError: If it is something else than was stated; the message says what was seen.
    """
    sensor = layout.sensor
    where = layout.said_by
    try:
        raster = read_whole(path, len(sensor.bands), sensor.encoding)
        check_bands(str(path), len(raster.stored), layout)
        check_descriptions(raster.bands, sensor.band_names, sensor, str(path), f"{where}.file_bands")
        factors = [file_factors(layout, raster.bands, index + 1, path) for index in range(len(raster.stored))]
        if raster.gsd_m is not None and layout.stated.gsd_m is not None:
            check_gsd(raster.gsd_m, layout.stated.gsd_m, str(path), f"{where}.gsd_m")
    except RejectedError as rejection:
        raise TaskDataError(rejection.detail) from rejection
    if _is_untagged_among_tagged(raster.bands, layout):
        note("files without scale and offset, read by those that the first is tagged with", path.name)
    gsd_m = layout.gsd_m if raster.gsd_m is None or layout.stated.gsd_m is not None else raster.gsd_m
    if raster.bands.is_float or set(factors) != {(sensor.encoding.scale, sensor.encoding.offset)}:
        pixels: npt.NDArray[Any] = _encoded(path, raster, factors, layout, note)
    else:
        pixels = raster.stored
        usable = pixels[:, raster.seen]
        _check_integers(path, usable if usable.size else pixels, layout)
    return ImageFile(pixels, raster.seen, raster.grid, gsd_m)


def _is_untagged_among_tagged(bands: FileBands, layout: FolderFormat) -> bool:
    encoding, stated = layout.sensor.encoding, layout.stated
    if bands.is_float or stated.own is None or (stated.scale, stated.offset) != (None, None):
        return False
    as_tagged = (encoding.scale, encoding.offset) != (stated.own.scale, stated.own.offset)
    return as_tagged and (bands.scales[0], bands.offsets[0]) == (1.0, 0.0)


def _encoded(
    path: Path, raster: WholeRaster, factors: list[tuple[float, float]], layout: FolderFormat, note: Note
) -> npt.NDArray[np.generic]:
    """Decode a file by its own scale and offset, and store it in those of the data set."""
    scale, offset = (np.array(one, np.float32)[:, None, None] for one in zip(*factors, strict=True))
    encoding = layout.sensor.encoding
    with np.errstate(over="ignore", invalid="ignore"):
        physical = raster.stored.astype(np.float32) * scale + offset
    shares = clipped(physical, raster.seen, encoding) / max(int(raster.seen.sum()), 1)
    worst = int(shares.argmax())
    if shares[worst] > MOST_CLIPPED:
        low, high = physical[:, raster.seen].min(), physical[:, raster.seen].max()
        raise TaskDataError(
            f"{path}: values are {low:.4g} to {high:.4g}, and {shares[worst]:.0%} of {layout.sensor.band_names[worst]}"
            f" is beyond what {encoding.dtype} of scale {encoding.scale:g} and offset {encoding.offset:g} holds"
            f" ({encoding.units}): {layout.advice}"
        )
    if shares[worst] > NOTED_CLIPPED:
        note(f"images with more than {NOTED_CLIPPED:.0%} of a band beyond what the data set holds, clipped", path.name)
    return encode(physical, raster.seen, encoding)


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
        self._looked_at = False
        self._medians: list[float] = []
        self._low, self._high = math.inf, -math.inf

    def add(self, images: npt.NDArray[np.integer[Any]], valid: npt.NDArray[np.bool_]) -> None:
        """Look at the valid numbers of one scene.

        Args:
            images: `(T, C, H, W)` as stored.
            valid: `(T, H, W)`.
        """
        self._looked_at = True
        encoding = self._layout.sensor.encoding
        pixels = images[np.broadcast_to(valid[:, None], images.shape)]
        if not pixels.size:
            return
        self._low = min(self._low, float(pixels.min()) * encoding.scale + encoding.offset)
        self._high = max(self._high, float(pixels.max()) * encoding.scale + encoding.offset)
        self._medians.append(float(np.median(pixels)) * encoding.scale + encoding.offset)

    def check(self, folder: str) -> None:
        """Reject a data set without a valid pixel or of one single value, and reflectance that is none.

        Raises:
            TaskDataError: With the values seen.
        """
        if not self._looked_at:
            return
        if not self._medians:
            raise TaskDataError(
                f"{folder}: no pixel of any image is valid (nodata, NaN or hidden by a mask): {self._layout.advice}"
            )
        encoding, median = self._layout.sensor.encoding, float(np.median(self._medians))
        found = ""
        if encoding.units is Units.REFLECTANCE:
            found = impossible_reflectance(self._low, self._high, median, darkest_median=DATA_SET_TOO_DARK)
        if found:
            raise TaskDataError(
                f"{folder}: decoded as {encoding.units} with scale {encoding.scale} and offset {encoding.offset}"
                f" {found}: {self._layout.advice}"
            )
        if self._low == self._high:
            raise TaskDataError(
                f"{folder}: every pixel of every image is {self._low:g}, and there is nothing to learn from one value:"
                f" {self._layout.advice}"
            )
