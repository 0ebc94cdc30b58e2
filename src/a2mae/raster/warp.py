"""Read a scene onto a grid: its pixels, which of them were seen, and which are cloud.

`read_image` is the one way from a scene to the pixels that were seen: the image-set store, the pairs that registration
compares, maps and embeddings all read by it, so a mosaic, a mask or a shift means the same to each of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.transform import Affine

from a2mae.config import CloudParameters, MaskFunctionParameters
from a2mae.errors import InputError, ReadError
from a2mae.raster.masks import (
    MaskInput,
    PixelClass,
    apply_function,
    bright_white,
    decode_mask,
    function_for,
    grow,
    visible_bands,
)
from a2mae.raster.mosaics import parts_at
from a2mae.raster.read import RasterReader
from a2mae.scenes import BandAsset, CloudTest, MaskKind, Scene
from a2mae.sensors import Encoding, Sensor, Units

_BACKSCATTER = {Units.BACKSCATTER_DB, Units.BACKSCATTER_LINEAR}


@dataclass(frozen=True, eq=False, slots=True)
class Footprint:
    """The square that every image of a location covers.

    Attributes:
        location_id: Id in the location table.
        crs: UTM zone, "EPSG:…".
        x_m: Upper left corner, metres east.
        y_m: Upper left corner, metres north.
        size_m: Side, metres.
    """

    location_id: str
    crs: str
    x_m: float
    y_m: float
    size_m: float

    def grid(self, gsd_m: float) -> GeoBox:
        """Lay a grid of square pixels over the square.

        Args:
            gsd_m: Pixel size, metres.

        Raises:
            InputError: If the side is not a whole number of pixels.
        """
        side = self.size_m / gsd_m
        if abs(side - round(side)) > 1e-6 or side < 1:
            raise InputError(
                f"footprint {self.location_id}: {self.size_m:g} m is not a whole number of pixels of {gsd_m:g} m;"
                " set ingest's footprint_m to a common multiple of the sensors' gsd_m"
            )
        pixels = round(side)
        return GeoBox((pixels, pixels), Affine(gsd_m, 0, self.x_m, 0, -gsd_m, self.y_m), self.crs)


@dataclass(frozen=True, eq=False)
class Image:
    """A scene on a grid.

    Attributes:
        physical: `(B, H, W)` float32 in the sensor's units, NaN where not seen.
        seen: `(H, W)` bool: every band has a value.
        cloud: `(H, W)` bool: cloud or shadow.
    """

    physical: NDArray[np.float32]
    seen: NDArray[np.bool_]
    cloud: NDArray[np.bool_]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """`(H, W)` bool: seen, and neither cloud nor shadow."""
        return self.seen & ~self.cloud

    @property
    def cloud_fraction(self) -> float:
        """Share of the seen pixels that is cloud or shadow (1 if none was seen)."""
        seen = int(self.seen.sum())
        return float((self.cloud & self.seen).sum() / seen) if seen else 1.0

    @property
    def seen_fraction(self) -> float:
        """Share of all pixels that was seen."""
        return float(self.seen.mean())

    @property
    def valid_fraction(self) -> float:
        """Share of all pixels that is usable."""
        return float(self.valid.mean())


def read_image(
    reader: RasterReader,
    scene: Scene,
    sensor: Sensor,
    grid: GeoBox,
    clouds: CloudParameters | None,
    *,
    bands: tuple[str, ...] | None = None,
    shift_m: tuple[float, float] = (0.0, 0.0),
) -> Image:
    """Read a scene onto a grid, resampled once; parts of a mosaic fill what those before them did not see.

    Args:
        reader: Open files.
        scene: The scene.
        sensor: Its sensor; values come in its units.
        grid: Square pixels in metres. Clouds beyond its edge are not known: pad it by `clouds.buffer_m` where they
            should reach in.
        clouds: How clouds are told; None: no mask is read and nothing counts as cloud.
        bands: Provider's band names, also twice; None: all of the sensor's, in its order.
        shift_m: (east, north): how far the content is moved, metres.

    Returns:
        The image.

    Raises:
        ReadError: If a band is missing or its pixels cannot be read.
    """
    parts = parts_at(scene, grid)
    image = _read_part(reader, parts[0], sensor, grid, clouds, bands=bands, shift_m=shift_m)
    for part in parts[1:]:
        if image.seen.all():
            break
        more = _read_part(reader, part, sensor, grid, clouds, bands=bands, shift_m=shift_m)
        new = more.seen & ~image.seen
        image = Image(
            np.where(new, more.physical, image.physical),
            image.seen | new,
            np.where(new, more.cloud, image.cloud),
        )
    return image


def _read_part(
    reader: RasterReader,
    scene: Scene,
    sensor: Sensor,
    grid: GeoBox,
    clouds: CloudParameters | None,
    *,
    bands: tuple[str, ...] | None,
    shift_m: tuple[float, float],
) -> Image:
    """`read_image` of a scene that is no mosaic."""
    names = sensor.band_names if bands is None else bands
    if clouds is None:
        physical = _physical(reader, scene, sensor, names, grid=grid, shift_m=shift_m)
        seen: NDArray[np.bool_] = np.asarray(np.isfinite(physical).all(axis=0))
        return Image(physical, seen, np.zeros_like(seen))
    own = function_for(sensor.id, clouds.functions)
    tested: tuple[str, ...] = ()
    if own is not None:
        tested = tuple(sensor.bands[sensor.band_index(name)].name for name in own.bands) or sensor.band_names
    elif scene.cloud_test is CloudTest.BRIGHTNESS:
        tested = visible_bands(sensor)
    needed = tuple(dict.fromkeys((*names, *tested)))
    everything = _physical(reader, scene, sensor, needed, grid=grid, shift_m=shift_m)
    in_place = needed[: len(names)] == names  # else a name comes twice
    physical = everything[: len(names)] if in_place else everything[[needed.index(name) for name in names]]
    seen = np.asarray(np.isfinite(physical).all(axis=0))
    values = None
    if scene.mask is not None:
        values = reader.read([scene.mask], grid, beside=scene.assets, shift_m=shift_m, categorical=True)[0]
        seen &= np.isfinite(values)  # outside the mask's file nothing is known: treated as not seen
    gsd_m = float(abs(grid.resolution.x))
    shown = {name: everything[needed.index(name)] for name in tested}
    classes = _classes(scene, sensor, gsd_m, own=own, clouds=clouds, tested=shown, values=values)
    seen &= classes != PixelClass.NODATA
    cloud = seen & ((classes == PixelClass.CLOUD) | (classes == PixelClass.SHADOW))
    cloud = grow(cloud, clouds.buffer_m / gsd_m)
    return Image(physical, seen, cloud & seen)


def _physical(
    reader: RasterReader,
    scene: Scene,
    sensor: Sensor,
    names: tuple[str, ...],
    *,
    grid: GeoBox,
    shift_m: tuple[float, float],
) -> NDArray[np.float32]:
    """Bands `(B, H, W)` in the sensor's units; backscatter is resampled as the source has it, then converted."""
    by_name = {asset.band: asset for asset in scene.bands}
    assets: list[BandAsset] = []
    for name in names:
        if name not in by_name:
            raise ReadError(f"scene {scene.scene_id} has no band {name}", "missing_band")
        if {by_name[name].units, sensor.encoding.units} not in ({sensor.encoding.units}, _BACKSCATTER):
            raise ReadError(
                f"scene {scene.scene_id}, band {name}: units {by_name[name].units.value}, but sensor {sensor.id} is"
                f" stored as {sensor.encoding.units.value}",
                "units",
            )
        assets.append(by_name[name])
    pixels = reader.read(assets, grid, beside=scene.assets, shift_m=shift_m)
    for k, asset in enumerate(assets):
        if asset.units is not sensor.encoding.units:
            pixels[k] = convert_backscatter(pixels[k], asset.units, sensor.encoding.units)
    return pixels


