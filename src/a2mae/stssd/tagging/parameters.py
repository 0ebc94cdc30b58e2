"""The `tag` group of parameters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from a2mae.parameters import Parameters


class SplitParameters(Parameters):
    """Training, validation and test by place."""

    block_m: float = Field(
        default=10_000.0, gt=0, description="Places within a square of this side share a split, metres."
    )
    train: float = Field(default=0.7, gt=0, le=1, description="Share of the places.")
    val: float = Field(default=0.1, ge=0, lt=1, description="Share of the places.")
    test: float = Field(default=0.2, ge=0, lt=1, description="Share of the places.")
    seed: int = Field(default=0, ge=0, description="Decides which blocks go where.")

    @model_validator(mode="after")
    def _shares_add_up(self) -> SplitParameters:
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError(f"train, val and test add up to {self.train + self.val + self.test:g}, not to 1")
        return self


class TagParameters(Parameters):
    """From registered images to the image table, the set table and their statistics."""

    geosot_layer: int | None = Field(
        default=None, ge=1, le=32, description="Leading bits of the codes that are kept; null: by the footprint's size."
    )
    anchor: Literal["clearest", "reference", "finest"] = Field(
        default="clearest",
        description="Which image of a set is tagged as its anchor; ties go to the finer, then older.",
    )
    split: SplitParameters = Field(default_factory=SplitParameters, description="Splits by place.")
    workers: int = Field(default=1, ge=1, le=256, description="Local processes.")
    dask_scheduler: str | None = Field(default=None, description="Address of a Dask cluster to use instead, tcp://…")
