"""Arrays as pictures: stretch, class colours, hidden patches, principal components, scenes on a grid."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from PIL import Image
from threadpoolctl import threadpool_limits

from a2mae.errors import InputError
from a2mae.raster.read import RasterReader
from a2mae.raster.warp import read_image
from a2mae.report import text
from a2mae.report.blocks import Picture, Swatch
from a2mae.report.inputs import ReportInputs
from a2mae.scenes import Scene, scenes_from_table
from a2mae.sensors import Sensor
from a2mae.tasks.palette import class_colour, hex_colour

BytesImage = NDArray[np.uint8]

INVALID_RGB = (120, 120, 128)
"""Grey of invalid pixels."""
_RAMP_PCT = (2.0, 98.0)
HIDDEN_RGB = (214, 39, 112)
"""Tint of patches that were hidden from the model."""


def display_bands(sensor: Sensor) -> tuple[int, int, int]:
    """Choose the bands to show as red, green and blue.

    These are its own red, green and blue where it has them; otherwise its first bands, repeated if there are fewer.
    """
    by_name = {band.common_name: index for index, band in enumerate(sensor.bands)}
    if {"red", "green", "blue"} <= by_name.keys():
        return (by_name["red"], by_name["green"], by_name["blue"])
    indices = [min(i, len(sensor.bands) - 1) for i in range(3)]
    return (indices[0], indices[1], indices[2])


def stretch(
    pixels: NDArray[np.float32], valid: NDArray[np.bool_], low_high_pct: tuple[float, float] = (2, 98)
) -> BytesImage:
    """Stretch physical values to 8 bits between two percentiles of the valid pixels, all bands together.

    One stretch for all bands keeps the colours; invalid pixels become grey.

    Args:
        pixels: `(3, H, W)`.
        valid: `(H, W)`.
        low_high_pct: Percentiles shown as black and white.

    Returns:
        `(H, W, 3)`.
    """
    shown = np.full((*valid.shape, 3), INVALID_RGB, np.uint8)
    if not valid.any():
        return shown
    usable = pixels[:, valid]
    low, high = np.percentile(usable, low_high_pct)
    scaled = (pixels - low) / max(high - low, 1e-6)
    rgb = np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    shown[valid] = rgb[valid]
    return shown


def unit_to_bytes(pixels: NDArray[np.float32], valid: NDArray[np.bool_] | None = None) -> BytesImage:
    """Convert `(3, H, W)` in 0 to 1 to `(H, W, 3)` bytes; invalid pixels become grey."""
    rgb = np.round(np.clip(np.nan_to_num(pixels), 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    if valid is not None:
        rgb = rgb.copy()
        rgb[~valid] = INVALID_RGB
    return rgb


def classes_to_bytes(
    classes: NDArray[np.integer], ignore: int = 255, colours: NDArray[np.uint8] | None = None
) -> BytesImage:
    """Colour class indices.

    Args:
        classes: `(H, W)`.
        ignore: Becomes grey.
        colours: `(K, 3)` of the classes; None: the palette's.

    Returns:
        `(H, W, 3)`.
    """
    table = np.array([class_colour(i) for i in range(256)], np.uint8)
    if colours is not None:
        table[: len(colours)] = colours
    if 0 <= ignore < 256:
        table[ignore] = INVALID_RGB
    return np.asarray(table[classes])


@dataclass(frozen=True)
class Ramp:
    """Colours of values.

    Attributes:
        low: Gets the first colour, as all below it.
        high: Gets the last, as all above it.
        name: Of matplotlib's.
    """

    low: float
    high: float
    name: str = "viridis"

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> Ramp:
        """Make a ramp between the 2nd and 98th percentile of the values that are finite."""
        known = values[np.isfinite(values)]
        low, high = (float(v) for v in np.percentile(known, _RAMP_PCT)) if known.size else (0.0, 1.0)
        return cls(low, high if high > low else low + 1)

    @classmethod
    def around_zero(cls, values: NDArray[np.floating]) -> Ramp:
        """Make a ramp of differences: white at 0, blue below and red above, alike on both sides."""
        known = np.abs(values[np.isfinite(values)])
        most = float(np.percentile(known, _RAMP_PCT[1])) if known.size else 1.0
        return cls(-(most or 1.0), most or 1.0, "RdBu_r")

    def colours(self, values: NDArray[np.floating]) -> BytesImage:
        """Colour `(H, W)` values to `(H, W, 3)`; what is not finite becomes grey."""
        share = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        rgb = np.round(colormaps[self.name](np.nan_to_num(share))[..., :3] * 255).astype(np.uint8)
        rgb[~np.isfinite(values)] = INVALID_RGB
        return np.asarray(rgb)

    def legend(self, units: str, words: str = "") -> tuple[Swatch, ...]:
        """Make five swatches from low to high.

        Args:
            units: Of the values.
            words: Before every value.
        """
        digits = max(1 - math.floor(math.log10((self.high - self.low) / 4)), 0)
        values = np.linspace(self.low, self.high, 5).round(digits) + 0.0  # no -0.0
        write = text.signed if self.low == -self.high else text.number
        return tuple(
            Swatch(hex_colour((int(red), int(green), int(blue))), words + write(value, digits, units))
            for (red, green, blue), value in zip(self.colours(values[None])[0], values.tolist(), strict=True)
        )


def upsample_patches(hidden: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Enlarge a patch grid `(h, w)` to a pixel mask `(H, W)`; H and W are multiples of h and w."""
    factor_y, factor_x = shape[0] // hidden.shape[0], shape[1] // hidden.shape[1]
    if (hidden.shape[0] * factor_y, hidden.shape[1] * factor_x) != shape:
        raise InputError(f"patch grid {hidden.shape} does not tile an image of {shape}")
    return np.kron(hidden, np.ones((factor_y, factor_x), bool)).astype(bool)


