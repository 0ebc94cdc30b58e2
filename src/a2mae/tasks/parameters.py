"""Parameters of tasks, evaluation and embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from a2mae.config import OnDiskPath, Parameters, Precision, RegistrationParameters, WorkerParameters
from a2mae.tasks.data_parameters import DataParameters, InputParameters
from a2mae.tasks.registry import Task

Loss = Literal["cross_entropy", "focal", "dice", "cross_entropy_dice", "huber", "mse"]
Layers = Literal["last", "middle", "joined"]
Pool = Literal["cls", "mean", "mean_std"]
POOLS: tuple[Pool, ...] = get_args(Pool)


class EncoderParameters(Parameters):
    """An encoder that this run did not pretrain, from this machine's disk."""

    weights: OnDiskPath = Field(
        description="a model directory of this project, or a local .safetensors or .pth file for `model`"
    )
    model: str | None = Field(
        None, description="timm's name of the network that the file is of; null: weights is a model directory"
    )
    licence: str | None = Field(None, description="of the weights, as you know it; it is written beside the results")
    normalisation: Literal["data", "timm"] = Field(
        "data", description="mean and deviation of the training split, or timm's own, which are of 8-bit pictures"
    )
    mean: tuple[float, ...] = Field((), description="per band in the data's units, instead of normalisation")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field((), description="likewise")
    size_px: int | Literal["timm"] | None = Field(
        None,
        description="samples are resized to this side, and rasters by the same factor; timm: to that of its published"
        " weights; null: as they are",
    )

    @field_validator("size_px")
    @classmethod
    def _size_is_one(cls, size_px: int | str | None) -> int | str | None:
        if isinstance(size_px, int) and not 8 <= size_px <= 4096:
            raise ValueError(f"size_px must lie between 8 and 4096 pixels, found {size_px}")
        return size_px

    @model_validator(mode="after")
    def _inputs_are_of_a_network_of_timm(self) -> EncoderParameters:
        if self.weights is None:
            raise ValueError("weights must name a model directory, or a file of weights for `model`")
        stated = [key for key in ("normalisation", "mean", "std", "size_px") if key in self.model_fields_set]
        if self.model is None and stated:
            raise ValueError(f"{stated[0]} is of a network of timm (model): a model directory has its own inputs")
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std must be equally many, one per band, found {len(self.mean)} and {len(self.std)}"
            )
        if self.mean and "normalisation" in self.model_fields_set:
            raise ValueError("state normalisation, or mean and std, not both")
        return self


class FinetuneParameters(Parameters):
    """One training recipe, used for the pretrained encoder and the random_init baseline alike."""

    mode: Literal["full", "frozen", "lora"] = Field(
        "full", description="train all; the head only; or the head and low-rank updates of the attention"
    )
    lora_rank: int = Field(8, ge=1, description="rank of the updates; only for mode lora")
    steps: int = Field(200, ge=1, description="fixed number of optimiser steps")
    batch_size: int = Field(32, ge=2, le=65_536, description="samples per step")
    lr: float = Field(1e-3, gt=0, description="AdamW, of the last block; earlier ones less by layer_decay")
    lr_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="rates to try instead of lr: the best on validation is kept, for every start on its own"
    )
    val_checks: int = Field(
        0, ge=0, le=100, description="looks at the validation split, evenly spaced: the best state is kept; 0: the last"
    )
    head_lr_scale: float = Field(
        1.0, gt=0, description="learning rate factor of everything but the encoder: a new head has more to learn"
    )
    layer_decay: float = Field(0.75, gt=0, le=1, description="learning rate factor per block towards the input")
    weight_decay: float = Field(0.05, ge=0, description="AdamW")
    warmup_steps: int = Field(20, ge=0, description="linear, then half a cosine")
    clip_grad: float = Field(1.0, gt=0, description="largest gradient norm")
    loss: Loss | None = Field(
        None, description="focal, dice and cross_entropy_dice: for rare classes; values: huber, mse; null: the first"
    )
    log_targets: bool = Field(
        False, description="values: learn log(1 + value), for what spans orders of magnitude and is not negative"
    )
    class_weight_power: float = Field(
        0.0, ge=0, le=1, description="lift rare classes: weight = (1 / frequency) ** power; 0 is off"
    )
    augment: bool = Field(True, description="flips and quarter turns")
    precision: Precision = Field(
        "auto",
        description="of training, scores and maps; bf16-mixed: bfloat16, weights and loss in fp32; auto: where faster",
    )


