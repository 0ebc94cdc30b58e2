"""Pack a scene into cloud-optimised GeoTIFFs as its provider does: bands, counts and quality layers.

Sentinel-2 and Landsat come as one file per band beside a quality layer, the others as one file of all bands. Scale,
offset, nodata and band names stand in the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from a2mae.files import telling_where, whole_file
from a2mae.raster.files import WRITE_ERRORS
from a2mae.sensors import Band, Encoding, Units
from a2mae.simulate.ground.covers import CLASSES
from a2mae.simulate.noise import Floats, generator
from a2mae.simulate.region import Grid
from a2mae.simulate.scenes import ScenePlan
from a2mae.simulate.view.sensor import landsat_qa_pixel, sentinel2_scl


def _write(
    path: Path,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    grid: Grid,
    *,
    nodata: int,
    names: Sequence[str],
    scale: float = 1.0,
    offset: float = 0.0,
    overview: str = "AVERAGE",
    colors: Mapping[int, tuple[int, int, int]] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    with (
        telling_where(path, *WRITE_ERRORS),
        whole_file(path) as temporary,
        rasterio.Env(GDAL_NUM_THREADS="1", GDAL_PAM_ENABLED="NO"),
        rasterio.open(
            temporary,
            "w",
            driver="COG",
            count=pixels.shape[0],
            height=grid.height,
            width=grid.width,
            dtype=pixels.dtype,
            crs=f"EPSG:{grid.epsg}",
            transform=grid.transform,
            nodata=nodata,
            compress="DEFLATE",
            predictor="STANDARD",
            blocksize=256,
            resampling=overview,
        ) as target,
    ):
        if colors is None:
            target.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (pixels.shape[0] - 1)
        else:
            target.write_colormap(1, {value: (*color, 255) for value, color in colors.items()})
        target.scales = (scale,) * pixels.shape[0]
        target.offsets = (offset,) * pixels.shape[0]
        target.descriptions = tuple(names)
        target.update_tags(**(tags or {}))
        target.write(pixels)


def write_asset(path: Path, asset: Asset) -> None:
    """Write one file of a scene: counts with scale, offset, nodata and band names in its tags."""
    _write(
        path,
        asset.pixels,
        asset.grid,
        nodata=asset.encoding.nodata,
        names=[band.name for band in asset.bands] or [asset.key],
        scale=asset.encoding.scale if asset.bands else 1.0,
        offset=asset.encoding.offset if asset.bands else 0.0,
        overview="AVERAGE" if asset.bands else "NEAREST",
        tags={"AREA_OR_POINT": "Area"},
    )


def write_land_cover(path: Path, classes: NDArray[np.uint8], grid: Grid) -> None:
    """Write a land-cover truth with its colour table; names are in the tag `CLASS_NAMES`."""
    _write(
        path,
        classes[None],
        grid,
        nodata=0,
        names=["land_cover"],
        overview="MODE",
        colors={entry.value: entry.color for entry in CLASSES},
        tags={"CLASS_NAMES": json.dumps({str(entry.value): entry.name for entry in CLASSES})},
    )


def write_heights(path: Path, steps: NDArray[np.uint8], grid: Grid, *, step_m: float) -> None:
    """Write a truth of heights in steps of some metres, which are the file's scale (255 is nodata)."""
    _write(path, steps[None], grid, nodata=255, names=["tree_height"], scale=step_m, tags={"UNITS": "m"})


def write_mask(path: Path, mask: NDArray[np.uint8], grid: Grid, names: Mapping[int, str]) -> None:
    """Write a truth mask (255 is nodata); what its values mean is in the tag `CLASS_NAMES`."""
    tags = {"CLASS_NAMES": json.dumps({str(value): name for value, name in names.items()})}
    _write(path, mask[None], grid, nodata=255, names=["mask"], overview="NEAREST", tags=tags)


_SCL = Encoding("uint8", 1.0, 0.0, 0, Units.DN)
_QA_PIXEL = Encoding("uint16", 1.0, 0.0, 1, Units.DN)  # 1 is the fill bit alone


@dataclass(frozen=True)
class Layer:
    """What all bands of one pixel size share.

    Attributes:
        grid: Their grid.
        light: `(H, W)` light on the slopes relative to level ground.
        cloud: `(H, W)` true opacity of cloud, 0–1.
        shadow: `(H, W)` true depth of cloud shadow, 0–1.
        haze: `(H, W)` zero mean, unit variance.
        unseen: `(H, W)` beyond the swath's edge.
    """

    grid: Grid
    light: Floats
    cloud: Floats
    shadow: Floats
    haze: Floats
    unseen: NDArray[np.bool_]


