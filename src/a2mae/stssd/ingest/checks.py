"""What every source of scenes returns, and the checks that a scene must pass before it counts as usable."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import shapely
from pyproj.exceptions import ProjError
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from a2mae.errors import InputError, RejectedError, did_you_mean
from a2mae.scenes import BandAsset, RejectedScene, Scene
from a2mae.sensors import BUILTIN_SENSORS, Sensor, Units, UnknownBandError, UnknownSensorError, get_sensor

if TYPE_CHECKING:
    from a2mae.stssd.ingest.stac_documents import Document

_SAFE_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:+@=-]{0,199}$")
_GSD_FACTOR = 2.0
_YEARS = range(1900, 2101)


@dataclass
class Found:
    """Scenes of a source.

    Attributes:
        scenes: Usable ones.
        rejected: The others, with their reasons.
        items: STAC items that an API gave: with them the stage runs again without it.
        unknown: STAC items whose sensor is not known: `a2mae init` describes it by what they state.
    """

    scenes: list[Scene] = field(default_factory=list)
    rejected: list[RejectedScene] = field(default_factory=list)
    items: list[Mapping[str, object]] = field(default_factory=list)
    unknown: list[Document] = field(default_factory=list)


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
        """Look up a sensor, with the wanted bands only.

        Raises:
            RejectedError: "unknown_sensor" or "sensor_not_used".
        """
        try:
            sensor = get_sensor(sensor_id, self.own)
        except UnknownSensorError as error:
            raise RejectedError("unknown_sensor", str(error)) from error
        if self.use and sensor_id not in self.use:
            raise RejectedError("sensor_not_used", f"sensor {sensor_id!r} is not in ingest.use_sensors")
        return sensor.subset(self.bands[sensor_id]) if sensor_id in self.bands else sensor

    def check(self) -> None:
        """Check that the settings name sensors and bands that exist.

        Raises:
            InputError: With the parameter to change.
        """
        known = {**BUILTIN_SENSORS, **self.own}
        for where, ids in (("use_sensors", self.use), ("bands", tuple(self.bands))):
            unknown = [i for i in ids if i not in known]
            if unknown:
                raise InputError(f"ingest.{where}: unknown sensor {unknown[0]!r}; known: {', '.join(sorted(known))}")
        for sensor_id, names in self.bands.items():
            try:
                known[sensor_id].subset(names)
            except (UnknownBandError, ValueError) as error:
                raise InputError(f"ingest.bands.{sensor_id}: {error}") from error


@contextlib.contextmanager
def costs_one_scene() -> Iterator[None]:
    """Make whatever a scene's own metadata cause the rejection of this scene: nothing that it holds ends the run.

    Raises:
        RejectedError: As it was raised inside, or "bad_metadata" with what was found.
    """
    try:
        yield
    except RejectedError:
        raise
    except RecursionError as error:
        raise RejectedError("bad_metadata", "its lists are nested too deep, which no provider writes") from error
    except UnicodeEncodeError as error:
        odd = ascii(error.object[error.start : error.end])
        raise RejectedError("bad_metadata", f"it holds {odd}, half of a sign, which no table can hold") from error
    except (ValueError, ArithmeticError, ShapelyError, ProjError) as error:
        raise RejectedError("bad_metadata", f"its metadata cannot be used: {error}") from error


def check_date(when: dt.datetime) -> dt.datetime:
    """Bring a time of acquisition to UTC, for which it is taken where no zone is given.

    Raises:
        RejectedError: "no_date" if no image was taken then.
    """
    if when.year not in _YEARS:
        raise RejectedError("no_date", f"the time {when} is not of {_YEARS[0]} to {_YEARS[-1]}")
    return when.astimezone(dt.UTC) if when.tzinfo else when.replace(tzinfo=dt.UTC)


def is_safe_id(scene_id: str) -> bool:
    """Whether an id is plain: it becomes part of names in tables and logs."""
    return _SAFE_ID.match(scene_id) is not None


def check_id(scene_id: str) -> str:
    """Reject ids that are not plain.

    Raises:
        RejectedError: "bad_id".
    """
    if not is_safe_id(scene_id):
        raise RejectedError(
            "bad_id", f"id {scene_id[:80]!r} has other signs than letters, digits and . _ : + @ = -, or is too long"
        )
    return scene_id


def check_units(sensor: Sensor, units: Units, what: str) -> None:
    """Reject values that the sensor's store would hold under another meaning.

    Linear and decibel backscatter convert exactly into each other; everything else must agree.

    Args:
        sensor: The scene's sensor.
        units: Of the scene's decoded values.
        what: The rule or item that gives them, for the message.

    Raises:
        RejectedError: "units_mismatch".
    """
    radar = {Units.BACKSCATTER_DB, Units.BACKSCATTER_LINEAR}
    if units is not sensor.encoding.units and not {units, sensor.encoding.units} <= radar:
        raise RejectedError(
            "units_mismatch",
            f"{what} gives {units.value}, but sensor {sensor.id!r} holds {sensor.encoding.units.value};"
            " define a sensor with these units under ingest.sensors",
        )


def check_gsd(sensor: Sensor, assets: Sequence[BandAsset]) -> float:
    """Find the finest pixel size of a scene, metres, and reject what the sensor cannot have.

    Args:
        sensor: The scene's sensor.
        assets: Its bands.

    Raises:
        RejectedError: "gsd_mismatch" if it is off by more than a factor of two.
    """
    finest = min(asset.gsd_m for asset in assets)
    if not sensor.gsd_m / _GSD_FACTOR <= finest <= sensor.gsd_m * _GSD_FACTOR:
        raise RejectedError(
            "gsd_mismatch",
            f"pixels of {finest:g} m, but sensor {sensor.id!r} has {sensor.gsd_m:g} m;"
            " define a sensor with this gsd_m under ingest.sensors",
        )
    return finest


def check_bands(sensor: Sensor, found: Sequence[str], what: str) -> None:
    """Reject scenes that lack a band.

    Args:
        sensor: The scene's sensor, with the wanted bands.
        found: Names of the bands that the scene has.
        what: The rule or item, for the message.

    Raises:
        RejectedError: "missing_band", naming them.
    """
    missing = [name for name in sensor.band_names if name not in found]
    if missing:
        raise RejectedError(
            "missing_band",
            f"{what} lacks {', '.join(missing)} of sensor {sensor.id!r} (found {', '.join(found) or 'none'}"
            f"{_meant(sensor, missing, found)}); keep fewer with ingest.bands.{sensor.id} or map them",
        )


def _meant(sensor: Sensor, missing: Sequence[str], found: Sequence[str]) -> str:
    """Guess which missing band is meant by a name that the sensor does not have."""
    whole = BUILTIN_SENSORS.get(sensor.id, sensor)  # `sensor` may be a subset: its other bands are no mistakes
    strange = [name for name in found if name not in (*whole.band_names, *sensor.band_names)]
    hints = [(name, hint.strip()) for name in strange if (hint := did_you_mean(name, missing))]
    return "".join(f"; {name!r}: {hint}" for name, hint in hints)


def common_footprint(footprints: Sequence[BaseGeometry]) -> BaseGeometry:
    """Intersect the footprints of a scene's bands.

    Raises:
        RejectedError: "no_footprint" if they have no place in common.
    """
    unique = list({footprint.wkb: footprint for footprint in footprints}.values())
    common = unique[0] if len(unique) == 1 else shapely.intersection_all(unique)
    if common.is_empty or common.area == 0:
        raise RejectedError("no_footprint", "the bands of this scene do not overlap on the ground")
    return common
