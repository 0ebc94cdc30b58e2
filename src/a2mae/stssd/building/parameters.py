"""The `coregister` group of parameters."""

from __future__ import annotations

from pydantic import Field, model_validator

from a2mae.parameters import Parameters
from a2mae.stssd.access.retries import ReadingParameters
from a2mae.stssd.building.recipes import Recipe
from a2mae.stssd.building.sets import QualityParameters
from a2mae.stssd.pixels.parameters import CloudParameters
from a2mae.stssd.registering.parameters import RegistrationParameters


class CoregisterParameters(Parameters):
    """From scenes and locations to registered image sets."""

    recipes: dict[str, Recipe | None] = Field(description="Kinds of sets by name; null switches a kind off.")
    quality: QualityParameters = Field(default_factory=QualityParameters, description="The quality gate.")
    clouds: CloudParameters = Field(default_factory=CloudParameters, description="How clouds are told.")
    registration: RegistrationParameters = Field(
        default_factory=RegistrationParameters, description="How images are moved onto each other."
    )
    keep_nominal: bool = Field(
        default=True,
        description="Keep images whose position could not be told, at the provider's; false keeps them out.",
    )
    reading: ReadingParameters = Field(
        default_factory=ReadingParameters, description="How patient reads are, and which checksums are compared."
    )
    fail_if_unreachable: bool = Field(
        default=False, description="End with an error where images could not be reached or read, after all others."
    )
    workers: int = Field(default=2, ge=1, le=256, description="Local processes.")
    dask_scheduler: str | None = Field(
        default=None, description="Dask cluster to use instead: its address, tcp://…, or `local`"
    )
    locations_per_task: int = Field(default=8, ge=1, description="Places surveyed by a worker at once.")

    @model_validator(mode="after")
    def _some_recipe(self) -> CoregisterParameters:
        if not any(self.recipes.values()):
            raise ValueError("recipes: every kind is switched off; define at least one")
        return self
