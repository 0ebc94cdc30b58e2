"""What every source hands back, and the checks that it makes before a scene counts as usable.

What every source hands back, and what every source needs to know.

Checks that every source makes before a scene counts as usable.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import shapely
from shapely.geometry.base import BaseGeometry

from a2mae.errors import RefusedError
from a2mae.scenes import BandAsset, RefusedScene, Scene
from a2mae.sensors import BUILTIN_SENSORS, Sensor, Units, UnknownBandError, UnknownSensorError, get_sensor

_SAFE_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:+@=-]{0,199}$")


@dataclass
class Found:
    """Scenes of a source: usable ones and the others with their reasons."""

    scenes: list[Scene] = field(default_factory=list)
    refused: list[RefusedScene] = field(default_factory=list)


@dataclass(frozen=True)
class SensorTable:
    """The sensors of a run: built-in ones and the user's, with the bands that are wanted.

    Attributes:
        own: The user's sensors; they win over built-in ones of the same id.
        bands: Sensor id -> bands to keep, in order.
        use: Where not empty, only these sensors are used.
    """

    own: Mapping[str, Sensor]
    bands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    use: tuple[str, ...] = ()

    def get(self, sensor_id: str) -> Sensor:
        """The sensor with the wanted bands.

        Raises:
            RefusedError: "unknown_sensor" or "sensor_not_used".
        """
        try:
            sensor = get_sensor(sensor_id, self.own)
        except UnknownSensorError as error:
            raise RefusedError("unknown_sensor", str(error)) from error
        if self.use and sensor_id not in self.use:
            raise RefusedError("sensor_not_used", f"sensor {sensor_id!r} is not in ingest.use_sensors")
        return sensor.subset(self.bands[sensor_id]) if sensor_id in self.bands else sensor

    def check(self) -> None:
        """Refuse settings that name sensors or bands that do not exist.

        Raises:
            ValueError: With the parameter to change.
        """
        known = {**BUILTIN_SENSORS, **self.own}
        for where, ids in (("use_sensors", self.use), ("bands", tuple(self.bands))):
            unknown = [i for i in ids if i not in known]
            if unknown:
                raise ValueError(f"ingest.{where}: unknown sensor {unknown[0]!r}; known: {', '.join(sorted(known))}")
        for sensor_id, names in self.bands.items():
            try:
                known[sensor_id].subset(names)
            except (UnknownBandError, ValueError) as error:
                raise ValueError(f"ingest.bands.{sensor_id}: {error}") from error


def check_id(scene_id: str) -> str:
    """Ids become parts of names in tables and logs: only plain ones are taken.

    Raises:
        RefusedError: "bad_id".
    """
    if not _SAFE_ID.match(scene_id):
        raise RefusedError(
            "bad_id", f"id {scene_id[:80]!r} has other signs than letters, digits and . _ : + @ = -, or is too long"
        )
    return scene_id


_GSD_FACTOR = 2.0


def check_units(sensor: Sensor, units: Units, what: str) -> None:
    """Refuse values that the sensor's store would hold under another meaning.

    Linear and decibel backscatter convert exactly into each other; everything else must agree.

    Raises:
        RefusedError: "units_mismatch".
    """
    radar = {Units.BACKSCATTER_DB, Units.BACKSCATTER_LINEAR}
    if units is not sensor.encoding.units and not {units, sensor.encoding.units} <= radar:
        raise RefusedError(
            "units_mismatch",
            f"{what} gives {units.value}, but sensor {sensor.id!r} holds {sensor.encoding.units.value};"
            " define a sensor with these units under ingest.sensors",
        )


def check_gsd(sensor: Sensor, assets: Sequence[BandAsset]) -> float:
    """The finest pixel size of a scene, if it is what the sensor is said to have.

    Raises:
        RefusedError: "gsd_mismatch" if it is off by more than a factor of two.
    """
    finest = min(asset.gsd_m for asset in assets)
    if not sensor.gsd_m / _GSD_FACTOR <= finest <= sensor.gsd_m * _GSD_FACTOR:
        raise RefusedError(
            "gsd_mismatch",
            f"pixels of {finest:g} m, but sensor {sensor.id!r} has {sensor.gsd_m:g} m;"
            " define a sensor with this gsd_m under ingest.sensors",
        )
    return finest


def check_bands(sensor: Sensor, found: Sequence[str], what: str) -> None:
    """Refuse scenes that lack a band.

    Raises:
        RefusedError: "missing_band", naming them.
    """
    missing = [name for name in sensor.band_names if name not in found]
    if missing:
        raise RefusedError(
            "missing_band",
            f"{what} lacks {', '.join(missing)} of sensor {sensor.id!r} (found {', '.join(found) or 'none'}"
            f"{_meant(sensor, missing, found)}); keep fewer with ingest.bands.{sensor.id} or map them",
        )


def _meant(sensor: Sensor, missing: Sequence[str], found: Sequence[str]) -> str:
    """Which band a name that the sensor does not have may stand for."""
    whole = BUILTIN_SENSORS.get(sensor.id, sensor)  # `sensor` may be a subset: its other bands are no mistakes
    strange = [name for name in found if name not in (*whole.band_names, *sensor.band_names)]
    hints = [(name, near[0]) for name in strange if (near := difflib.get_close_matches(name, missing, 1))]
    return "".join(f"; {name!r}: did you mean {band!r}?" for name, band in hints)


def common_footprint(footprints: Sequence[BaseGeometry]) -> BaseGeometry:
    """Where all bands are.

    Raises:
        RefusedError: "no_footprint" if they have no place in common.
    """
    unique = list({footprint.wkb: footprint for footprint in footprints}.values())
    common = unique[0] if len(unique) == 1 else shapely.intersection_all(unique)
    if common.is_empty or common.area == 0:
        raise RefusedError("no_footprint", "the bands of this scene do not overlap on the ground")
    return common
