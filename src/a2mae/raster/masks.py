"""Tell cloud, shadow and fill: by a provider's mask band, by a user's function, or by brightness."""

from __future__ import annotations

import fnmatch
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, assert_never

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from a2mae.config import load_function
from a2mae.errors import InputError, ReadError
from a2mae.scenes import MaskKind

if TYPE_CHECKING:
    from a2mae.config import MaskFunctionParameters
    from a2mae.sensors import Sensor

_ONE = 1.001  # a probability of 1, as rounding leaves it
_FILL_BYTE = 255


class PixelClass(IntEnum):
    """What a pixel shows."""

    CLEAR = 0
    CLOUD = 1
    SHADOW = 2
    NODATA = 3


@dataclass(frozen=True, eq=False)
class MaskInput:
    """The input of a user's mask function: a scene on a grid.

    Attributes:
        scene_id: The scene.
        sensor: Its sensor.
        bands: Names of the bands, in the order of `pixels`.
        pixels: `(B, H, W)` float32 in the sensor's units, NaN where not seen.
        gsd_m: Pixel size, metres.
        mask: The provider's mask as stored, `(H, W)`, 0 outside it; None if the scene has none.
        mask_kind: How the provider's mask is read; `MaskKind.NONE` without one.
    """

    scene_id: str
    sensor: Sensor
    bands: tuple[str, ...]
    pixels: NDArray[np.float32]
    gsd_m: float
    mask: NDArray[np.float32] | None
    mask_kind: MaskKind

    def band(self, name: str) -> NDArray[np.float32]:
        """Return one band `(H, W)` by name or common name."""
        index = self.bands.index(self.sensor.bands[self.sensor.band_index(name)].name)
        return np.asarray(self.pixels[index])


def function_for(sensor_id: str, functions: Sequence[MaskFunctionParameters]) -> MaskFunctionParameters | None:
    """Return the first function whose patterns fit a sensor; None if there is none."""
    return next((f for f in functions if any(fnmatch.fnmatchcase(sensor_id, p) for p in f.sensors)), None)


def apply_function(spec: str, given: MaskInput) -> NDArray[np.uint8]:
    """Call a user's mask function and check its result.

    Args:
        spec: `package.module:function`.
        given: Its input.

    Returns:
        `PixelClass` `(H, W)`; the function may return bool, True for cloud or shadow.

    Raises:
        InputError: If it returns something else.
    """
    function: Callable[[MaskInput], NDArray[np.generic]] = load_function(spec, "coregister.clouds.functions")
    classes = np.asarray(function(given))
    shape = given.pixels.shape[1:]
    if (
        classes.shape != shape
        or classes.dtype.kind not in "bui"
        or (classes.size and int(classes.max()) > max(PixelClass))
    ):
        raise InputError(
            f"coregister.clouds.functions: {spec!r} must give {shape} of bool (True: cloud) or of"
            f" {', '.join(f'{c.value} {c.name.lower()}' for c in PixelClass)}; it gave {classes.dtype} {classes.shape}"
            f" for scene {given.scene_id}"
        )
    return classes.astype(np.uint8)


