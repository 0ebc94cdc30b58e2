"""Parameters of the `pretrain` stage.

The groups `sampling`, `numerics`, `hardware` and `logging` go into the run specification (`spec.py`) as they are;
`model` and `optimizer` are resolved there, since they depend on the method and on the number of image sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, PlainValidator, model_validator

from a2mae.config import NeededPath, Parameters, Precision
from a2mae.errors import InputError

Method = Literal["a2mae", "scale_mae", "mae", "satmae"]
"""The pretraining methods: names of `a2mae.models.create_model` start with one of them."""


def _option(value: object) -> object:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple) and all(isinstance(group, list | tuple) for group in value):
        groups = tuple(tuple(group) for group in value)
        if all(type(band) is int for group in groups for band in group):
            return groups
    raise InputError("must be a string, a number, a flag, or groups of band numbers such as [[0, 1], [2]]")


Option = Annotated[object, PlainValidator(_option)]
"""One field of a model's configuration: a scalar, or the band numbers of each group of bands (SatMAE)."""


Recipe = Literal["ours", "paper"]
RECIPES: Mapping[Recipe, Mapping[Method, Mapping[str, object]]] = {
    # Of our runs (docs/models.md says what differs and why).
    "ours": {
        "a2mae": {
            "encoding": "own",
            "masking": "anchor",
            "normalize_targets": False,
            "prediction_init": 0.05,
            "attention_init": "similar",
            "contrast_weight": 1.0,
        },
        "scale_mae": {"attention_init": "similar"},
        "mae": {"attention_init": "similar"},
        "satmae": {"attention_init": "similar"},
    },
    # What the publications do; the defaults of `a2mae.models`.
    "paper": {"a2mae": {}, "scale_mae": {}, "mae": {}, "satmae": {}},
}
"""Objective, encoding, masks and initial weights of each method, by recipe; sizes and rates are no part of it."""


class StrictParameters(Parameters):
    """A group whose values have their types exactly: the string "12" and the flag true are no numbers."""

    model_config = ConfigDict(strict=True)

    def replace(self, **changes: object) -> Self:
        """Give the same group with other values, checked again."""
        return type(self)(**{**dict(self), **changes})


class ModelParameters(Parameters):
    """Which network is trained."""

    size: Literal["tiny", "small", "base", "large"] = Field(
        description="ViT-T, -S, -B or -L; also sets the decoder's width"
    )
    patch_size: int = Field(ge=2, le=64, description="side of a patch, pixels")
    options: dict[str, Option] = Field(
        default_factory=dict,
        description="any field of the method's configuration (a2mae.models), over the recipe: embed_dim, masking, ...",
    )
    method_options: dict[Method, dict[str, Option]] = Field(
        default_factory=dict, description="likewise, but only for one method"
    )


class SamplingParameters(StrictParameters):
    """How a sample is drawn from an image set (docs/methods.md, A²-MAE)."""

    images: int = Field(
        default=3,
        ge=1,
        le=6,
        description="images per sample K, the first is the anchor; single images for Scale-MAE and MAE",
    )
    image_size: int = Field(default=224, ge=8, le=4096, description="side of every image after crop and resize, pixels")
    bands: Literal["draw", "rgb", "all"] = Field(
        default="draw",
        description="draw: `bands_drawn` of the sensor's bands in random order; rgb: red, green, blue; all: every band",
    )
    bands_drawn: int = Field(default=3, ge=1, description="bands drawn per image, without replacement")
    whole_probability: float = Field(
        default=0.5, ge=0, le=1, description="share of samples that take the whole footprint; the others take one crop"
    )
    crop_fraction_min: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="smallest side of a crop as a share of the footprint's, drawn uniformly up to 1",
    )
    anchor: Literal["random", "table"] = Field(
        default="random",
        description="random: any image of the set may be the anchor; table: the one tagged in the image table",
    )
    fallback: Literal["anchor", "other_date"] = Field(
        default="anchor",
        description="what stands in where the wanted sensor has no other image: `anchor`, image 1 again (as released);"
        " `other_date`, any image of the set that is not used yet, then image 1",
    )
    flips: bool = Field(
        default=False, description="mirror and transpose at random, the same for all images of a sample"
    )


class AdamWParameters(Parameters):
    """What the configured and the resolved optimiser have in common."""

    batch_size: int = Field(ge=1, description="image sets per step, over all processes")
    learning_rate_end: float = Field(default=0.0, ge=0, description="rate at the end of the cosine")
    weight_decay: float = Field(default=0.05, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=(0.9, 0.95), strict=False
    )
    clip_norm: float | None = Field(default=None, gt=0, description="largest gradient norm; null clips nothing")
    ema_decay: float | None = Field(default=None, gt=0, lt=1, description="keep a moving average of the weights")


class OptimizerParameters(AdamWParameters):
    """AdamW, its schedule and the length of the run. Null takes the method's published recipe."""

    epochs: float | None = Field(default=None, gt=0, description="how often the sets are gone through; or give steps")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps; or give epochs")
    base_learning_rate: float | None = Field(
        default=None, gt=0, description="per 256 sets: the peak rate is this times batch_size / 256"
    )
    warmup_share: float | None = Field(default=None, ge=0, lt=1, description="share of the steps with a rising rate")

    @model_validator(mode="after")
    def _one_length(self) -> OptimizerParameters:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either 'steps' or 'epochs', and null for the other")
        return self


