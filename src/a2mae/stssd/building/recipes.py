"""Kinds of image sets as parameters: which sources, bands, seasons and how many images (METHOD.md section 1)."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from a2mae.parameters import Parameters
from a2mae.sensors import Sensor


class SourceRule(Parameters):
    """One of the sources that a recipe asks for."""

    sensors: tuple[str, ...] = Field(min_length=1, description="Sensor ids or patterns such as `sentinel-2-*`.")
    images: int = Field(default=3, ge=1, description="Images wanted of this source.")
    bands: tuple[str, ...] = Field(
        default=(), description="Bands that sets of this kind use, by name or common name; empty: all of the sensor's."
    )
    season: Literal["any", "growing", "dormant"] = Field(
        default="any",
        description="any: both seasons in turn, where the recipe spreads by seasons; or one of them alone.",
    )

    def fits(self, sensor_id: str) -> bool:
        """Whether a sensor is one of this source's."""
        return any(fnmatch.fnmatchcase(sensor_id, pattern) for pattern in self.sensors)


class Recipe(Parameters):
    """A kind of image set (METHOD.md section 1, or the user's own)."""

    sources: tuple[SourceRule, ...] = Field(
        default=(), description="Sources that must be there; empty: every sensor found is a source of its own."
    )
    min_sources: int = Field(default=2, ge=1, description="Without named sources: how many different ones a set needs.")
    single_source: bool = Field(
        default=False, description="Without named sources: each sensor makes sets of its own (temporal sets)."
    )
    images_per_source: int = Field(default=3, ge=1, description="Without named sources: images wanted of each.")
    min_images: int = Field(default=2, ge=1, description="A set with fewer is not made.")
    max_images: int = Field(default=6, ge=1, description="A set never has more.")
    spread: Literal["seasons", "time"] = Field(
        default="seasons", description="seasons: growing and dormant season in turn; time: as far apart as possible."
    )
    max_sets: int = Field(default=1, ge=1, description="Sets per place: further dates make further sets.")
    near: tuple[tuple[float, float], ...] | None = Field(
        default=None,
        description="Only at places near these, [[lon, lat], ...] or the name of a GeoJSON file of them (read when the"
        " run starts): for example cities.",
    )
    near_m: float = Field(default=20_000.0, gt=0, description="How near the centre of a place must be.")

    @property
    def wants(self) -> str:
        """What a place must have, in a few words."""
        if self.sources:
            return " with ".join(" or ".join(rule.sensors) for rule in self.sources)
        if self.single_source:
            return f"{self.min_images} images of one source"
        return f"{self.min_sources} sources, {self.min_images} images"

    @field_validator("near", mode="before")
    @classmethod
    def _points_of_a_file(cls, near: object) -> object:
        if not isinstance(near, str):
            return near
        from shapely.geometry import shape  # noqa: PLC0415 (listing pipelines stays light)

        try:
            features = json.loads(Path(near).read_text(encoding="utf-8"))["features"]
            centres = [shape(feature["geometry"]).centroid for feature in features]
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"near: {near!r} is not a GeoJSON file of places ({error})") from error
        return [(point.x, point.y) for point in centres]

    @model_validator(mode="after")
    def _counts_fit(self) -> Recipe:
        if self.single_source and (self.sources or self.min_sources > 1):
            raise ValueError("single_source goes without named sources and with min_sources: 1")
        if self.min_images > self.max_images:
            raise ValueError(f"min_images ({self.min_images}) is larger than max_images ({self.max_images})")
        return self

    def is_at(self, lon: float, lat: float) -> bool:
        """Whether sets of this kind are made at a place."""
        if self.near is None:
            return True
        from pyproj import Geod  # noqa: PLC0415 (listing pipelines stays light)

        geod = Geod(ellps="WGS84")
        return any(geod.inv(lon, lat, x, y)[2] <= self.near_m for x, y in self.near)

    def bands_of(self, sensor: Sensor) -> tuple[str, ...] | None:
        """The bands of a sensor that sets of this kind use, by the provider's names; None: all of them.

        Of a source with several sensors, each gives those of the bands that it has.
        """
        rule = next((rule for rule in self.sources if rule.fits(sensor.id) and rule.bands), None)
        if rule is None:
            return None
        known = {name: band.name for band in reversed(sensor.bands) for name in (band.common_name, band.name) if name}
        return tuple(known[name] for name in rule.bands if name in known)


def check_recipes(recipes: Mapping[str, Recipe | None], sensors: Mapping[str, Sensor]) -> None:
    """Refuse recipes with bands that none of their sensors has.

    Raises:
        ValueError: Naming the recipe, the band and what there is.
    """
    for kind, recipe in recipes.items():
        for rule in recipe.sources if recipe is not None else ():
            fitting = [sensor for sensor in sensors.values() if rule.fits(sensor.id)]
            known = {name for sensor in fitting for band in sensor.bands for name in (band.name, band.common_name)}
            unknown = [name for name in rule.bands if name not in known]
            if fitting and unknown:
                raise ValueError(
                    f"coregister.recipes.{kind}: {', '.join(sensor.id for sensor in fitting)} has no band"
                    f" {unknown[0]!r}; there are {', '.join(sorted(known - {''}))}"
                )