def convert_backscatter(values: NDArray[np.float32], units: Units, wanted: Units) -> NDArray[np.float32]:
    """Convert backscatter between decibel and linear power.

    Args:
        values: Any shape, NaN where not seen; linear power of zero or less is noise below the floor: not seen.
        units: Units of the values.
        wanted: Units of the result; other units than those of backscatter must be the same.
    """
    if units is wanted:
        return values
    if wanted is Units.BACKSCATTER_DB:
        power = np.where(values > 0, values, np.float32(np.nan))
        return np.asarray(10 * np.log10(power), dtype=np.float32)
    return np.asarray(10 ** (values / 10), dtype=np.float32)


def _classes(
    scene: Scene,
    sensor: Sensor,
    gsd_m: float,
    *,
    own: MaskFunctionParameters | None,
    clouds: CloudParameters,
    tested: Mapping[str, NDArray[np.float32]],
    values: NDArray[np.float32] | None,
) -> NDArray[np.uint8]:
    """`PixelClass` `(H, W)`, or one for all: by the user's function, else the provider's mask, else brightness."""
    mask = scene.mask
    known = None if values is None else np.where(np.isfinite(values), values, np.float32(0))
    if own is not None:
        kind = MaskKind.NONE if mask is None else mask.mask
        pixels = np.stack(list(tested.values()))
        given = MaskInput(scene.scene_id, sensor, tuple(tested), pixels, gsd_m, known, kind)
        return apply_function(own.function, given)
    if mask is not None and known is not None:
        return decode_mask(known, mask.mask, scale=mask.scale, probability_threshold=clouds.probability_threshold)
    if not tested:
        return np.asarray(PixelClass.CLEAR, dtype=np.uint8)  # broadcast: nothing tells clouds
    white = bright_white(
        np.stack(list(tested.values())),
        brightness_threshold=clouds.brightness_threshold,
        whiteness_threshold=clouds.whiteness_threshold,
    )
    return np.where(white, np.uint8(PixelClass.CLOUD), np.uint8(PixelClass.CLEAR))


