"""Bands, sensors and their units: the vocabulary every other room speaks.

A `Sensor` says which bands an image has, in which order, on which grid, and how its stored integers become physical
values. Nobody downstream guesses any of these: a sensor that is not known is an error that says where to write it.

Only the standard library is used here, because the models and the training step run on machines that have little else.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


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


class UnknownSensorError(ValueError):
    """A sensor id that neither the built-in table nor the configuration knows."""


class UnknownBandError(ValueError):
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
        """Refuse sensors that cannot be meant."""
        names = [band.name for band in self.bands]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"sensor {self.id!r}: band names must be present and unique, found {names}")
        if self.gsd_m <= 0 or any(band.gsd_m <= 0 for band in self.bands):
            raise ValueError(f"sensor {self.id!r}: gsd_m must be positive metres, for the sensor and for every band")

    @property
    def band_names(self) -> tuple[str, ...]:
        """The provider's band names in stored order."""
        return tuple(band.name for band in self.bands)

    def band_index(self, name: str) -> int:
        """Position of a band, found by its provider's name or else by its common name.

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
        """The same sensor with only the named bands, in the order given."""
        return dataclasses.replace(self, bands=tuple(self.bands[self.band_index(name)] for name in names))

    def to_dict(self) -> dict[str, object]:
        """A JSON-ready description; `sensor_from_dict` reads it back."""
        return dataclasses.asdict(self)


def sensor_from_dict(data: Mapping[str, object]) -> Sensor:
    """Build a sensor from its JSON or YAML description.

    Args:
        data: Keys as the attributes of `Sensor`; `bands` is a list, `encoding` a mapping.

    Raises:
        ValueError: If a key is missing, unknown or of the wrong kind; the message names it.
    """
    try:
        bands = data["bands"]
        encoding = data["encoding"]
        if not isinstance(bands, (list, tuple)) or not isinstance(encoding, Mapping):
            raise ValueError("'bands' must be a list and 'encoding' a mapping")
        platforms = data.get("platforms", ())
        if not isinstance(platforms, (list, tuple)):
            raise ValueError("'platforms' must be a list")
        _refuse_unknown(Encoding, encoding)
        for band in bands:
            _refuse_unknown(Band, band)
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
        raise ValueError(f"sensor description {data.get('id', '?')!r} cannot be read: {reason}") from error


def _refuse_unknown(kind: type, found: Mapping[str, object]) -> None:
    known = [field.name for field in dataclasses.fields(kind)]
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown key {str(key)!r}; {hint}there are {', '.join(known)}")


_REFLECTANCE_1E4 = Encoding("uint16", scale=1e-4, offset=0.0, nodata=0, units=Units.REFLECTANCE)
# Since processing baseline 04.00 Sentinel-2 counts start at -0.1; the store always uses that form.
_SENTINEL2 = Encoding("uint16", scale=1e-4, offset=-0.1, nodata=0, units=Units.REFLECTANCE)
# USGS Landsat Collection 2 Level 2 surface reflectance.
_LANDSAT_C2_L2 = Encoding("uint16", scale=2.75e-5, offset=-0.2, nodata=0, units=Units.REFLECTANCE)
_BYTES = Encoding("uint8", scale=1 / 255, offset=0.0, nodata=0, units=Units.DN)
_DECIBEL = Encoding("int16", scale=0.01, offset=0.0, nodata=-32768, units=Units.BACKSCATTER_DB)


def _sentinel2_bands(*, cirrus: bool) -> tuple[Band, ...]:
    bands = (
        Band("B01", "coastal", 443, 20, 60),
        Band("B02", "blue", 492, 66, 10),
        Band("B03", "green", 560, 36, 10),
        Band("B04", "red", 665, 31, 10),
        Band("B05", "rededge071", 704, 15, 20),
        Band("B06", "rededge075", 740, 15, 20),
        Band("B07", "rededge078", 783, 20, 20),
        Band("B08", "nir", 833, 106, 10),
        Band("B8A", "nir08", 865, 21, 20),
        Band("B09", "nir09", 945, 20, 60),
        Band("B10", "cirrus", 1374, 31, 60),
        Band("B11", "swir16", 1614, 91, 20),
        Band("B12", "swir22", 2202, 175, 20),
    )
    return tuple(band for band in bands if cirrus or band.name != "B10")


def _four_bands(gsd_m: float, *centers_nm: float) -> tuple[Band, ...]:
    names = (("B1", "blue"), ("B2", "green"), ("B3", "red"), ("B4", "nir"))
    widths = (70.0, 70.0, 60.0, 120.0)
    return tuple(
        Band(name, common, center, width, gsd_m)
        for (name, common), center, width in zip(names, centers_nm, widths, strict=True)
    )


BUILTIN_SENSORS: Mapping[str, Sensor] = {
    sensor.id: sensor
    for sensor in (
        Sensor(
            "sentinel-2-l2a",
            "Sentinel-2 MSI, surface reflectance",
            10,
            _sentinel2_bands(cirrus=False),
            _SENTINEL2,
            ("sentinel-2a", "sentinel-2b", "sentinel-2c"),
        ),
        Sensor(
            "sentinel-2-l1c",
            "Sentinel-2 MSI, top of atmosphere",
            10,
            _sentinel2_bands(cirrus=True),
            _SENTINEL2,
            ("sentinel-2a", "sentinel-2b", "sentinel-2c"),
        ),
        Sensor(
            "landsat-oli-c2-l2",
            "Landsat 8/9 OLI, surface reflectance",
            30,
            (
                Band("SR_B1", "coastal", 443, 16, 30),
                Band("SR_B2", "blue", 482, 60, 30),
                Band("SR_B3", "green", 561, 57, 30),
                Band("SR_B4", "red", 655, 37, 30),
                Band("SR_B5", "nir08", 865, 28, 30),
                Band("SR_B6", "swir16", 1609, 85, 30),
                Band("SR_B7", "swir22", 2201, 187, 30),
            ),
            _LANDSAT_C2_L2,
            ("landsat-8", "landsat-9"),
        ),
        Sensor(
            "landsat-etm-c2-l2",
            "Landsat 7 ETM+, surface reflectance",
            30,
            (
                Band("SR_B1", "blue", 483, 71, 30),
                Band("SR_B2", "green", 560, 78, 30),
                Band("SR_B3", "red", 662, 62, 30),
                Band("SR_B4", "nir08", 835, 128, 30),
                Band("SR_B5", "swir16", 1648, 200, 30),
                Band("SR_B7", "swir22", 2206, 263, 30),
            ),
            _LANDSAT_C2_L2,
            ("landsat-7",),
        ),
        Sensor(
            "landsat-tm-c2-l2",
            "Landsat 4/5 TM, surface reflectance",
            30,
            (
                Band("SR_B1", "blue", 485, 66, 30),
                Band("SR_B2", "green", 569, 79, 30),
                Band("SR_B3", "red", 660, 67, 30),
                Band("SR_B4", "nir08", 840, 128, 30),
                Band("SR_B5", "swir16", 1676, 217, 30),
                Band("SR_B7", "swir22", 2223, 254, 30),
            ),
            _LANDSAT_C2_L2,
            ("landsat-4", "landsat-5"),
        ),
        Sensor("naip", "NAIP aerial imagery", 1, _four_bands(1, 480, 560, 650, 830), _BYTES),
        Sensor(
            "gaofen-1",
            "Gaofen-1 PMS multispectral",
            8,
            _four_bands(8, 485, 555, 660, 830),
            _REFLECTANCE_1E4,
            ("gaofen-1",),
        ),
        Sensor(
            "gaofen-2",
            "Gaofen-2 PMS multispectral",
            4,
            _four_bands(4, 485, 555, 660, 830),
            _REFLECTANCE_1E4,
            ("gaofen-2",),
        ),
        Sensor(
            "sentinel-1-grd",
            "Sentinel-1 GRD, calibrated sigma nought on the ellipsoid, decibel",
            10,
            (Band("vv", "", 0, 0, 10), Band("vh", "", 0, 0, 10)),
            _DECIBEL,
            ("sentinel-1a", "sentinel-1b", "sentinel-1c"),
        ),
        Sensor(
            "sentinel-1-rtc",
            "Sentinel-1, terrain-corrected gamma nought, decibel",
            10,
            (Band("vv", "", 0, 0, 10), Band("vh", "", 0, 0, 10)),
            _DECIBEL,
            ("sentinel-1a", "sentinel-1b", "sentinel-1c"),
        ),
    )
}


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
    near = difflib.get_close_matches(sensor_id, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownSensorError(
        f"unknown sensor {sensor_id!r}.{hint} Known: {', '.join(sorted(known))}."
        " Add your own under 'sensors:' in your environment's parameters_ingest.yml (id, gsd_m, bands, encoding)."
    )