def _check_overlap(tile_px: int, overlap_px: int) -> None:
    """Refuse windows that advance by little: their number grows with the square of what is shared."""
    if 2 * overlap_px > tile_px:
        raise ValueError(f"overlap_px is half of tile_px at most, {tile_px // 2} of {tile_px}, found {overlap_px}")


class MapParameters(Parameters):
    """A map of a whole raster by a finetuned model."""

    moved: ClassVar[Mapping[str, str]] = {"cloud_buffer_m": "coregister.clouds.buffer_m, for store and maps"}

    raster: OnDiskPath = Field(
        None, description="path of a GeoTIFF or COG with the bands; null: a scene of the scene table"
    )
    raster_before: OnDiskPath = Field(None, description="change: the earlier date, with `raster` and never without")
    scene_ids: tuple[str, ...] = Field(
        (), description="instead of a raster: scenes of the scene table as a mosaic, the first on top"
    )
    scene_ids_before: tuple[str, ...] = Field(
        (), description="change: those of the earlier date, with `scene_ids` and never without"
    )
    registration: RegistrationParameters = Field(
        default_factory=lambda: RegistrationParameters.model_validate({}),
        description="change: how the later date is moved onto the earlier one",
    )
    mask_clouds: bool = Field(
        True, description="clouds of a scene of the scene table are nodata, told as `coregister.clouds` says"
    )
    probabilities: bool = Field(
        False, description="also write map_probabilities.tif: a band per class, uint8 with a scale of 1/250"
    )
    sensor: str | None = Field(None, description="whose raster it is; null: the first sensor of the task's data")
    tile_px: int = Field(192, ge=16, le=4096, description="side of a window, pixels; rounded down to whole patches")
    overlap_px: int = Field(32, ge=0, description="shared by neighbouring windows and blended, half a window at most")
    batch_size: int = Field(8, ge=1, le=65_536, description="windows per forward pass")

    @model_validator(mode="after")
    def _windows_advance(self) -> MapParameters:
        _check_overlap(self.tile_px, self.overlap_px)
        return self


