"""Parameters of the comparison of pretraining methods."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from a2mae.config import OnDiskPath, Parameters

MIN_STEPS = 20


class ContenderParameters(Parameters):
    """One way of pretraining."""

    name: str = Field(min_length=1, pattern=r"^[a-z0-9_]+$", description="of the score table's column 'model'")
    method: Literal["a2mae", "scale_mae", "mae"] = Field(description="as in the group 'pretrain'")
    options: dict[str, str | int | float | bool | None] = Field(
        default_factory=dict, description="of the method's configuration, over those of the group 'pretrain'"
    )


class CompareParameters(Parameters):
    """Which methods meet on which data, and how long it may take."""

    budget_h: float = Field(
        gt=0, description="hours in all, over every start: work stops when they are spent, and a larger budget goes on"
    )
    pretrain_share: float = Field(
        0.5, gt=0, lt=1, description="of the budget for pretraining, where it decides the number of steps"
    )
    steps: int | None = Field(
        None, ge=MIN_STEPS, description="of pretraining, the same for every method; null: as many as the budget gives"
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="of weights, samples and masks")
    contenders: tuple[ContenderParameters, ...] = Field(min_length=1, description="on the image-set store")
    folder: OnDiskPath = Field(
        None, description="a folder per class to pretrain and score on too, say EuroSAT; null: no"
    )
    format: str = Field("rgb_bytes", description="what its files hold: a layout's name, see docs/tasks.md")
    folder_samples: int | None = Field(None, ge=100, description="use so many of its files; null: all")
    folder_contenders: tuple[ContenderParameters, ...] = Field(
        (), description="pretrained on the folder's training images: methods for single images"
    )
    tasks: tuple[Literal["segment", "detect_change"], ...] = Field(
        ("segment", "detect_change"), description="finetuned on held-out places of the simulation"
    )
    finetune_folder: bool = Field(
        False, description="also finetune on the folder by the recipe of the group 'classify'"
    )
    baselines: tuple[Literal["pixels", "histogram"], ...] = Field(
        ("pixels", "histogram"), description="without an encoder"
    )
    document: str | None = Field(
        None, description="Markdown file whose marked part gets the table, say docs/results.md"
    )

    @model_validator(mode="after")
    def _names_differ(self) -> CompareParameters:
        for group in (self.contenders, self.folder_contenders):
            names = [contender.name for contender in group]
            if len(set(names)) < len(names):
                raise ValueError(f"contenders need names of their own, found {', '.join(names)}")
        strange = [contender.name for contender in self.folder_contenders if contender.method == "a2mae"]
        if strange:
            raise ValueError(f"a folder has single images, not sets: {', '.join(strange)} cannot be a2mae")
        if self.folder is None and (self.folder_contenders or self.finetune_folder):
            raise ValueError("folder_contenders and finetune_folder need 'folder'")
        return self
