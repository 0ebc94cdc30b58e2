"""Plan the scenes: their dates, platforms, grids, displacements, clouds and processing baselines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from a2mae.sensors import BUILTIN_SENSORS, Encoding, Sensor
from a2mae.simulate.ground.land_use import BIOMES
from a2mae.simulate.noise import generator
from a2mae.simulate.parameters import AcquisitionParameters, SimulateParameters
from a2mae.simulate.region import Grid, Region, utm_epsg
from a2mae.simulate.view.sky import Sun, sun_position

_OFFSET_BASELINE = 4.0  # Sentinel-2 counts carry -1000 DN from processing baseline 04.00 on
_NAIP_MARGIN_M = 60.0


@dataclass(frozen=True, slots=True)
class SensorHabits:
    """How a sensor is flown and delivered.

    Attributes:
        prefix: Of scene ids.
        solar_hour: Local solar time of acquisition.
        fine_factor: Ground samples per pixel of the sensor's finest band, along one axis.
        noise_floor: Standard deviation of noise at zero reflectance.
        noise_slope: Added standard deviation per unit of reflectance.
        phase_m: Offset of pixel edges from multiples of the pixel size.
    """

    prefix: str
    solar_hour: float
    fine_factor: int
    noise_floor: float
    noise_slope: float
    phase_m: float = 0.0


HABITS = {
    "sentinel-2-l2a": SensorHabits("s2", 10.6, 3, 0.0010, 0.006),
    "landsat-oli-c2-l2": SensorHabits("lc", 10.2, 5, 0.0008, 0.004, phase_m=15.0),
    "gaofen-1": SensorHabits("gf1", 11.0, 3, 0.0025, 0.012, phase_m=3.0),
    "gaofen-2": SensorHabits("gf2", 10.9, 3, 0.0025, 0.012, phase_m=1.5),
    "naip": SensorHabits("naip", 12.4, 2, 0.0020, 0.010),
}
"""Habits of the simulated sensors by id."""


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """One acquisition to be rendered.

    Attributes:
        id: Unique in the world; also the folder's name.
        region: The region's name.
        sensor_id: Key of `BUILTIN_SENSORS`.
        when: UTC.
        period: "before" or "after".
        season: "growing" or "dormant".
        platform: STAC platform.
        grid: Grid of the finest band.
        shift_m: How far east and north (region's zone) the content lies from where the grid says.
        cloud_share: Wanted share under cloud.
        nodata_share: Share beyond a slanted swath edge, 0 for none.
        baseline: Sentinel-2 processing baseline, else empty.
        encoding: How the delivered counts are to be read.
        sun: Where the sun stood.
        refuse: "cloud" or "nodata" where a builder must reject the scene, else empty.
    """

    id: str
    region: str
    sensor_id: str
    when: datetime
    period: str
    season: str
    platform: str
    grid: Grid
    shift_m: tuple[float, float]
    cloud_share: float
    nodata_share: float
    baseline: str
    encoding: Encoding
    sun: Sun
    refuse: str = ""

    @property
    def sensor(self) -> Sensor:
        """The sensor's description."""
        return BUILTIN_SENSORS[self.sensor_id]


def northern_day(when: datetime, *, south: bool) -> float:
    """Return the day of the year of the same season in the north: half a year later for the southern hemisphere."""
    return (when.timetuple().tm_yday + (182.5 if south else 0.0)) % 365.0


def plan_scenes(parameters: SimulateParameters, region: Region) -> tuple[ScenePlan, ...]:
    """List a region's scenes; each depends on the seed, the region and its own place in the list only."""
    scenes: list[ScenePlan] = []
    for sensor_id, acquisitions in parameters.acquisitions.items():
        for number, acquisition in enumerate(acquisitions):
            for grid in _grids(region, sensor_id):
                scenes.append(_plan(parameters, region, sensor_id, acquisition, grid, number=number, index=len(scenes)))
    if region.parameters.refused_scenes and "sentinel-2-l2a" in parameters.acquisitions:
        sensor_id = "sentinel-2-l2a"
        grid = _grids(region, sensor_id)[0]
        clouded = AcquisitionParameters(period="after", season="growing", cloud=1.0)
        scenes.append(_plan(parameters, region, sensor_id, clouded, grid, number=90, index=len(scenes), refuse="cloud"))
        missed = AcquisitionParameters(period="before", season="growing", edge=True)
        scenes.append(_plan(parameters, region, sensor_id, missed, grid, number=91, index=len(scenes), refuse="nodata"))
    return tuple(scenes)


def _grids(region: Region, sensor_id: str) -> list[Grid]:
    """The grids on which a sensor delivers a region: none, one, or one per NAIP footprint."""
    asked, sensor, habits = region.parameters, BUILTIN_SENSORS[sensor_id], HABITS[sensor_id]
    if sensor_id == "sentinel-2-l2a":
        return [region.block(sensor.gsd_m, margin_m=region.margin_m)]
    if sensor_id == "landsat-oli-c2-l2":
        # USGS delivers the southern hemisphere in northern zones too, with negative northings.
        zone = asked.landsat_zone or region.epsg % 100
        margin = region.margin_m
        if zone == region.epsg % 100 and not region.south:
            return [region.covering(region.epsg, sensor.gsd_m, phase_m=habits.phase_m, margin_m=margin)]
        return [region.covering(utm_epsg(zone, south=False), sensor.gsd_m, phase_m=habits.phase_m, margin_m=margin)]
    if sensor_id == "naip":
        side = asked.footprints
        # Spread over the region, so that neighbours do not share most of their surroundings.
        places = [
            (index * (side**2 - 1)) // max(asked.naip_footprints - 1, 1) for index in range(asked.naip_footprints)
        ]
        return [
            region.block(sensor.gsd_m, row=place // side, column=place % side, side=1, margin_m=_NAIP_MARGIN_M)
            for place in places
        ]
    side = asked.gaofen1_footprints if sensor_id == "gaofen-1" else asked.gaofen2_footprints
    if side == 0:
        return []
    block = region.block(sensor.gsd_m, side=side, margin_m=region.margin_m)
    phase = habits.phase_m
    return [Grid(block.epsg, block.left_m + phase, block.top_m - phase, block.gsd_m, block.height, block.width)]


def _plan(
    parameters: SimulateParameters,
    region: Region,
    sensor_id: str,
    acquisition: AcquisitionParameters,
    grid: Grid,
    *,
    number: int,
    index: int,
    refuse: str = "",
) -> ScenePlan:
    habits, sensor, biome = HABITS[sensor_id], BUILTIN_SENSORS[sensor_id], BIOMES[region.parameters.biome]
    rng = generator(parameters.seed, region.name, sensor_id, f"scene {number}", f"{grid.left_m} {grid.top_m}")
    year = parameters.before_year if acquisition.period == "before" else parameters.after_year
    day = biome.growing_day if acquisition.season == "growing" else biome.dormant_day
    day = (day + (182 if region.south else 0) + int(rng.integers(-8, 9)) + number) % 365
    local = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=day, hours=habits.solar_hour)
    when = (local - timedelta(hours=region.parameters.lon / 15.0)).replace(microsecond=0)
    length = rng.uniform(0.2, 1.0) * acquisition.shift_px * sensor.gsd_m
    angle = rng.uniform(0, 2 * np.pi)
    shift = (round(float(length * np.cos(angle)), 3), round(float(length * np.sin(angle)), 3))
    platform = sensor.platforms[number % min(len(sensor.platforms), 2)] if sensor.platforms else sensor_id
    baseline, encoding = "", sensor.encoding
    if sensor_id == "sentinel-2-l2a":
        baseline = acquisition.baseline or ("02.14" if year < 2021 else "03.01" if year < 2022 else "05.09")
        offset = -0.1 if float(baseline) >= _OFFSET_BASELINE else 0.0
        encoding = Encoding("uint16", encoding.scale, offset, encoding.nodata, encoding.units)
    nodata = float(rng.uniform(0.05, 0.14)) if acquisition.edge else 0.0
    return ScenePlan(
        id=f"{habits.prefix}_{when:%Y%m%d}_{region.name}_{index:02d}",
        region=region.name,
        sensor_id=sensor_id,
        when=when,
        period=acquisition.period,
        season=acquisition.season,
        platform=platform,
        grid=grid,
        shift_m=shift,
        cloud_share=acquisition.cloud,
        nodata_share=0.999 if refuse == "nodata" else nodata,
        baseline=baseline,
        encoding=encoding,
        sun=sun_position(region.parameters.lat, when, habits.solar_hour),
        refuse=refuse,
    )