class TaskParameters(WorkerParameters):
    """A task: data, bands, head and recipe."""

    moved: ClassVar[Mapping[str, str]] = {"inputs": "data.archive.inputs, or data.simulated.inputs"}

    task: Task = Field(description="what is predicted")
    seed: int = Field(
        0, ge=0, lt=2**63, description="order, augmentation, initial weights of the head and of random_init"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …")
    threads: int = Field(
        0,
        ge=0,
        description="of torch and BLAS, they decide bytes; 0: as many as there are cores, 1 in each of several workers",
    )
    start: EncoderParameters | None = Field(
        None, description="the encoder to start from; null: the one that this run has pretrained"
    )
    bands: tuple[str, ...] = Field(
        ("red", "green", "blue"),
        min_length=1,
        description="what the encoder sees, view after view of as many as it takes at once",
    )
    location: bool = Field(
        False, description="tell the encoder where an image lies; a held-out place's code is new to it"
    )
    head: Literal["linear", "mean", "attentive", "rcf", "conv", "upernet", "detail"] = Field(
        "linear", description="see tasks/finetune/heads.py"
    )
    fusion: Literal["difference", "concat", "difference_concat", "attention"] = Field(
        "difference_concat", description="change: how the two dates are joined"
    )
    symmetric: bool = Field(
        False, description="answers, scores and maps: the mean over flips and quarter turns, eight times the work"
    )
    twin: bool = Field(
        True, description="also train random_init, the same architecture from random weights; false: half the time"
    )
    data: DataParameters = Field(
        default_factory=lambda: DataParameters.model_validate({}), description="where samples come from"
    )
    finetune: FinetuneParameters = Field(
        default_factory=lambda: FinetuneParameters.model_validate({}), description="the recipe"
    )
    map: MapParameters = Field(
        default_factory=lambda: MapParameters.model_validate({}), description="labels per pixel: map of a raster"
    )
    bootstrap: int = Field(1000, ge=100, le=100_000, description="resamples behind every 95 % interval")
    pictures: int = Field(8, ge=0, le=64, description="test samples kept as pictures for the report")

    @model_validator(mode="after")
    def _head_fits_task(self) -> TaskParameters:
        heads = self.task.kind.heads
        if self.head not in heads:
            raise ValueError(f"{self.task}: head must be one of {', '.join(heads)}, found '{self.head}'")
        return self

    @model_validator(mode="after")
    def _location_is_read(self) -> TaskParameters:
        if self.location and self.start is not None and self.start.model is not None:
            raise ValueError(f"location: true is read by encoders of this project, and {self.start.model} is timm's")
        return self

    @model_validator(mode="after")
    def _recipe_fits_task(self) -> TaskParameters:
        kind, recipe, data = self.task.kind, self.finetune, self.data
        if recipe.loss is not None and recipe.loss not in kind.losses:
            raise ValueError(
                f"{self.task}: finetune.loss must be one of {', '.join(kind.losses)}, found '{recipe.loss}'"
            )
        of_values = {"finetune.log_targets": recipe.log_targets, "data.units": bool(data.units)}
        of_classes = {
            "finetune.class_weight_power": recipe.class_weight_power > 0,
            "map.probabilities": self.map.probabilities,
            **{f"data.{key}": bool(getattr(data, key)) for key in ("class_names", "class_values", "class_colors")},
        }
        stated = [key for key, found in (of_classes if kind.values else of_values).items() if found]
        if stated:
            labels, not_so = ("values", "classes") if kind.values else ("classes", "values")
            raise ValueError(f"{self.task}: labels are {labels}, and {', '.join(stated)} is of {not_so}: leave it out")
        return self

    @property
    def per_pixel(self) -> bool:
        """Whether labels and answers are of pixels; else they are of whole images."""
        return self.task.kind.answers_pixels(self.head)

    @model_validator(mode="after")
    def _maps_of_change_have_two_dates(self) -> TaskParameters:
        for key in ("raster", "scene_ids"):
            later, earlier = getattr(self.map, key), getattr(self.map, f"{key}_before")
            if self.task.kind.dates == 2 and bool(later) != bool(earlier):
                missing = f"{key}_before" if later else key
                raise ValueError(f"a change map needs two dates: set {self.task}.map.{missing}, too")
        return self


class OtherEncoderParameters(EncoderParameters):
    """An encoder of another run or project under its name."""

    moved: ClassVar[Mapping[str, str]] = {"kind": "model to timm's name, or leave it away for a model directory"}

    name: str = Field(min_length=1, description="of the score table's column 'model'")


class EvaluateParameters(Parameters):
    """Frozen encoders scored by kNN and linear probe."""

    seed: int = Field(0, ge=0, lt=2**63, description="of the random-initialised encoder, few-shot draws and bootstrap")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …")
    threads: int = Field(0, ge=0, description="of torch and BLAS, they decide bytes; 0: as many as there are cores")
    folder: OnDiskPath = Field(None, description="also score on this folder per class, for example EuroSAT; null: not")
    format: str = Field("rgb_bytes", description="what the folder's files hold: rgb_bytes, eurosat_ms, or a sensor id")
    folder_samples: int | None = Field(None, ge=100, description="use this many files of the folder; null: all")
    bands: tuple[str, ...] = Field(("red", "green", "blue"), min_length=1, description="what the encoders see")
    location: bool = Field(
        False, description="tell the encoder where an image lies; a held-out place's code is new to it"
    )
    pool: Pool = Field(
        "cls", description="an encoder's vector: CLS token, mean of the patch tokens, or their mean and deviation"
    )
    precision: Precision = Field("auto", description="of the encoders; auto: bfloat16 where it is faster, else fp32")
    layers: tuple[Layers, ...] = Field(
        ("last",),
        min_length=1,
        description="ways to read an encoder: its last block, its middle one, or first, middle and last joined; of"
        " several, the best by kNN on validation images",
    )
    encoders: tuple[Literal["pretrained", "random", "rcf", "statistics", "histogram", "pixels"], ...] = Field(
        ("pretrained", "random", "rcf", "statistics", "histogram", "pixels"),
        min_length=1,
        description="what is compared; rcf: random convolution features, the bar that training has to clear",
    )
    others: tuple[OtherEncoderParameters, ...] = Field((), description="further encoders, from this machine's disk")
    k: int = Field(20, ge=1, description="neighbours")
    standardised: bool = Field(
        True, description="kNN also on features standardised by the training images: mode knn_standardised"
    )
    relative_gsd: tuple[float, ...] = Field(
        (0.125, 0.25, 0.5, 1.0), min_length=1, description="image size relative to native, Scale-MAE's protocol"
    )
    c_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.001, 0.01, 0.1, 1.0), min_length=1, description="linear probe: inverse regularisation, chosen on validation"
    )
    shots: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 5, 10), description="few-shot probes: labels per class; empty: none"
    )
    shot_seeds: int = Field(5, ge=1, description="few-shot: draws of the labels")
    batch_size: int = Field(64, ge=1, le=65_536, description="images per forward pass")
    bootstrap: int = Field(1000, ge=100, le=100_000, description="resamples behind every 95 % interval")

    @model_validator(mode="after")
    def _the_class_token_is_of_the_last_block(self) -> EvaluateParameters:
        if self.pool == "cls" and self.layers != ("last",):
            raise ValueError(
                f"evaluate.layers: {', '.join(self.layers)} needs patch tokens, and evaluate.pool is cls, which is the"
                " last block's: set pool to mean or mean_std, or layers to [last]"
            )
        return self

    @model_validator(mode="after")
    def _scales_make_sense(self) -> EvaluateParameters:
        if any(not 0 < scale <= 1 for scale in self.relative_gsd) or 1.0 not in self.relative_gsd:
            raise ValueError(f"relative_gsd must lie in (0, 1] and hold 1.0, found {list(self.relative_gsd)}")
        return self

    @model_validator(mode="after")
    def _every_encoder_has_a_name_of_its_own(self) -> EvaluateParameters:
        names = [*self.encoders, *(entry.name for entry in self.others)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"evaluate.others and evaluate.encoders: {', '.join(map(repr, twice))} is named twice, and the score"
                " table has one row per name: choose another"
            )
        return self


