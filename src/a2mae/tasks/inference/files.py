"""Rasters that the user names: which bands a file holds and by which scale and offset it is read.

A file is checked before it is mapped or embedded, those of maps before any training.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS

from a2mae.errors import RejectedError
from a2mae.plausibility import TOO_DARK, impossible_reflectance, too_dark
from a2mae.raster.header import FileBands, RasterHeader, read_header
from a2mae.raster.statements import (
    FileNumbers,
    check_descriptions,
    described_bands,
    factors_of,
    file_numbers,
    implied_fill,
)
from a2mae.scenes import BandAsset
from a2mae.sensors import BUILTIN_SENSORS, Sensor, Units, get_sensor, sensor_from_dict
from a2mae.tasks.datasets.store_bands import same_band
from a2mae.tasks.datasets.task_data import TaskDataError, TaskSpec
from a2mae.tasks.datasets.writer import TaskDataSource
from a2mae.tasks.inference.rasters import Raster, sample_of
from a2mae.tasks.parameters import MapParameters, TaskParameters
from a2mae.tasks.registry import Task

logger = logging.getLogger(__name__)

_OTHER_GSD = 1.5
"""Pixels that differ by this factor from those of the training are warned of."""


@dataclass(frozen=True)
class RasterKeys:
    """Full names of the parameters that say what a raster holds, for messages.

    Attributes:
        group: The group of parameters.
        has_encoding: Whether the group has a scale and an offset; else the file has to state them.
    """

    group: str
    has_encoding: bool = False

    @property
    def sensor(self) -> str:
        """The parameter that says whose raster it is."""
        return f"{self.group}.sensor"

    @property
    def raster(self) -> str:
        """The parameter that names the raster."""
        return f"{self.group}.raster"

    @property
    def advice(self) -> str:
        """What to change where values are not what they are taken for: the end of a sentence."""
        stated = f"set {self.group}.scale and {self.group}.offset, " if self.has_encoding else ""
        return f"{stated}write scale and offset into the file, or set {self.sensor}"


EMBED = RasterKeys("embed", has_encoding=True)


def keys_of_map(task: Task) -> RasterKeys:
    """Return the names of the parameters of a task's map."""
    return RasterKeys(f"{task}.map")


def raster_from_file(
    path: Path,
    sensor: Sensor,
    bands: Sequence[str],
    *,
    stated: Sensor | None = None,
    floats: tuple[float, float] = (1.0, 0.0),
    taught: FileNumbers | None = None,
    scale: float | None = None,
    offset: float | None = None,
    keys: RasterKeys = EMBED,
) -> Raster:
    """Describe a GeoTIFF, COG, PNG, JPEG or JPEG 2000 that holds bands of a sensor on one projected grid in metres.

    It is read as images of a task are. Bands are found by their descriptions, else by their order: as those of the
    training if the file has as many, or the sensor's if it has as many as the sensor. Scale and offset are the file's
    if it has any, else those given, else those of the training or the sensor; a file of floats without any is taken as
    physical values. An offset that only the sensor states is warned of: many providers have taken it off already.

    Args:
        path: The file.
        sensor: Whose raster it is.
        bands: Names or common names, in the order wanted.
        stated: The sensor with the bands, order and encoding of files like this one, as those that a task was trained
            on; None: as the sensor has them.
        floats: Scale and offset of files of floats like this one.
        taught: How the files are read that a task was trained on; another way is warned of.
        scale: Physical units per count, where the file does not say it.
        offset: Physical value of a stored zero, likewise.
        keys: Names of the parameters, for messages.

    Raises:
        TaskDataError: If the file cannot be opened, has no CRS or none in metres, lacks a band, contradicts what was
            given, or its values are not in the sensor's units; the message says what was seen.
    """
    try:
        header = header_in_metres(path)
        layouts = (stated or sensor, sensor)
        if header.is_float and (scale, offset) == (None, None) and floats != (1.0, 0.0):
            scale, offset = floats
        assets = tuple(_asset(header, layouts, name, (scale, offset), (str(path), keys)) for name in bands)
    except RejectedError as rejection:
        raise TaskDataError(rejection.detail) from rejection
    grid = GeoBox(header.shape, header.transform, header.crs)
    raster = Raster((assets,), layouts[0], tuple(asset.band for asset in assets), grid, path.name)
    silent = any(_says_nothing(header, asset.band_index - 1) for asset in assets)
    if silent and stated is None and offset is None and sensor.encoding.offset:
        known = f"set {keys.group}.offset (0.0, or {sensor.encoding.offset:g} if it is right)"
        logger.warning(
            "%s states no scale and offset: it is read by the offset of %s, %g. Where a provider has taken that off"
            " already (harmonised data), every value is wrong by it: %s",
            path,
            sensor.id,
            sensor.encoding.offset,
            known if keys.has_encoding else keys.advice,
        )
    _warn_of_numbers(raster, header, taught, path)
    _check_units(raster, path, keys)
    return raster