@dataclass(frozen=True)
class Asset:
    """One file of a scene.

    Attributes:
        key: STAC asset key.
        pixels: `(bands, H, W)` counts.
        grid: Its grid.
        bands: What the layers are; empty for quality layers.
        encoding: How to read the counts.
        roles: STAC roles.
    """

    key: str
    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    grid: Grid
    bands: tuple[Band, ...]
    encoding: Encoding
    roles: tuple[str, ...] = ("data",)


def deliver(
    seed: int, scene: ScenePlan, reflectance: Sequence[Floats], layers: Mapping[float, Layer]
) -> tuple[Asset, ...]:
    """Pack a scene's bands and its quality layer.

    Args:
        seed: The world's seed.
        scene: The scene.
        reflectance: `(H, W)` per band of the scene's sensor.
        layers: What the bands share, by pixel size in metres.
    """
    bands = list(zip(scene.sensor.bands, reflectance, strict=True))
    if scene.sensor_id == "sentinel-2-l2a":
        return (*_separate(scene, bands, layers, key=lambda band: band.name), _scl(seed, scene, reflectance, layers))
    if scene.sensor_id == "landsat-oli-c2-l2":
        quality = _qa_pixel(seed, scene, reflectance, layers)
        return (*_separate(scene, bands, layers, key=lambda band: band.common_name), quality)
    layer = layers[scene.sensor.gsd_m]
    if scene.sensor_id == "naip":
        pixels = np.stack([_camera_counts(value, band, layer.unseen) for band, value in bands])
        return (Asset("image", pixels, layer.grid, scene.sensor.bands, scene.encoding),)
    counts = np.stack([_counts(value, scene.encoding, layer.unseen) for _, value in bands])
    return (Asset("image", counts, layer.grid, scene.sensor.bands, scene.encoding),)


def _separate(
    scene: ScenePlan, bands: Sequence[tuple[Band, Floats]], layers: Mapping[float, Layer], *, key: Callable[[Band], str]
) -> list[Asset]:
    assets = []
    for band, value in bands:
        layer = layers[band.gsd_m]
        counts = _counts(value, scene.encoding, layer.unseen)[None]
        assets.append(Asset(key(band), counts, layer.grid, (band,), scene.encoding, ("data", "reflectance")))
    return assets


def _scl(seed: int, scene: ScenePlan, reflectance: Sequence[Floats], layers: Mapping[float, Layer]) -> Asset:
    layer, sensor = layers[20.0], scene.sensor
    red = reflectance[sensor.band_index("B04")]
    red = red.reshape(red.shape[0] // 2, 2, red.shape[1] // 2, 2).mean(axis=(1, 3))
    classes = sentinel2_scl(
        red,
        reflectance[sensor.band_index("B8A")],
        cloud=layer.cloud,
        shadow=layer.shadow,
        unseen=layer.unseen,
        rng=generator(seed, scene.id, "quality"),
    )
    return Asset("SCL", classes[None], layer.grid, (), _SCL, ("data", "cloud", "cloud-shadow"))


def _qa_pixel(seed: int, scene: ScenePlan, reflectance: Sequence[Floats], layers: Mapping[float, Layer]) -> Asset:
    layer, sensor = layers[30.0], scene.sensor
    bits = landsat_qa_pixel(
        reflectance[sensor.band_index("red")],
        reflectance[sensor.band_index("nir08")],
        cloud=layer.cloud,
        shadow=layer.shadow,
        unseen=layer.unseen,
        rng=generator(seed, scene.id, "quality"),
    )
    return Asset("qa_pixel", bits[None], layer.grid, (), _QA_PIXEL, ("cloud", "cloud-shadow"))


def _counts(value: Floats, encoding: Encoding, unseen: NDArray[np.bool_]) -> NDArray[np.uint16]:
    counts: NDArray[np.uint16] = np.clip(np.rint((value - encoding.offset) / encoding.scale), 1, 65535).astype(
        np.uint16
    )
    counts[unseen] = encoding.nodata
    return counts


def _camera_counts(value: Floats, band: Band, unseen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Map reflectance to 8 bits by a film-like curve, as aerial mosaics are delivered: no physical units."""
    full = 0.75 if band.common_name == "nir" else 0.45
    counts: NDArray[np.uint8] = np.clip(np.rint(255 * np.clip(value / full, 0, 1) ** 0.62), 1, 255).astype(np.uint8)
    counts[unseen] = 0
    return counts
