"""Settings of the comparison: its own group, laid beside the parameter groups of a Kedro environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from a2mae.config import Parameters
from a2mae.tasks.parameters import EvaluateParameters, TaskParameters
from a2mae.training.parameters import Method, Option, PretrainParameters

MIN_STEPS = 20


class ContenderParameters(Parameters):
    """One way of pretraining."""

    name: str = Field(min_length=1, pattern=r"^[a-z0-9_]+$", description="of the score table's column 'model'")
    method: Method = Field(description="as in the group 'pretrain'")
    options: dict[str, Option] = Field(
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
    contenders: tuple[ContenderParameters, ...] = Field(
        (), description="pretrained on the environment's image sets; none: the folder alone is compared on"
    )
    folder: str | None = Field(
        None, description="a folder per class to pretrain and score on too, say EuroSAT; null: no"
    )
    format: str = Field("rgb_bytes", description="what its files hold: a layout's name, see docs/tasks.md")
    folder_samples: int | None = Field(None, ge=100, description="use so many of its files; null: all")
    folder_contenders: tuple[ContenderParameters, ...] = Field(
        (), description="pretrained on the folder's training images: methods for single images"
    )
    tasks: tuple[Literal["segment", "detect_change"], ...] = Field(
        ("segment", "detect_change"), description="finetuned on held-out places of the environment"
    )
    frozen: tuple[Literal["linear", "rcf"], ...] = Field(
        (),
        description="tasks also with the encoder frozen under one linear layer: on its tokens, or on them and random"
        " convolution features; beside one on random convolution features alone",
    )
    finetune_folder: bool = Field(
        False, description="also finetune on the folder by the recipe of the group 'classify'"
    )
    baselines: tuple[Literal["rcf", "statistics", "histogram", "pixels"], ...] = Field(
        ("rcf", "statistics", "histogram", "pixels"), description="without an encoder"
    )
    document: str | None = Field(
        None, description="Markdown file whose marked part gets the table once it is whole, say docs/results.md"
    )
    mark: str = Field(
        "comparison",
        pattern=r"^[a-z_]+$",
        description="name of the part: <!-- comparison: begin -->; and of its figure",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> CompareParameters:
        for group in (self.contenders, self.folder_contenders):
            names = [contender.name for contender in group]
            if len(set(names)) < len(names):
                raise ValueError(f"contenders need names of their own, found {', '.join(names)}")
            taken = sorted({*names} & {*self.baselines, "random"})
            if taken:
                raise ValueError(f"a contender is called {', '.join(taken)}, as what it is compared with: rename it")
        strange = [one.name for one in self.folder_contenders if one.method not in ("scale_mae", "mae")]
        if strange:
            raise ValueError(f"a folder has single images, not sets: {', '.join(strange)} cannot be pretrained on it")
        if self.folder is None and (self.folder_contenders or self.finetune_folder):
            raise ValueError("folder_contenders and finetune_folder need 'folder'")
        if not self.contenders and not self.folder_contenders:
            raise ValueError("nothing to compare: 'contenders' and 'folder_contenders' are empty, name one at least")
        return self


@dataclass(frozen=True)
class Settings:
    """All groups that a comparison reads.

    Attributes:
        compare: What meets what, and for how long.
        pretrain: Size, data and recipe that all contenders share.
        evaluate: Protocols for frozen encoders.
        classify: Recipe for finetuning on the folder.
        segment: Task and recipe.
        detect_change: Task and recipe.
    """

    compare: CompareParameters
    pretrain: PretrainParameters
    evaluate: EvaluateParameters
    classify: TaskParameters
    segment: TaskParameters
    detect_change: TaskParameters

    @classmethod
    def from_groups(cls, groups: Mapping[str, object]) -> Settings:
        """Validate plain values, as YAML holds them.

        Args:
            groups: By name; those that a comparison does not read are left alone.

        Raises:
            pydantic.ValidationError: If a key is unknown or a value is out of bounds.
        """
        tasks = {name: TaskParameters.model_validate(groups[name]) for name in ("classify", "segment", "detect_change")}
        return cls(
            CompareParameters.model_validate(groups["compare"]),
            PretrainParameters.model_validate(groups["pretrain"]),
            EvaluateParameters.model_validate(groups["evaluate"]),
            **tasks,
        )