def _warn_of_numbers(raster: Raster, header: RasterHeader, taught: FileNumbers | None, path: Path) -> None:
    """Warn of numbers that mean something else than those of the training: mostly the tags of one are wrong."""
    found = (
        file_numbers(header, asset.band_index, (asset.scale, asset.offset), raster.sensor.encoding)
        for asset in raster.files[0]
    )
    other = next((numbers for numbers in found if taught is not None and not numbers.agrees_with(taught)), None)
    if other is not None:
        logger.warning(
            "%s is read as %s, but the images that the model is trained on as %s: each by what it says of itself; where"
            " the tags of one are wrong, the map is, too: correct them (rio edit-info)",
            path,
            other,
            taught,
        )


def header_in_metres(path: Path) -> RasterHeader:
    """Read the header of a raster that the user names.

    Args:
        path: The file.

    Raises:
        RejectedError: If it cannot be opened, or has no CRS.
        TaskDataError: If its CRS is not in metres.
    """
    header = read_header(str(path))
    crs = CRS.from_user_input(header.crs)
    if not crs.is_projected or crs.linear_units not in ("metre", "meter", "m"):
        raise TaskDataError(f"{path} is in {crs}, not in metres: reproject it, for example to its UTM zone")
    return header


def _says_nothing(bands: FileBands, position: int) -> bool:
    """Whether a band holds integers for which the file has neither scale nor offset."""
    return not bands.is_float and (bands.scales[position], bands.offsets[position]) == (1.0, 0.0)


def _asset(
    header: RasterHeader,
    layouts: tuple[Sensor, Sensor],
    name: str,
    stated: tuple[float | None, float | None],
    shown: tuple[str, RasterKeys],
) -> BandAsset:
    """Where a band lies in a file of one of these layouts, the first one that fits."""
    as_trained, sensor = layouts
    path, keys = shown
    band = sensor.bands[sensor.band_index(name)]
    layout = _layout(header, layouts)
    named = [None if found is None else found.name for found in described_bands(header, sensor)]
    if band.name in named:
        position = named.index(band.name)
    elif layout is not None:
        check_descriptions(header, layout.band_names, sensor, path, f"the order of {sensor.id}")
        position = layout.band_index(name)
    elif band.name in header.descriptions:  # B1, B2, …, which are the sensor's own names
        position = header.descriptions.index(band.name)
    else:
        raise TaskDataError(
            f"{path} has no band described as {band.name!r} or {band.common_name!r} (descriptions:"
            f" {', '.join(map(repr, header.descriptions))}), and its {header.count} bands are not the"
            f" {len(sensor.bands)} of {sensor.id} ({', '.join(sensor.band_names)}): describe the bands, or set"
            f" {keys.sensor}"
        )
    encoding = as_trained.encoding
    factors = factors_of(header, position + 1, stated, (encoding.scale, encoding.offset), shown=path, where=keys.group)
    return BandAsset(
        band=band.name,
        href=path,
        band_index=position + 1,
        scale=factors[0],
        offset=factors[1],
        nodata=header.nodata[position],
        units=encoding.units,
        gsd_m=header.gsd_m,
        fill=implied_fill(header, position + 1, encoding),
        alpha_is_data=header.alpha is not None
        and (named[header.alpha - 1] is not None or (layout is not None and len(layout.bands) == header.count)),
    )


def _layout(header: RasterHeader, layouts: tuple[Sensor, Sensor]) -> Sensor | None:
    """The first layout of as many bands as the file has, else of as many as it has beside an alpha band."""
    counts = (header.count,) if header.alpha is None else (header.count, header.count - 1)
    return next((layout for count in counts for layout in layouts if len(layout.bands) == count), None)


def _check_units(raster: Raster, path: Path, keys: RasterKeys) -> None:
    """Refuse values of one window that cannot be reflectance, and warn of such that hardly can."""
    if raster.sensor.encoding.units is not Units.REFLECTANCE:
        return
    seen = sample_of(raster)
    if not seen.size:
        return
    low, high, median = float(seen.min()), float(seen.max()), float(np.median(seen))
    found = impossible_reflectance(low, high, median)
    if found:
        raise TaskDataError(f"{path}: decoded as reflectance {found}: {keys.advice}")
    brightest = float(np.percentile(seen, 99))
    if too_dark(brightest):
        logger.warning("%s: values from %.4g to %.4g; %s: %s", path, low, brightest, TOO_DARK, keys.advice)


