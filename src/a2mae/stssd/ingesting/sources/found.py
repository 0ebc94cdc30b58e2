"""What every source hands back, and what every source needs to know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from a2mae.sensors import BUILTIN_SENSORS, Sensor, UnknownBandError, UnknownSensorError, get_sensor
from a2mae.stssd.refusals import RefusedError
from a2mae.stssd.scenes import RefusedScene, Scene

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