def draw_hidden(image: BytesImage, hidden: NDArray[np.bool_], opacity: float = 0.55) -> BytesImage:
    """Tint the patches that were hidden from the model.

    Args:
        image: `(H, W, 3)`.
        hidden: `(h, w)`, True where hidden.
        opacity: Of the tint.
    """
    mask = upsample_patches(hidden, (image.shape[0], image.shape[1]))
    tinted = image.astype(np.float32)
    tinted[mask] = (1 - opacity) * tinted[mask] + opacity * np.array(HIDDEN_RGB, np.float32)
    return np.round(tinted).astype(np.uint8)


def blank_hidden(image: BytesImage, hidden: NDArray[np.bool_]) -> BytesImage:
    """Draw what the model saw: hidden patches become grey."""
    seen = image.copy()
    seen[upsample_patches(hidden, (image.shape[0], image.shape[1]))] = INVALID_RGB
    return seen


def fill_hidden(image: BytesImage, predicted: BytesImage, hidden: NDArray[np.bool_]) -> BytesImage:
    """Put the predicted patches in place of the hidden ones."""
    mask = upsample_patches(hidden, (image.shape[0], image.shape[1]))
    return np.where(mask[..., None], predicted, image)


def to_data_uri(image: BytesImage, *, max_px: int = 256, exact: bool = False) -> str:
    """Encode as WebP in a data URI.

    Args:
        image: `(H, W, 3)`.
        max_px: Larger pictures are reduced to this side: by area, or to the nearest pixel where `exact`.
        exact: Lossless, for maps whose colours are classes.
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    side = max(picture.size)
    if side > max_px:
        size = (max(1, round(picture.width * max_px / side)), max(1, round(picture.height * max_px / side)))
        picture = picture.resize(size, Image.Resampling.NEAREST if exact else Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=exact, quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


_SHOWN_PCT = (2.0, 98.0)


def components_as_colours(features: NDArray[np.float32], valid: NDArray[np.bool_]) -> BytesImage:
    """Draw the first three principal components of features, each stretched by itself.

    Args:
        features: `(D, H, W)`.
        valid: `(H, W)`; grey where not.

    Returns:
        `(H, W, 3)`.
    """
    shown = np.zeros((3, *valid.shape), np.float32)
    vectors = features[:, valid].astype(np.float64)
    if vectors.shape[1] > 1:
        vectors -= vectors.mean(axis=1, keepdims=True)
        with threadpool_limits(1):  # the same bytes, however many threads BLAS has
            axes = np.linalg.eigh(vectors @ vectors.T)[1][:, :-4:-1]
            axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # either sign is an axis
            components = axes.T @ vectors
        low, high = np.percentile(components, _SHOWN_PCT, axis=1)[:, :, None]
        shown[: len(components), valid] = (components - low) / np.maximum(high - low, 1e-9)
    return unit_to_bytes(shown, valid)


LARGEST_PX = 512
_STRETCH_PCT = (2.0, 92.0)
"""Scenes have clouds, which must not make the ground dark."""


def scene_picture(
    inputs: ReportInputs, scene_id: str, grid: GeoBox, shift_m: tuple[float, float] = (0.0, 0.0)
) -> Picture | None:
    """Draw a scene of the table on a grid; None where there is no such scene, or its files are not on this machine.

    Args:
        inputs: Scene table and sensors.
        scene_id: As the table has it.
        grid: Of the picture.
        shift_m: (east, north): how far the scene is moved, metres.
    """
    if inputs.scenes is None or inputs.store is None:
        return None
    (scene,) = scenes_from_table(inputs.scenes[inputs.scenes["scene_id"] == scene_id]) or (None,)
    if scene is None or scene.sensor not in inputs.store.sensors or not _is_here(scene):
        return None
    sensor = inputs.store.sensor(scene.sensor)
    bands = tuple(sensor.bands[index].name for index in display_bands(sensor))
    with RasterReader() as reader:
        image = read_image(reader, scene, sensor, grid, None, bands=bands, shift_m=shift_m)
    words = f"{scene.datetime:%Y-%m-%d}"
    uri = to_data_uri(stretch(np.nan_to_num(image.physical), image.valid, _STRETCH_PCT), max_px=LARGEST_PX)
    return Picture(uri, f"Scene {scene.scene_id} of {words}", (words,))


def _is_here(scene: Scene) -> bool:
    return all(Path(asset.href).is_file() for asset in scene.bands)