class NumericsParameters(StrictParameters):
    """What changes the numbers that a step computes."""

    precision: Precision = Field(
        default="auto",
        description="bf16-mixed: bfloat16 autocast with weights and loss in fp32; auto: where it is faster",
    )
    compile: bool = Field(default=False, description="send the model through `torch.compile`")
    activation_checkpointing: bool = Field(
        default=False, description="compute the encoder's activations again in the backward pass, to save memory"
    )
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="samples per forward pass and process; fewer than the process's share accumulates gradients",
    )


class HardwareParameters(StrictParameters):
    """Where it runs. Nothing here changes which samples are seen, so a run may be continued on other hardware."""

    accelerator: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto takes a GPU where there is one"
    )
    devices: int = Field(default=1, ge=0, description="processes per machine; 0: one per GPU, or one on a CPU")
    nodes: int = Field(default=1, ge=1, description="machines")
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    threads: int = Field(
        default=0, ge=0, description="torch threads per process; 0: the machine's cores shared by its processes"
    )
    workers: int = Field(
        default=0, ge=0, description="loader processes per training process; 0: load in the training process"
    )
    timeout_s: int = Field(
        default=50, ge=1, description="how long a rank waits for the others, seconds; at the start up to ten minutes"
    )


class StartParameters(Parameters):
    """Which weights a training starts from (docs/weights.md)."""

    weights: NeededPath = Field(description="another run's model directory, or a file of published weights")
    decoder: Literal["fresh", "same"] = Field(
        default="fresh", description="same: the decoder of these weights too, which must fit as it is"
    )
    licence: str | None = Field(default=None, description="of these weights, for the model card: an SPDX id or words")


class TeacherParameters(Parameters):
    """A frozen encoder whose features of the anchor are an added target (docs/weights.md)."""

    file: NeededPath = Field(description="a model directory, or a local .safetensors or .pth file for `model`")
    model: str | None = Field(
        default=None, description="timm's name of the network that the file is of; null: file is a model directory"
    )
    weight: float = Field(default=1.0, gt=0, description="of 1 - cosine of the predicted and the teacher's feature")
    licence: str | None = Field(default=None, description="of the file, for the model card: an SPDX id or words")


class LoggingParameters(StrictParameters):
    """What is written while it runs."""

    interval: int = Field(
        default=10, ge=1, description="steps between two rows of metrics.csv: there the host waits for the device"
    )
    monitor_interval: int = Field(
        default=0, ge=0, description="steps between two measurements on the held-out sets; 0: only at the end"
    )
    checkpoint_interval: int = Field(
        default=200, ge=0, description="steps between two checkpoints; 0: only at the end and when stopped"
    )
    keep_checkpoints: int = Field(
        default=2, ge=1, description="how many of the newest stay; the best by the held-out loss stays too"
    )
    reconstructions: int = Field(default=6, ge=0, description="fixed sets shown in reconstructions.npz")
    wandb_project: str | None = Field(
        default=None, description="null: no W&B run. WANDB_MODE decides between offline and online"
    )


class PretrainParameters(Parameters):
    """The group `pretrain`."""

    method: Method
    recipe: Recipe = Field(
        default="ours",
        description="objective, encoding, masks and initial weights: of our runs (docs/recipe.md), or as published",
    )
    seed: int = Field(ge=0, lt=2**63, description="decides weights, samples and masks")
    model: ModelParameters
    start: StartParameters | None = Field(default=None, description="weights to start from; null: random ones")
    teacher: TeacherParameters | None = Field(default=None, description="an encoder to learn from; null: none")
    sampling: SamplingParameters
    optimizer: OptimizerParameters
    numerics: NumericsParameters = NumericsParameters()
    hardware: HardwareParameters = HardwareParameters()
    logging: LoggingParameters = LoggingParameters()

    @property
    def model_name(self) -> str:
        """The name of `create_model`."""
        return f"{self.method}_vit_{self.model.size}_patch{self.model.patch_size}"

    @property
    def model_options(self) -> dict[str, object]:
        """Fields of the method's configuration: the recipe's, over them `model.options`, then those of the method."""
        own = self.model.method_options.get(self.method, {})
        return {**RECIPES[self.recipe][self.method], **self.model.options, **own}

    @model_validator(mode="after")
    def _who_can_be_taught(self) -> PretrainParameters:
        if self.teacher is not None and self.method not in ("a2mae", "mae"):
            raise ValueError(f"teacher: a2mae and mae learn from one, found method {self.method}")
        return self

    @model_validator(mode="after")
    def _whole_patches(self) -> PretrainParameters:
        size, patch = self.sampling.image_size, self.model.patch_size
        if size % patch:
            raise ValueError(
                f"sampling.image_size ({size}) must be a multiple of model.patch_size ({patch}),"
                f" for example {max(patch, round(size / patch) * patch)}"
            )
        return self
