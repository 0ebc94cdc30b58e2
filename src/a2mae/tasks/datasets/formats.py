"""What image files hold, as the user states it, and what is rejected because it cannot be that.

Bands, units and GSD are stated (`<task>.data.format` and its neighbours) and held against the files; nothing is
guessed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from a2mae.errors import ReadError, RejectedError, did_you_mean
from a2mae.raster.header import FileBands
from a2mae.raster.statements import FileNumbers, described_bands, factors_of, file_numbers
from a2mae.raster.whole import header_of
from a2mae.sensors import BUILTIN_SENSORS, Encoding, Sensor, Units
from a2mae.tasks.data_parameters import FilesParameters
from a2mae.tasks.datasets.task_data import TaskDataError

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".jp2", ".j2k")
_RGB_BYTES = "rgb-bytes"


@dataclass(frozen=True)
class Stated:
    """What a user has said of the files; None and False where nothing, so that the files may say it.

    Attributes:
        gsd_m: Metres per pixel.
        scale: Physical units per count.
        offset: Physical value of a zero.
        bands: Whether the bands and their order were stated.
        own: The format's encoding before any scale or offset was stated: that of physical values once they are stored.
    """

    gsd_m: float | None = None
    scale: float | None = None
    offset: float | None = None
    bands: bool = False
    own: Encoding | None = None


@dataclass(frozen=True)
class FolderFormat:
    """What the files of a folder hold, as stated by the user, then as the files say.

    Attributes:
        sensor: Bands in file order, and how stored integers become physical values.
        gsd_m: Metres per pixel.
        benchmark: Its published scores rest on a split by the files' names: a folder per class is split so even where
            the files say where they lie.
        group: Parameters that state it, as `segment.data`, for messages; empty where none do.
        stated: What the user has said.
        float_factors: Scale and offset of files of floats without tags: 1 and 0 where they are physical values.
        numbers: How those of the first file are read; None before one was opened.
        notes: What was taken from the files, or assumed, for the report.
    """

    sensor: Sensor
    gsd_m: float
    benchmark: bool = False
    group: str = ""
    stated: Stated = Stated()
    float_factors: tuple[float, float] = (1.0, 0.0)
    numbers: FileNumbers | None = None
    notes: tuple[str, ...] = ()

    @property
    def said_by(self) -> str:
        """What says how the files are: the parameters, or the format that is named."""
        return self.group or "the data set"

    @property
    def has_keys(self) -> bool:
        """Whether its parameters state bands, GSD, scale and offset beside the format."""
        return self.group.endswith(".data") or self.group == "pictures"

    @property
    def advice(self) -> str:
        """Which parameters to look at where files do not hold this: the end of a sentence."""
        if not self.group:
            return "the files are not those of the data set that is named"
        if self.has_keys:
            return f"set {self.group}.format, {self.group}.file_bands, {self.group}.scale or {self.group}.offset"
        return f"set {self.group}.format"


def _rgb_bytes() -> Sensor:
    """Describe 8-bit pictures rendered from Sentinel-2; their id is their own, because they hold no reflectance."""
    bands = BUILTIN_SENSORS["sentinel-2-l2a"].subset(("B04", "B03", "B02")).bands
    return Sensor(_RGB_BYTES, "8-bit RGB pictures", 10, bands, Encoding("uint8", 1 / 255, 0.0, 0, Units.DN))


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
    return replace(
        layout,
        sensor=replace(sensor, encoding=encoding),
        gsd_m=layout.gsd_m if gsd_m is None else gsd_m,
        group=group,
        stated=Stated(gsd_m, scale, offset, bool(bands), sensor.encoding),
    )


def stated_layout(files: FilesParameters, group: str, own: Iterable[Sensor] = ()) -> FolderFormat:
    """Return what files hold as a group of parameters states it.

    Args:
        files: The group.
        group: Its name, for messages.
        own: Sensors that are described beside the built-in ones.

    Raises:
        TaskDataError: If there is no format of the name; the message lists those there are.
    """
    return layout_named(
        files.format, gsd_m=files.gsd_m, bands=files.file_bands, scale=files.scale, offset=files.offset, own=own,
        group=group,
    )  # fmt: skip


def settled(layout: FolderFormat, paths: Iterable[Path]) -> FolderFormat:
    """Complete what was stated with what files say of themselves, by the first that can be opened.

    Args:
        layout: As stated.
        paths: The files, in their order.

    Returns:
        The format with the bands that the file describes and the size of its pixels on the ground, where none were
        stated, and with the scale and offset of its integers.

    Raises:
        TaskDataError: If the file contradicts what was stated.
    """
    for path in paths:
        try:
            return _settled(layout, path, *header_of(path))
        except ReadError:  # counted where its pixels are read
            continue
        except RejectedError as rejection:
            raise TaskDataError(rejection.detail) from rejection
    return layout


def _settled(layout: FolderFormat, path: Path, bands: FileBands, gsd_m: float | None) -> FolderFormat:
    said = described_bands(bands, layout.sensor)
    masks = bands.alpha is not None and said[bands.alpha - 1] is None
    described = tuple(band for band in said if band is not None)
    if not layout.stated.bands and len(described) == bands.count - masks and described != layout.sensor.bands:
        layout = replace(layout, sensor=replace(layout.sensor, bands=described))
        layout = _noted(layout, f"bands as the files describe them: {', '.join(layout.sensor.band_names)}")
    return _with_gsd(_with_encoding(layout, path, bands), path, gsd_m)


def _with_encoding(layout: FolderFormat, path: Path, bands: FileBands) -> FolderFormat:
    """The format with the scale and offset of its files' integers; floats are stored as the format stores them."""
    sensor, stated = layout.sensor, layout.stated
    if bands.count < len(sensor.bands):
        return layout  # rejected where its pixels are read
    scale, offset = file_factors(layout, bands, 1, path)
    layout = replace(layout, numbers=file_numbers(bands, 1, (scale, offset), sensor.encoding))
    if bands.is_float:
        own = replace(sensor, encoding=stated.own or sensor.encoding)
        return replace(layout, sensor=own, float_factors=(stated.scale or 1.0, stated.offset or 0.0))
    if (scale, offset) != (sensor.encoding.scale, sensor.encoding.offset):
        layout = replace(layout, sensor=replace(sensor, encoding=replace(sensor.encoding, scale=scale, offset=offset)))
        return _noted(layout, f"scale {scale:g} and offset {offset:g} as the files are tagged")
    if offset and stated.offset is None and (bands.scales[0], bands.offsets[0]) == (1.0, 0.0):
        assumed = (
            f"offset {offset:g} of {sensor.id} is assumed: the files do not say it; where a provider has taken it off"
            f" already (harmonised data), every value is wrong by it ({_key(layout, 'offset')}: 0.0)"
        )
        logger.warning("%s: %s", path.parent, assumed)
        return _noted(layout, assumed)
    return layout


