"""Parameters of the stages `coregister`, `tag` and `prune`, each a pydantic model of its YAML group.

They know nothing of the code that they steer, so that listing the pipelines imports neither GDAL nor pandas.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from a2mae.config import CloudParameters, Parameters, RegistrationParameters, WorkerParameters
from a2mae.errors import InputError
from a2mae.files import check_regular
from a2mae.remote.policy import ReadingParameters
from a2mae.sensors import Sensor


class SourceRule(Parameters):
    """One source of a recipe: which sensors, how many of their images, which bands and seasons."""

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
        """Check whether a sensor is one of this source's."""
        return any(fnmatch.fnmatchcase(sensor_id, pattern) for pattern in self.sensors)


class Recipe(Parameters):
    """A kind of image set: what a location must have, and how many of it a set takes.

    The kinds of the paper are in docs/methods.md, STSSD; a user adds their own.
    """

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
    max_sets: int = Field(default=1, ge=1, description="Sets per location: further dates make further sets.")
    near: tuple[tuple[float, float], ...] | None = Field(
        default=None,
        description="Only at locations near these, [[lon, lat], ...] or the name of a GeoJSON file of them (read when"
        " the run starts): for example cities.",
    )
    near_m: float = Field(default=20_000.0, gt=0, description="How near the centre of a location must be.")

    @property
    def wants(self) -> str:
        """Describe in a few words what a location must have."""
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
            check_regular(Path(near))
            features = json.loads(Path(near).read_text(encoding="utf-8"))["features"]
            centres = [shape(feature["geometry"]).centroid for feature in features]
        except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"near: {near!r} is not a GeoJSON file of places ({error})") from error
        return [(point.x, point.y) for point in centres]

    @model_validator(mode="after")
    def _counts_fit(self) -> Recipe:
        if self.single_source and (self.sources or self.min_sources > 1):
            raise ValueError("single_source goes without named sources and with min_sources: 1")
        if self.min_images > self.max_images:
            raise ValueError(f"min_images ({self.min_images}) is larger than max_images ({self.max_images})")
        sources = len(self.sources) or self.min_sources
        if sources > self.max_images:
            raise ValueError(
                f"a set of {sources} sources needs as many images at least; max_images is {self.max_images}"
            )
        return self

    def is_at(self, lon: float, lat: float) -> bool:
        """Check whether sets of this kind are made at a location, given its centre in degrees."""
        if self.near is None:
            return True
        from pyproj import Geod  # noqa: PLC0415 (listing pipelines stays light)

        geod = Geod(ellps="WGS84")
        return any(geod.inv(lon, lat, x, y)[2] <= self.near_m for x, y in self.near)

    def bands_of(self, sensor: Sensor) -> tuple[str, ...] | None:
        """Find the bands of a sensor that sets of this kind use.

        Returns:
            The provider's names, of a source with several sensors only those that this one has; None: all bands.
        """
        rule = next((rule for rule in self.sources if rule.fits(sensor.id) and rule.bands), None)
        if rule is None:
            return None
        known = {name: band.name for band in reversed(sensor.bands) for name in (band.common_name, band.name) if name}
        return tuple(known[name] for name in rule.bands if name in known)


def check_recipes(recipes: Mapping[str, Recipe | None], sensors: Mapping[str, Sensor]) -> None:
    """Check that the sensors of every recipe have the bands that it names.

    Args:
        recipes: Recipes by kind; None switches a kind off.
        sensors: Sensors in use, by id.

    Raises:
        InputError: If none of a source's sensors has one of its bands; the message lists those that there are.
    """
    for kind, recipe in recipes.items():
        for rule in recipe.sources if recipe is not None else ():
            fitting = [sensor for sensor in sensors.values() if rule.fits(sensor.id)]
            known = {name for sensor in fitting for band in sensor.bands for name in (band.name, band.common_name)}
            unknown = [name for name in rule.bands if name not in known]
            if fitting and unknown:
                raise InputError(
                    f"coregister.recipes.{kind}: {', '.join(sensor.id for sensor in fitting)} has no band"
                    f" {unknown[0]!r}; there are {', '.join(sorted(known - {''}))}"
                )


