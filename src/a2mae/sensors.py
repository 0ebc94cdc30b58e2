"""Bands, sensors and their units.

A `Sensor` says which bands an image has, in which order, on which grid, and how its stored integers become physical
values. No module guesses any of these: an unknown sensor is an error that says where to describe it. The built-in
sensors are described in `sensors.yml`.

Imports the standard library and PyYAML only, because the training step runs on machines that have little else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import yaml

from a2mae.errors import InputError, did_you_mean


class Units(StrEnum):
    """Physical meaning of a decoded pixel value."""

    REFLECTANCE = "reflectance"
    """Surface or top-of-atmosphere reflectance, dimensionless; 1.0 is a white Lambertian surface."""
    DN = "dn"
    """Uncalibrated digital numbers, for example NAIP's 8 bits; decoded to 0–1 of the full scale."""
    BACKSCATTER_DB = "backscatter_db"
    """Radar backscatter in decibel."""
    BACKSCATTER_LINEAR = "backscatter_linear"
    """Radar backscatter as a power ratio."""


class UnknownSensorError(InputError):
    """A sensor id that neither the built-in table nor the configuration knows."""


class UnknownBandError(InputError):
    """A band name that the sensor does not have."""


@dataclass(frozen=True, slots=True)
class Band:
    """One spectral band.

    Attributes:
        name: The provider's name, for example `B04`.
        common_name: STAC `eo:common_name`, for example `red`; empty where STAC has none.
        center_wavelength_nm: Centre wavelength in nanometres; 0 for radar.
        full_width_half_max_nm: Width of the response in nanometres; 0 for radar.
        gsd_m: Native ground sampling distance in metres.
    """

    name: str
    common_name: str
    center_wavelength_nm: float
    full_width_half_max_nm: float
    gsd_m: float


@dataclass(frozen=True, slots=True)
class Encoding:
    """How stored integers become physical values: `value = stored * scale + offset` where `stored != nodata`.

    Attributes:
        dtype: NumPy name of the stored integer type.
        scale: Physical units per count.
        offset: Physical value of a stored zero.
        nodata: The stored value that means "nothing was seen here".
        units: What the decoded value is.
    """

    dtype: str
    scale: float
    offset: float
    nodata: int
    units: Units


@dataclass(frozen=True, slots=True)
class Sensor:
    """A source of images: one band list, one grid, one encoding.

    Attributes:
        id: Key used in every table and in the store, for example `sentinel-2-l2a`.
        title: What a person calls it.
        gsd_m: Grid of the stored image in metres; coarser bands are resampled to it once.
        bands: The bands in stored order.
        encoding: How the store holds the pixels.
        platforms: STAC `platform` values that this sensor covers.
    """

    id: str
    title: str
    gsd_m: float
    bands: tuple[Band, ...]
    encoding: Encoding
    platforms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that bands are unique and pixel sizes positive."""
        names = [band.name for band in self.bands]
        if not names or len(set(names)) != len(names):
            raise InputError(f"sensor {self.id!r}: band names must be present and unique, found {names}")
        if self.gsd_m <= 0 or any(band.gsd_m <= 0 for band in self.bands):
            raise InputError(f"sensor {self.id!r}: gsd_m must be positive metres, for the sensor and for every band")

    @property
    def band_names(self) -> tuple[str, ...]:
        """The provider's band names in stored order."""
        return tuple(band.name for band in self.bands)

    def band_index(self, name: str) -> int:
        """Find the position of a band by its provider's name, or else by its common name.

        Args:
            name: `B04` or `red`.

        Raises:
            UnknownBandError: If the sensor has no such band; the message lists those it has.
        """
        for index, band in enumerate(self.bands):
            if band.name == name:
                return index
        for index, band in enumerate(self.bands):
            if band.common_name and band.common_name == name:
                return index
        raise UnknownBandError(
            f"sensor {self.id!r} has no band {name!r}; it has {', '.join(self.band_names)}"
            f" (common names {', '.join(b.common_name for b in self.bands if b.common_name)})"
        )

    def subset(self, names: Iterable[str]) -> Sensor:
        """The same sensor with only the named bands, in the order given.

        Args:
            names: Provider's or common names.

        Raises:
            UnknownBandError: If the sensor has no such band.
        """
        return dataclasses.replace(self, bands=tuple(self.bands[self.band_index(name)] for name in names))

    def to_dict(self) -> dict[str, object]:
        """Describe the sensor for JSON; `sensor_from_dict` reads it back."""
        return dataclasses.asdict(self)


def sensor_from_dict(data: Mapping[str, object]) -> Sensor:
    """Build a sensor from its JSON or YAML description.

    Args:
        data: Keys as the attributes of `Sensor`; `bands` is a list, `encoding` a mapping.

    Raises:
        InputError: If a key is missing, unknown or of the wrong kind; the message names it.
    """
    try:
        bands = data["bands"]
        encoding = data["encoding"]
        if not isinstance(bands, (list, tuple)) or not isinstance(encoding, Mapping):
            raise InputError("'bands' must be a list and 'encoding' a mapping")
        platforms = data.get("platforms", ())
        if not isinstance(platforms, (list, tuple)):
            raise InputError("'platforms' must be a list")
        _check_keys(Encoding, encoding)
        for band in bands:
            _check_keys(Band, band)
        return Sensor(
            id=str(data["id"]),
            title=str(data.get("title", data["id"])),
            gsd_m=float(str(data["gsd_m"])),
            bands=tuple(Band(**band) for band in bands),
            encoding=Encoding(**{**encoding, "units": Units(encoding["units"])}),
            platforms=tuple(str(platform) for platform in platforms),
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = f"missing key {error}" if isinstance(error, KeyError) else error
        raise InputError(f"sensor description {data.get('id', '?')!r} cannot be read: {reason}") from error


def _check_keys(kind: type, found: Mapping[str, object]) -> None:
    known = [field.name for field in dataclasses.fields(kind)]
    for key in found:
        if key not in known:
            raise InputError(f"unknown key {str(key)!r}; {did_you_mean(str(key), known)}there are {', '.join(known)}")


def _builtin() -> dict[str, Sensor]:
    """The sensors of `sensors.yml`, whose whole numbers stay whole: they go into files and fingerprints as written."""
    text = Path(__file__).with_suffix(".yml").read_text("utf-8")
    described = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (safe, and in C)
    sensors = [dataclasses.replace(sensor_from_dict(entry), gsd_m=entry["gsd_m"]) for entry in described]
    return {sensor.id: sensor for sensor in sensors}


BUILTIN_SENSORS: Mapping[str, Sensor] = _builtin()
"""The sensors that need no description, by id."""


def get_sensor(sensor_id: str, extra: Mapping[str, Sensor] | None = None) -> Sensor:
    """Look a sensor up by id.

    Args:
        sensor_id: For example `sentinel-2-l2a`.
        extra: The user's own sensors, which win over the built-in ones.

    Raises:
        UnknownSensorError: If it is not known; the message names the nearest and says where to add one.
    """
    known = {**BUILTIN_SENSORS, **(extra or {})}
    if sensor_id in known:
        return known[sensor_id]
    hint = did_you_mean(sensor_id, list(known))
    raise UnknownSensorError(
        f"unknown sensor {sensor_id!r}. {hint[:1].upper()}{hint[1:]}Known: {', '.join(sorted(known))}."
        " Add your own under 'sensors:' in your environment's parameters_ingest.yml (id, gsd_m, bands, encoding)."
    )