@dataclass(frozen=True)
class Mapped:
    """What a task's data decides about the rasters that its model maps.

    Attributes:
        spec: Specification of the data: files like those of the training have its bands, order and encoding.
        sensors: Ids of the sensors of its samples, in the order of the input plan.
        bands: Names in the data, in the order wanted.
        known: Sensors in use, by id, as `ingest` describes them.
    """

    spec: TaskSpec
    sensors: Sequence[str]
    bands: Sequence[str]
    known: Mapping[str, object]

    def sensor(self, options: MapParameters) -> tuple[Sensor, Sensor | None]:
        """Find whose rasters are mapped.

        Returns:
            The sensor; and, if its files are of the training's kind, the sensor with their bands, order and encoding.

        Raises:
            TaskDataError: If the data has no samples of the sensor.
        """
        spec, sensor_id = self.spec, options.sensor or self.sensors[0]
        if sensor_id not in self.sensors:
            raise TaskDataError(
                f"{keys_of_map(spec.task).sensor}: the {spec.task} data of {spec.source!r} is of"
                f" {', '.join(self.sensors)}, not of {sensor_id!r}; set it to one of those, or teach the task"
                f" {sensor_id!r} ({spec.task}.data)"
            )
        as_trained = tuple(self.sensors) == (sensor_id,)
        trained = Sensor(sensor_id, spec.source, spec.gsd_m, spec.bands, spec.encoding)
        # Pictures of a folder are of no sensor that ingest or the program knows.
        known = sensor_id in self.known or sensor_id in BUILTIN_SENSORS
        found = trained if as_trained and not known else sensor_named(sensor_id, self.known)
        return found, trained if as_trained else None

    def rasters(self, options: MapParameters) -> list[Raster]:
        """Open the named raster, or the earlier and the later one of a pair; none if no raster is named.

        Raises:
            TaskDataError: If one cannot be opened, has no CRS in metres, lacks a band or is in other units.
        """
        if options.raster is None:
            return []
        sensor, stated = self.sensor(options)
        paths = [options.raster_before, options.raster] if self.spec.task.kind.dates == 2 else [options.raster]
        keys = keys_of_map(self.spec.task)
        found = [
            raster_from_file(
                Path(str(path)), sensor, bands_of(sensor, self.spec, self.bands),
                stated=stated, floats=self.spec.float_factors, taught=self.spec.numbers, keys=keys,
            )
            for path in paths
        ]  # fmt: skip
        for raster in found:
            self._warn_of_gsd(raster)
        return found

    def _warn_of_gsd(self, raster: Raster) -> None:
        """Warn of pixels of another size than those of the training: objects then have other sizes in pixels."""
        taught = self.spec.gsd_m
        if not 1 / _OTHER_GSD < raster.gsd_m / taught < _OTHER_GSD:
            logger.warning(
                "%s has pixels of %.4g m, and the %s data has %.4g m: things are of another size in pixels than the"
                " model was taught; resample one, or set %s.data.gsd_m if it is wrong",
                raster.name,
                raster.gsd_m,
                self.spec.task,
                taught,
                self.spec.task,
            )


def bands_of(sensor: Sensor, spec: TaskSpec, bands: Sequence[str]) -> Sequence[str]:
    """Name the bands of task data as a sensor names them, without those that it lacks among the images of sets.

    Args:
        sensor: Whose raster it is.
        spec: Of the data.
        bands: Names in the data.
    """
    if not spec.set_sensors:
        return bands
    wanted = [spec.bands[spec.band_index(name)] for name in bands if name not in spec.lacks(sensor.id)]
    return [sensor.bands[same_band(sensor, band.common_name or band.name)].name for band in wanted]


def check_named(options: TaskParameters, source: TaskDataSource, known: Mapping[str, object] | None) -> None:
    """Open the rasters that are to be mapped, so that one that cannot be is found before hours of training.

    Args:
        options: The task's parameters.
        source: Its samples, not read yet.
        known: Sensors in use, by id; None if no stage has looked at scenes.

    Raises:
        TaskDataError: As `Mapped.rasters`, or if the data lacks a band.
    """
    spec = source.spec
    if known is None and options.map.raster is None:
        logger.warning(
            "%s names no raster and no stage of the chain makes scenes: there will be scores and no map",
            keys_of_map(spec.task).raster,
        )
    if options.map.raster is not None:
        bands = [spec.bands[spec.band_index(name)].name for name in options.bands]
        Mapped(spec, source.sensors, bands, known or {}).rasters(options.map)


def sensor_named(sensor_id: str, known: Mapping[str, object]) -> Sensor:
    """Return a sensor as `ingest` describes it, else the built-in one.

    Args:
        sensor_id: The sensor's id.
        known: Sensors in use, by id.
    """
    described = known.get(sensor_id)
    return sensor_from_dict(described) if isinstance(described, Mapping) else get_sensor(sensor_id)