def encode(physical: NDArray[np.float32], seen: NDArray[np.bool_], encoding: Encoding) -> NDArray[np.generic]:
    """Encode physical values as stored integers.

    Values outside the integer range are clipped. A value that was seen is never stored as nodata, however dark it is.

    Args:
        physical: `(B, H, W)` in the encoding's units.
        seen: `(H, W)`; elsewhere nodata is stored in every band.
        encoding: The sensor's encoding.

    Returns:
        `(B, H, W)` of the encoding's dtype.
    """
    low, high = _limits(encoding)
    counts = physical.astype(np.float64)
    counts -= encoding.offset
    counts /= encoding.scale
    np.rint(counts, out=counts)
    np.clip(counts, low, high, out=counts)
    if low < encoding.nodata < high:
        counts[counts == encoding.nodata] = encoding.nodata + 1
    if not seen.all():
        counts[:, ~seen] = encoding.nodata
    missing = np.isnan(counts)
    if missing.any():
        counts[missing] = encoding.nodata
    return counts.astype(encoding.dtype)


def clipped(physical: NDArray[np.float32], seen: NDArray[np.bool_], encoding: Encoding) -> NDArray[np.int64]:
    """Count the seen pixels of each band that an encoding cannot hold, so that `encode` clips them.

    Args:
        physical: `(B, H, W)` in the encoding's units.
        seen: `(H, W)`.
        encoding: The sensor's encoding.

    Returns:
        `(B,)`.
    """
    low, high = (limit * encoding.scale + encoding.offset for limit in _limits(encoding))
    step = abs(encoding.scale)  # rounding alone is no clipping
    beyond = (physical < min(low, high) - step) | (physical > max(low, high) + step)
    return np.asarray((beyond & seen).sum(axis=(1, 2)), dtype=np.int64)


def _limits(encoding: Encoding) -> tuple[int, int]:
    """Least and greatest number that an encoding holds beside nodata."""
    info = np.iinfo(encoding.dtype)
    return info.min + (encoding.nodata == info.min), info.max - (encoding.nodata == info.max)


def stored_encoding_note(scene: Scene, sensor: Sensor) -> tuple[list[float], list[float]]:
    """Return scale and offset per band as they were applied to the source, for the image table."""
    by_name = {asset.band: asset for asset in scene.bands}
    scales = [by_name[name].scale if name in by_name else math.nan for name in sensor.band_names]
    offsets = [by_name[name].offset if name in by_name else math.nan for name in sensor.band_names]
    return scales, offsets
