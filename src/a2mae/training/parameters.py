"""Parameters of the `pretrain` stage. Their parts are those of the run specification, so nothing is described twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from a2mae.config import Parameters
from a2mae.training.spec import HardwareSpec, LoggingSpec, Method, NumericsSpec, OptimizerSpec, SamplingSpec
from a2mae.training.strict_json import check_bounds, from_json

T = TypeVar("T")


def _part(kind: type[T]) -> BeforeValidator:
    """Read a mapping as one part of the run specification, with that part's own error messages."""

    def read(value: Any) -> Any:  # noqa: ANN401 (pydantic hands in whatever the YAML held)
        return from_json(kind, value) if isinstance(value, Mapping) else value

    return BeforeValidator(read)


class ModelParameters(Parameters):
    """Which network is trained."""

    size: Literal["tiny", "small", "base", "large"] = Field(
        description="ViT-T, -S, -B or -L; also sets the decoder's width"
    )
    patch_size: int = Field(ge=2, le=64, description="side of a patch, pixels")
    options: dict[str, str | int | float | bool | None] = Field(
        default_factory=dict,
        description="any field of the method's configuration (a2mae.models): embed_dim, depth, masking, encoding, ...",
    )
    method_options: dict[Method, dict[str, str | int | float | bool | None]] = Field(
        default_factory=dict, description="likewise, but only for one method"
    )


class OptimizerParameters(Parameters):
    """AdamW, its schedule and the length of the run. Null takes the method's published recipe."""

    epochs: float | None = Field(default=None, gt=0, description="how often the sets are gone through; or give steps")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps; or give epochs")
    batch_size: int = Field(ge=1, description="image sets per step, over all processes")
    base_learning_rate: float | None = Field(
        default=None, gt=0, description="per 256 sets: the peak rate is this times batch_size / 256"
    )
    learning_rate_end: float = Field(default=0.0, ge=0, description="rate at the end of the cosine")
    warmup_share: float | None = Field(default=None, ge=0, lt=1, description="share of the steps with a rising rate")
    weight_decay: float = Field(default=0.05, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    clip_norm: float | None = Field(default=None, gt=0, description="largest gradient norm; null clips nothing")
    ema_decay: float | None = Field(default=None, gt=0, lt=1, description="keep a moving average of the weights")

    @model_validator(mode="after")
    def _one_length(self) -> OptimizerParameters:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either 'steps' or 'epochs', and null for the other")
        return self


class PretrainParameters(Parameters):
    """The group `pretrain`."""

    method: Method = Field(description="a2mae, scale_mae or mae")
    seed: int = Field(ge=0, lt=2**63, description="decides weights, samples and masks")
    model: ModelParameters
    sampling: Annotated[SamplingSpec, _part(SamplingSpec)]
    optimizer: OptimizerParameters
    numerics: Annotated[NumericsSpec, _part(NumericsSpec)] = NumericsSpec()
    hardware: Annotated[HardwareSpec, _part(HardwareSpec)] = HardwareSpec()
    logging: Annotated[LoggingSpec, _part(LoggingSpec)] = LoggingSpec()

    @model_validator(mode="after")
    def _bounds(self) -> PretrainParameters:
        for part in ("sampling", "numerics", "hardware", "logging"):
            check_bounds(getattr(self, part), at=part)
        patch = self.model.patch_size
        if self.sampling.image_size % patch:
            near = max(patch, round(self.sampling.image_size / patch) * patch)
            raise ValueError(
                f"sampling.image_size ({self.sampling.image_size}) must be a multiple of model.patch_size ({patch}),"
                f" for example {near}"
            )
        return self


RECIPES: Mapping[str, tuple[float, float]] = {
    # base learning rate per 256 samples, warm-up share (METHOD sections 2 and 3; MAE: He et al. 2022, appendix A)
    "a2mae": (1e-5, 0.4),  # it starts from ImageNet-MAE weights: from scratch give a larger rate
    "scale_mae": (1.5e-4, 20 / 800),
    "mae": (1.5e-4, 40 / 800),
}
"""The published recipes."""


def resolve_optimizer(parameters: OptimizerParameters, method: str, sets: int) -> OptimizerSpec:
    """Fill in what is null and turn epochs into steps.

    Args:
        parameters: As configured.
        method: Whose recipe fills the gaps.
        sets: Image sets trained on.
    """
    base_rate, warmup_share = RECIPES[method]
    if parameters.base_learning_rate is not None:
        base_rate = parameters.base_learning_rate
    if parameters.warmup_share is not None:
        warmup_share = parameters.warmup_share
    steps = parameters.steps or max(1, round((parameters.epochs or 1) * sets / parameters.batch_size))
    return OptimizerSpec(
        learning_rate=base_rate * parameters.batch_size / 256,
        learning_rate_end=parameters.learning_rate_end,
        weight_decay=parameters.weight_decay,
        betas=parameters.betas,
        clip_norm=parameters.clip_norm,
        steps=steps,
        warmup_steps=min(int(warmup_share * steps), steps - 1),
        batch_size=parameters.batch_size,
        ema_decay=parameters.ema_decay,
    )
