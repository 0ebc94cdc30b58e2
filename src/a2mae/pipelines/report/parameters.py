"""Parameters of the report."""

from __future__ import annotations

from pydantic import Field

from a2mae.parameters import Parameters


class ReportParameters(Parameters):
    """What the page is called and how much it shows."""

    title: str = Field(min_length=1, description="heading of the page")
    sets: int = Field(ge=0, le=100, description="image sets shown as pictures")
    reconstructions: int = Field(ge=0, le=100, description="sets whose hidden and predicted patches are shown")
    examples: int = Field(ge=0, le=100, description="pictures per task")
    picture_px: int = Field(ge=16, le=1024, description="longest side of an embedded picture, pixels")
