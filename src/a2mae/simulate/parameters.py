"""Parameters of the simulated Earth."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from a2mae.config import Parameters
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.simulate.ground.land_use import BIOMES

SENSORS = ("sentinel-2-l2a", "landsat-oli-c2-l2", "gaofen-1", "gaofen-2", "naip")
"""Sensors that can be simulated."""


class AcquisitionParameters(Parameters):
    """One planned date of a sensor over a region."""

    period: str = Field(pattern="^(before|after)$", description="before or after the changes")
    season: str = Field(
        default="growing", pattern="^(growing|dormant)$", description="which of the biome's two seasons"
    )
    cloud: float = Field(default=0.0, ge=0, le=1, description="share of the scene under cloud")
    edge: bool = Field(default=False, description="a slanted swath edge leaves one corner without data")
    shift_px: float = Field(
        default=0.8, ge=0, le=3, description="misregistration, at most, pixels of the sensor; drawn from 0.2 of it up"
    )
    baseline: str = Field(
        default="", pattern=r"^(|\d\d\.\d\d)$", description="Sentinel-2 processing baseline; empty: by year"
    )


class RegionParameters(Parameters):
    """A region: a square of footprints with a margin, in the UTM zone of its centre."""

    name: str = Field(pattern="^[a-z][a-z0-9-]*$", description="also the folder's name")
    lon: float = Field(ge=-180, le=180, description="degrees")
    lat: float = Field(ge=-80, le=80, description="degrees")
    biome: str = Field(description="kind of landscape, see simulate/ground/land_use.py")
    footprints: int = Field(default=3, ge=1, le=40, description="footprints per side")
    gaofen1_footprints: int = Field(default=0, ge=0, description="side of the block that Gaofen-1 covers, footprints")
    gaofen2_footprints: int = Field(default=0, ge=0, description="side of the block that Gaofen-2 covers, footprints")
    naip_footprints: int = Field(default=0, ge=0, description="number of single footprints that NAIP covers")
    landsat_zone: int | None = Field(
        default=None, ge=1, le=60, description="UTM zone in which Landsat is delivered; null: the region's own"
    )
    refused_scenes: bool = Field(
        default=False, description="also an all-cloud and an almost all-nodata Sentinel-2 scene"
    )

    @field_validator("biome")
    @classmethod
    def _known_biome(cls, value: str) -> str:
        if value not in BIOMES:
            raise ValueError(
                f"unknown biome '{value}'; known: {', '.join(sorted(BIOMES))} (simulate/ground/land_use.py)"
            )
        return value

    @model_validator(mode="after")
    def _blocks_fit(self) -> RegionParameters:
        for name, limit in (
            ("gaofen1_footprints", self.footprints),
            ("gaofen2_footprints", self.footprints),
            ("naip_footprints", self.footprints**2),
        ):
            if getattr(self, name) > limit:
                raise ValueError(f"region '{self.name}': {name} is {getattr(self, name)}, at most {limit} fit")
        return self


class SimulateParameters(Parameters):
    """The simulated Earth: where, when and how it is seen."""

    seed: int = Field(default=0, ge=0, lt=2**63, description="decides everything that is drawn")
    workers: int = Field(default=0, ge=0, le=64, description="local processes; 0: one per core")
    footprint_m: int = Field(default=1920, ge=480, multiple_of=60, description="side of a footprint, metres")
    margin_m: int = Field(
        default=240, ge=0, multiple_of=60, description="what scenes show beyond the footprints, metres"
    )
    truth_gsd_m: int = Field(default=10, ge=1, le=30, description="grid of the land-cover and change truth, metres")
    before_year: int = Field(default=2020, ge=2016, le=2030, description="year of the period before the changes")
    after_year: int = Field(default=2023, ge=2017, le=2031, description="year of the period after the changes")
    change_share: float = Field(
        default=0.07, ge=0, le=0.5, description="wanted share of ground that changes in a region"
    )
    typical_shift_px: float = Field(
        default=0.8, ge=0, le=3, description="usual misregistration, at most, sensor pixels"
    )
    largest_shift_px: float = Field(default=3.0, ge=0, le=3, description="largest misregistration, sensor pixels")
    large_shift_share: float = Field(default=0.2, ge=0, le=1, description="share of scenes that may reach the largest")
    regions: tuple[RegionParameters, ...] = Field(min_length=1, description="where")
    acquisitions: dict[str, tuple[AcquisitionParameters, ...]] = Field(description="when, by sensor id")

    @field_validator("acquisitions")
    @classmethod
    def _known_sensors(
        cls, value: dict[str, tuple[AcquisitionParameters, ...]]
    ) -> dict[str, tuple[AcquisitionParameters, ...]]:
        unknown = [sensor for sensor in value if sensor not in SENSORS or sensor not in BUILTIN_SENSORS]
        if unknown:
            raise ValueError(
                f"'acquisitions' names no simulated sensor: {', '.join(unknown)}; known: {', '.join(SENSORS)}"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> SimulateParameters:
        names = [region.name for region in self.regions]
        if len(set(names)) != len(names):
            raise ValueError(f"region names must be unique, found {', '.join(names)}")
        if self.after_year <= self.before_year:
            raise ValueError(f"after_year ({self.after_year}) must be later than before_year ({self.before_year})")
        return self
