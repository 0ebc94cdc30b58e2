"""Render one scene: the landscape through sun, air, clouds and a sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2mae.sensors import Band
from a2mae.simulate.delivery.files import Asset, Layer, deliver
from a2mae.simulate.ground.covers import COVER_SHIFT, HEIGHT_OF_COVER, band_response, reflectance_table
from a2mae.simulate.ground.landscape import FINE_GSD_M, LATTICE_M, Landscape
from a2mae.simulate.noise import Floats, Lattice, generator
from a2mae.simulate.region import Grid, Region
from a2mae.simulate.scenes import HABITS, ScenePlan, northern_day
from a2mae.simulate.view.sensor import halo, reduce
from a2mae.simulate.view.sky import Sky, illumination, make_sky, nodata_edge

_STRIP_PIXELS = 200_000  # fine pixels reduced at a time: they stay in the processor's cache
_CLOUD_SEEN = 0.35  # opacity or depth from which the truth says cloud or shadow


@dataclass(frozen=True)
class Rendered:
    """A scene's files and what is true about them.

    Attributes:
        assets: The files.
        sky: `(H, W)` uint8 on `sky_grid`: 0 clear, 1 cloud, 2 cloud shadow.
        sky_grid: Grid of `sky`.
        cloud_fraction: Share of the seen ground under cloud.
        shadow_fraction: Share in cloud shadow.
        nodata_fraction: Share that was not seen.
    """

    assets: tuple[Asset, ...]
    sky: NDArray[np.uint8]
    sky_grid: Grid
    cloud_fraction: float
    shadow_fraction: float
    nodata_fraction: float


@dataclass(frozen=True)
class _View:
    """A scene with all that lies between it and the ground."""

    seed: int
    region: Region
    landscape: Landscape
    scene: ScenePlan
    sky: Sky
    light: Lattice

    def layer(self, grid: Grid) -> Layer:
        """Compute what the bands on a grid share."""
        points = self.region.local(grid, shift_m=self.scene.shift_m)
        cloud, shadow = self.sky.cover(points)
        unseen = np.zeros(points.shape, dtype=bool)
        if self.scene.nodata_share > 0:
            unseen = nodata_edge(
                self.region.local(grid),
                generator(self.seed, self.scene.id, "edge"),
                half_side_m=self.landscape.half_side_m,
                share=self.scene.nodata_share,
            )
        return Layer(
            grid=grid,
            light=self.light.sample(points)[0],
            cloud=cloud,
            shadow=shadow,
            haze=self.sky.haze.sample(points)[0],
            unseen=unseen,
        )


def render(seed: int, region: Region, landscape: Landscape, scene: ScenePlan) -> Rendered:
    """Render a scene.

    Args:
        seed: The world's seed.
        region: Where.
        landscape: The region's ground, with its changes.
        scene: What to render.
    """
    sensor, habits = scene.sensor, HABITS[scene.sensor_id]
    factor = habits.fine_factor
    sizes = sorted({band.gsd_m for band in sensor.bands})
    sky = make_sky(seed, scene.id, scene.sun, cloud_share=scene.cloud_share, half_side_m=landscape.half_side_m)
    light = Lattice(illumination(landscape.elevation_m, LATTICE_M, scene.sun)[None], LATTICE_M)
    view = _View(seed, region, landscape, scene, sky, light)
    layers = {size: view.layer(scene.grid.coarsen(size)) for size in sizes}

    # Far enough around for the coarsest band's point spread, and divisible by the stride at which it is sampled.
    margin = max(_margin(size / sensor.gsd_m, factor) for size in sizes)
    fine_grid = scene.grid.refine(factor, margin)
    states = landscape.states(
        region.local(fine_grid, shift_m=scene.shift_m),
        after=scene.period == "after",
        year=scene.when.year,
        gsd_m=fine_grid.gsd_m,
    )
    if fine_grid.gsd_m <= FINE_GSD_M:
        _cast_shadows(states, scene, fine_grid.gsd_m)
    table = reflectance_table(
        sensor.bands,
        soil=landscape.biome.soil,
        northern_day=northern_day(scene.when, south=region.south),
        character=landscape.character,
    )
    reflectance = []
    for index, band in enumerate(sensor.bands):
        ground = _see(states, table[index], round(band.gsd_m / sensor.gsd_m), factor, margin)
        reflectance.append(_through_air(ground, layers[band.gsd_m], band, scene, generator(seed, scene.id, band.name)))
    finest = layers[sizes[0]]
    sky_classes = np.where(finest.shadow > _CLOUD_SEEN, 2, 0).astype(np.uint8)
    sky_classes[finest.cloud > _CLOUD_SEEN] = 1
    seen = sky_classes[~finest.unseen]
    return Rendered(
        assets=deliver(seed, scene, reflectance, layers),
        sky=sky_classes,
        sky_grid=finest.grid,
        cloud_fraction=_share(seen == 1),
        shadow_fraction=_share(seen == 2),
        nodata_fraction=_share(finest.unseen),
    )


def _share(mask: NDArray[np.bool_]) -> float:
    return round(float(mask.mean()), 6) if mask.size else 0.0


def _stride(ratio: int, factor: int) -> int:
    """Fine pixels to skip for a band `ratio` times coarser than the finest: odd, so that samples stay centred."""
    return 3 if ratio >= 6 and factor == 3 else 1


def _margin(ratio: float, factor: int) -> int:
    stride = _stride(round(ratio), factor)
    return halo(factor * round(ratio) // stride) * stride


def _see(states: NDArray[np.uint16], table: Floats, ratio: int, factor: int, margin: int) -> Floats:
    """One band's ground reflectance on its own grid."""
    stride = _stride(ratio, factor)
    surplus = margin - _margin(ratio, factor)
    inner = states[surplus : states.shape[0] - surplus, surplus : states.shape[1] - surplus]
    inner = inner[stride // 2 :: stride, stride // 2 :: stride]
    step, border = factor * ratio // stride, halo(factor * ratio // stride)
    height, width = (inner.shape[0] - 2 * border) // step, (inner.shape[1] - 2 * border) // step
    seen = np.empty((height, width), dtype=np.float32)
    rows = max(1, _STRIP_PIXELS // (inner.shape[1] * step))
    for first in range(0, height, rows):
        last = min(first + rows, height)
        seen[first:last] = reduce(np.take(table, inner[first * step : last * step + 2 * border]), step)
    return seen


def _cast_shadows(states: NDArray[np.uint16], scene: ScenePlan, gsd_m: float) -> None:
    """Darken ground in the shadow of houses and trees: brightness level 0 of the pixel's state."""
    height = np.take(HEIGHT_OF_COVER, states >> COVER_SHIFT)
    shaded = np.zeros(states.shape, dtype=bool)
    east, north = scene.sun.shadow_m
    for step in (2, 4, 6, 9, 13):  # metres above ground at which the ray to the sun is tested
        columns, rows = round(east * step / gsd_m), round(-north * step / gsd_m)
        shaded |= np.roll(height, (rows, columns), axis=(0, 1)) > height + np.uint8(step)
    states[shaded] &= np.uint16(0xFFE0)


def _through_air(ground: Floats, layer: Layer, band: Band, scene: ScenePlan, rng: np.random.Generator) -> Floats:
    """Reflectance as the sensor's atmospheric correction leaves it: lit, shaded, hazy, clouded and noisy."""
    wavelength = band.center_wavelength_nm / 500.0
    seen = ground * layer.light
    # Skylight fills shadows, blue more than infrared.
    seen *= 1 - layer.shadow * (0.80 - 0.30 * wavelength**-2)
    seen = seen * (1 + 0.025 * float(rng.standard_normal())) + (0.005 + 0.003 * layer.haze) * wavelength**-2
    bright = band_response("cloud", band) * (0.85 + 0.05 * layer.haze)
    seen += layer.cloud * (bright - seen)
    noise = rng.standard_normal(seen.shape, dtype=np.float32)
    habits = HABITS[scene.sensor_id]
    return np.asarray(seen + noise * (habits.noise_floor + habits.noise_slope * seen), dtype=np.float32)