def _with_gsd(layout: FolderFormat, path: Path, gsd_m: float | None) -> FolderFormat:
    """The format with the size of its files' pixels on the ground, unless that was stated."""
    if layout.stated.gsd_m is not None:
        return layout
    if gsd_m is not None:
        if not math.isclose(gsd_m, layout.gsd_m, rel_tol=0.05):
            layout = _noted(layout, f"{gsd_m:g} m per pixel, as the files are georeferenced")
        return replace(layout, gsd_m=gsd_m)
    if layout.sensor.id != _RGB_BYTES:
        return layout
    assumed = f"{layout.gsd_m:g} m per pixel is assumed: the pictures do not say it ({_key(layout, 'gsd_m')})"
    logger.warning("%s: %s", path.parent, assumed)
    return _noted(layout, assumed)


def _noted(layout: FolderFormat, note: str) -> FolderFormat:
    return replace(layout, notes=(*layout.notes, note))


def _key(layout: FolderFormat, name: str) -> str:
    """The parameter that states something; a group without it has to be read as another format."""
    return f"{layout.group}.{name}" if layout.has_keys else f"{layout.group or 'its'}.format"


def file_factors(layout: FolderFormat, bands: FileBands, index: int, path: Path) -> tuple[float, float]:
    """Decide by which scale and offset a band of a file is decoded, as `raster.statements.factors_of`.

    Args:
        layout: What was stated.
        bands: What the file says.
        index: The band, counted from 1.
        path: Of the file, for messages.
    """
    encoding = layout.sensor.encoding
    return factors_of(
        bands,
        index,
        (layout.stated.scale, layout.stated.offset),
        (encoding.scale, encoding.offset),
        shown=str(path),
        where=layout.said_by,
    )