class EmbedParameters(WorkerParameters):
    """Embeddings of a whole raster, and of every image of the archive."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …")
    threads: int = Field(
        0,
        ge=0,
        description="of torch and BLAS, they decide bytes; 0: as many as there are cores, 1 in each of several workers",
    )
    raster: OnDiskPath = Field(
        None, description="path of a GeoTIFF or COG with the bands; null: a scene of the scene table"
    )
    scene_ids: tuple[str, ...] = Field(
        (), description="instead of a raster: scenes of the scene table as a mosaic, the first on top"
    )
    mask_clouds: bool = Field(
        True, description="clouds of a scene of the scene table are nodata, told as `coregister.clouds` says"
    )
    sensor: str = Field("sentinel-2-l2a", description="whose raster it is: bands, units and normalisation")
    scale: float | None = Field(
        None, gt=0, description="of `raster`, physical units per count; null: the file's own, else the sensor's"
    )
    offset: float | None = Field(
        None, description="of `raster`, physical value of a stored zero; null: the file's own, else the sensor's"
    )
    bands: tuple[str, ...] = Field(
        ("red", "green", "blue"),
        min_length=1,
        description="what the encoder sees, view after view of as many as it takes at once",
    )
    location: bool = Field(False, description="tell the encoder where an image lies")
    precision: Precision = Field("auto", description="of the encoder; auto: bfloat16 where it is faster, else fp32")
    pool: Pool = Field(
        "mean_std", description="archive: an image's vector: CLS token, mean of the patch tokens, or mean and deviation"
    )
    inputs: InputParameters = Field(
        default_factory=lambda: InputParameters.model_validate({}),
        description="archive: images that a set's vector is read from in one sequence; images 1: the mean of theirs",
    )
    tile_px: int = Field(192, ge=16, le=4096, description="side of a window, pixels; rounded down to whole patches")
    overlap_px: int = Field(32, ge=0, description="shared by neighbouring windows and blended, half a window at most")
    batch_size: int = Field(8, ge=1, le=65_536, description="windows per forward pass")
    block_patches: int = Field(4, ge=1, description="side of a block with one row in the table, patches")
    quantise: bool = Field(False, description="embeddings as int8 with a scale per band, or per vector of the archive")

    @model_validator(mode="after")
    def _windows_advance(self) -> EmbedParameters:
        _check_overlap(self.tile_px, self.overlap_px)
        return self

    @model_validator(mode="after")
    def _encoding_is_of_a_raster(self) -> EmbedParameters:
        stated = [name for name in ("scale", "offset") if getattr(self, name) is not None]
        if stated and self.raster is None:
            raise ValueError(
                f"embed.{stated[0]} is of embed.raster, and that is null: scenes of the scene table bring their own;"
                " name a raster, or leave it null"
            )
        return self
