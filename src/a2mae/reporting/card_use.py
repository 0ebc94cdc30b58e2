"""How a model card says what its encoder is fed: which bands at once, in which order, and a first call from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from a2mae.reporting.inputs import ReportInputs
from a2mae.sensors import BUILTIN_SENSORS, Sensor, UnknownBandError

_RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class FirstCall:
    """What the example of a model card names.

    Attributes:
        sensor: Id of the model's first sensor.
        bands: Its bands that are fed, in order.
        order: Which bands the encoder reads at once and in which order, as a sentence without its full stop.
        scale: Physical units per count, as Python reads it; of a file this may be another.
        offset: Physical value of a count of zero, likewise.
        units: Of the physical values, in words.
        gsd_m: Distance between pixels in metres, or `GSD_M` where the sensor is not known.
        patch_px: What the sides of an image are a multiple of.
        zero_bands: Bands of zeros that fill the sensor up to what the encoder reads.
        wavelengths_nm: Centre wavelengths of `bands`; empty where the encoder does not ask for them.
    """

    sensor: str
    bands: tuple[str, ...]
    order: str
    scale: str
    offset: str
    units: str
    gsd_m: str
    patch_px: int
    zero_bands: int
    wavelengths_nm: tuple[float, ...]


def first_call(inputs: ReportInputs, config: Mapping[str, Any], spec: Mapping[str, Any]) -> FirstCall:
    """The example for the first sensor of a model.

    Args:
        inputs: The chain's outputs; its store knows the user's own sensors.
        config: The model's `config.json`.
        spec: The training's `run/spec.json`; empty where the model directory has none.
    """
    sensor_id, names = next(iter(config["bands"].items()))
    sensor = _sensor(inputs, sensor_id)
    kwargs = config["kwargs"]
    mode = spec.get("sampling", {}).get("bands", "draw")
    by_wavelength = kwargs.get("bands") == "wavelength"
    count = len(names) if by_wavelength else int(kwargs.get("in_chans", 3))
    bands = _bands(sensor, names, count, every=by_wavelength or mode == "all")
    return FirstCall(
        sensor=sensor_id,
        bands=bands,
        order=_order(mode, count, by_wavelength=by_wavelength),
        scale=f"{sensor.encoding.scale:g}" if sensor else "1.0",
        offset=f"{sensor.encoding.offset:g}" if sensor else "0.0",
        units=sensor.encoding.units.value if sensor else "physical values",
        gsd_m=str(float(sensor.gsd_m)) if sensor else "GSD_M",
        patch_px=int(kwargs.get("patch_size", 16)),
        zero_bands=count - len(bands),
        wavelengths_nm=_wavelengths(sensor, bands) if by_wavelength else (),
    )


def _sensor(inputs: ReportInputs, sensor_id: str) -> Sensor | None:
    if inputs.store is not None and sensor_id in inputs.store.sensors:
        return inputs.store.sensor(sensor_id)
    return BUILTIN_SENSORS.get(sensor_id)


def _order(mode: str, count: int, *, by_wavelength: bool) -> str:
    if by_wavelength:
        return "any bands of one sensor, in any order, with their centre wavelengths as `wavelength_nm`"
    if mode == "rgb":
        return "red, green and blue of one sensor, in this order"
    if mode == "all":
        return f"all bands of one sensor in the order below; of a sensor with fewer than {count}, zeros after them"
    return f"{count} bands of one sensor, any of those below in any order (the training drew them at random)"


def _bands(sensor: Sensor | None, names: Sequence[str], count: int, *, every: bool) -> tuple[str, ...]:
    """Red, green and blue where three are fed and the sensor has them; else the first ones."""
    if every or count != len(_RGB) or sensor is None:
        return _repeated(names, count) if not every else tuple(names)
    try:
        shown = tuple(sensor.bands[sensor.band_index(colour)].name for colour in _RGB)
    except UnknownBandError:
        return _repeated(names, count)
    return shown if set(shown) <= set(names) else _repeated(names, count)


def _repeated(names: Sequence[str], count: int) -> tuple[str, ...]:
    """So many of the names; of fewer, again from the first, as the training does."""
    return tuple(names[index % len(names)] for index in range(count))


def _wavelengths(sensor: Sensor | None, bands: Sequence[str]) -> tuple[float, ...]:
    if sensor is None:
        return ()
    return tuple(float(sensor.bands[sensor.band_index(name)].center_wavelength_nm) for name in bands)