def decode_mask(
    values: NDArray[np.generic], kind: MaskKind, *, scale: float = 1.0, probability_threshold: float = 0.4
) -> NDArray[np.uint8]:
    """Decode a provider's mask band.

    Args:
        values: `(H, W)` as stored.
        kind: How its numbers are meant.
        scale: Brings a probability to 0-1; not used by the other kinds.
        probability_threshold: Probability from which a pixel counts as cloud.

    Returns:
        `PixelClass` `(H, W)`.

    Raises:
        ReadError: "mask_scale" if probabilities are above 1: numbers in per cent would make cloud of what is clear.
    """
    if np.issubdtype(values.dtype, np.floating) and kind is not MaskKind.PROBABILITY:
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if kind is MaskKind.SCL:
        return np.asarray(_scl_classes()[np.clip(values, 0, 255).astype(np.uint8)])
    bits = values.astype(np.int64) if kind is not MaskKind.PROBABILITY else None
    cloud = shadow = nodata = np.zeros(values.shape, dtype=np.bool_)
    match kind:
        case MaskKind.NONE:
            raise InputError("a band of mask kind 'none' is not a mask")
        case MaskKind.QA_PIXEL:
            assert bits is not None
            cloud, shadow, nodata = (bits & 0b1110) != 0, (bits & 0b10000) != 0, (bits & 1) != 0
        case MaskKind.BQA_C1:
            assert bits is not None
            cloud = ((bits >> 4) & 1 != 0) | ((bits >> 11) & 3 == 3)
            shadow, nodata = (bits >> 7) & 3 == 3, (bits & 1) != 0
        case MaskKind.BQA:
            assert bits is not None
            cloud = ((bits >> 14) & 3 == 3) | ((bits >> 12) & 3 == 3)
            nodata = (bits & 0b11) != 0
        case MaskKind.FMASK:
            cloud, shadow, nodata = values == 2, values == 3, np.isin(values, (0, 255))
        case MaskKind.HLS_FMASK:
            assert bits is not None
            nodata = values == _FILL_BYTE
            cloud, shadow = (bits & 0b110) != 0, (bits & 0b1000) != 0
        case MaskKind.PROBABILITY:
            probability = values.astype(np.float32) * np.float32(scale)
            nodata = ~np.isfinite(probability)
            if scale != 1:
                nodata |= (values == _FILL_BYTE) & (probability > _ONE)  # beside per cent, not among numbers to 1
            _check_probability(probability[~nodata], scale)
            cloud = probability >= probability_threshold
        case MaskKind.BINARY:
            cloud = values != 0
        case MaskKind.CLEAR:
            cloud = values != 1
        case _:
            assert_never(kind)
    classes = np.full(values.shape, PixelClass.CLEAR, dtype=np.uint8)
    classes[shadow] = PixelClass.SHADOW
    classes[cloud] = PixelClass.CLOUD
    classes[nodata] = PixelClass.NODATA
    return classes


def _check_probability(probability: NDArray[np.float32], scale: float) -> None:
    highest = float(probability.max(initial=0))
    if highest <= _ONE:
        return
    stored = highest / scale
    proposed = "what brings them to 0-1" if stored > 255 else "0.01" if stored <= 100.5 else "0.00392157 (1/255)"
    raise ReadError(
        f"its cloud mask is read as a probability in 0-1 but has values to {stored:g} (times scale {scale:g}): set"
        f" scale: {proposed} on the mask in its rule or profile (ingest.rules, ingest.stac_profiles)",
        "mask_scale",
    )


@functools.cache
def _scl_classes() -> NDArray[np.uint8]:
    """`PixelClass` of every number of Sentinel-2's scene classification, `(256,)`."""
    classes = np.full(256, PixelClass.CLEAR, dtype=np.uint8)
    classes[[8, 9, 10]] = PixelClass.CLOUD  # of medium and high probability, thin cirrus
    classes[3] = PixelClass.SHADOW
    classes[[0, 1]] = PixelClass.NODATA  # and defective
    return classes


def visible_bands(sensor: Sensor) -> tuple[str, ...]:
    """Return the names of the blue, green and red bands that the sensor has."""
    return tuple(band.name for band in sensor.bands if band.common_name in ("blue", "green", "red"))


def bright_white(
    visible: NDArray[np.float32], *, brightness_threshold: float, whiteness_threshold: float
) -> NDArray[np.bool_]:
    """Find clouds by brightness: bright in every visible band, and nearly equally so.

    Snow, salt and sand look the same: use it for products that come without a mask, in places without those.

    Args:
        visible: `(B, H, W)` reflectance (or DN 0-1), NaN where not seen.
        brightness_threshold: Least reflectance of the darkest visible band.
        whiteness_threshold: Largest spread of the bands relative to their mean.

    Returns:
        Cloud `(H, W)` bool.
    """
    with np.errstate(invalid="ignore"):
        darkest, brightest = visible.min(axis=0), visible.max(axis=0)
        mean = np.maximum(visible.mean(axis=0), 1e-6)
        cloud = (darkest > brightness_threshold) & ((brightest - darkest) / mean < whiteness_threshold)
    return np.asarray(cloud, dtype=np.bool_)


def grow(mask: NDArray[np.bool_], radius_px: float) -> NDArray[np.bool_]:
    """Widen a mask `(H, W)` by a radius in pixels: providers' masks end before the haze does."""
    if radius_px < 0.5 or not mask.any():
        return mask
    # Only where a cloud is near: clouds are few, and the distance transform is slow.
    reach = math.ceil(radius_px)
    ranges = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    part = tuple(slice(max(0, int(at[0]) - reach), int(at[-1]) + reach + 1) for at in ranges)
    near = np.zeros_like(mask)
    near[part] = ndimage.distance_transform_edt(~mask[part]) <= radius_px
    return near
