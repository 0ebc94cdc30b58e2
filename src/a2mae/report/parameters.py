"""Parameters of the report."""

from __future__ import annotations

from pydantic import Field

from a2mae.config import Parameters


class CardParameters(Parameters):
    """What the model card and the data-set card say that no run can know."""

    model_name: str = Field(min_length=1, description="of the pretrained model")
    dataset_name: str = Field(min_length=1, description="of the image sets")
    licence: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.+-]*$", description="SPDX identifier in lower case, for example cc-by-4.0; or other"
    )
    licence_note: str = Field("", description="what holds where the identifier does not say it")
    contact: str = Field("", description="who answers for them")
    intended_use: tuple[str, ...] = Field((), description="lines added to the intended use")
    limits: tuple[str, ...] = Field((), description="lines added to the limits")


class ReportParameters(Parameters):
    """What the page is called and how much it shows; what the cards say."""

    title: str = Field(min_length=1, description="heading of the page")
    sets: int = Field(ge=0, le=100, description="image sets shown as pictures")
    reconstructions: int = Field(ge=0, le=100, description="sets whose hidden and predicted patches are shown")
    examples: int = Field(ge=0, le=100, description="pictures per task")
    picture_px: int = Field(ge=16, le=1024, description="longest side of an embedded picture, pixels")
    card: CardParameters = Field(description="what the cards say that no run can know")