class QualityParameters(Parameters):
    """What an image must have to enter a set; what falls short is rejected."""

    max_cloud_fraction: float = Field(default=0.4, ge=0, le=1, description="Cloud and shadow, share of what was seen.")
    min_valid_fraction: float = Field(default=0.5, gt=0, le=1, description="Usable pixels, share of the footprint.")
    max_candidates: int = Field(
        default=12, ge=1, description="Scenes tried per source, location and set before giving up: bounds the reading."
    )


class CoregisterParameters(WorkerParameters):
    """From scenes and locations to registered image sets."""

    recipes: dict[str, Recipe | None] = Field(description="Kinds of sets by name; null switches a kind off.")
    quality: QualityParameters = Field(default_factory=QualityParameters, description="The quality gate.")
    clouds: CloudParameters = Field(default_factory=CloudParameters, description="How clouds are told.")
    registration: RegistrationParameters = Field(
        default_factory=RegistrationParameters, description="How images are moved onto each other."
    )
    keep_nominal: bool = Field(
        default=True,
        description="Keep images that could not be registered at the provider's position; false rejects them.",
    )
    reading: ReadingParameters = Field(
        default_factory=ReadingParameters, description="How patient reads are, and which checksums are compared."
    )
    fail_if_unreachable: bool = Field(
        default=False, description="End with an error where images could not be reached or read, after all others."
    )
    locations_per_task: int = Field(default=8, ge=1, description="Locations surveyed by a worker at once.")

    @model_validator(mode="after")
    def _some_recipe(self) -> CoregisterParameters:
        if not any(self.recipes.values()):
            raise ValueError("recipes: every kind is switched off; define at least one")
        return self


class SplitParameters(Parameters):
    """Shares of training, validation and test, split by location."""

    block_m: float = Field(
        default=10_000.0, gt=0, description="Locations within a square of this side share a split, metres."
    )
    train: float = Field(default=0.7, gt=0, le=1, description="Share of the locations.")
    val: float = Field(default=0.1, ge=0, lt=1, description="Share of the locations.")
    test: float = Field(default=0.2, ge=0, lt=1, description="Share of the locations.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Decides which blocks go where.")

    @model_validator(mode="after")
    def _shares_add_up(self) -> SplitParameters:
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError(f"train, val and test add up to {self.train + self.val + self.test:g}, not to 1")
        return self


class TagParameters(WorkerParameters):
    """From registered images to the image table, the set table and their statistics."""

    geosot_layer: int | None = Field(
        default=None, ge=1, le=32, description="Leading bits of the codes that are kept; null: by the footprint's size."
    )
    anchor: Literal["clearest", "reference", "finest"] = Field(
        default="clearest",
        description="Which image of a set is tagged as its anchor; ties go to the finer, then older.",
    )
    split: SplitParameters = Field(default_factory=SplitParameters, description="Splits by location.")
    workers: int = Field(default=1, ge=0, le=256, description="Local processes; 0: one per core.")


class PruneParameters(Parameters):
    """Balance the training sets by what they show."""

    enabled: bool = Field(default=True, description="False keeps every set (clusters are still found).")
    clusters: int = Field(default=64, ge=1, description="At most so many; never more than a fifth of the sets.")
    keep_fraction: float = Field(
        default=0.8, gt=0, le=1, description="Share of the training sets to keep: decides the cap per cluster."
    )
    max_per_cluster: int | None = Field(default=None, ge=1, description="The cap itself; null: from keep_fraction.")
    hard_fraction: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of a full cluster's cap that goes to its hardest sets; the rest is drawn.",
    )
    homogeneous_quantile: float = Field(
        default=0.25, ge=0, le=1, description="Clusters below this quantile of heterogeneity keep hard sets only."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of clustering and drawing.")
