"""The run specification: all that a training run is made of, resolved, in one `spec.json`.

The `pretrain` node (or a person) writes it; `python -m a2mae.training RUN_DIR` reads it and nothing else. Paths are
relative to the run directory, so that a tree of data and models can be moved and two machines write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from a2mae.config import ComputePrecision, problems_of
from a2mae.errors import InputError
from a2mae.files import write_json
from a2mae.training.parameters import (
    AdamWParameters,
    HardwareParameters,
    LoggingParameters,
    Method,
    NumericsParameters,
    OptimizerParameters,
    Option,
    PretrainParameters,
    SamplingParameters,
    StrictParameters,
)

FORMAT_VERSION = 1
SPEC_FILE, ERROR_FILE, MODEL_DIR = "spec.json", "error.json", "model"
"""Of a run directory: what is run, why it failed, and the finished model."""


class SpecificationError(InputError):
    """A run specification that cannot be meant; the message names the place, what was found and what is expected."""


class ModelSpec(StrictParameters):
    """Which model: a name of `a2mae.models.create_model` and its keyword arguments."""

    name: str
    options: dict[str, Option] = Field(default_factory=dict)


class StartSpec(StrictParameters):
    """Which weights the model starts from, pinned by content."""

    weights: str = Field(description="file or model directory, relative to the run directory")
    sha256: str = Field(description="of that file; of a directory: `a2mae.models.sources.weights_digest`")
    decoder: Literal["fresh", "same"] = "fresh"
    licence: str | None = None


class TeacherSpec(StrictParameters):
    """A frozen encoder to learn from, pinned by content."""

    file: str = Field(description="file or model directory, relative to the run directory")
    sha256: str = Field(description="of that file; of a directory: `a2mae.models.sources.weights_digest`")
    model: str | None = Field(default=None, description="timm's name; null: a model directory")
    weight: float = Field(gt=0)
    width: int = Field(ge=1, description="of its features")
    licence: str | None = None


class SensorSpec(StrictParameters):
    """One sensor: its bands and how they are normalised, in the store's order and in physical units."""

    id: str
    bands: tuple[str, ...] = Field(min_length=1, strict=False)
    mean: tuple[float, ...] = Field(strict=False)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(strict=False)

    @model_validator(mode="after")
    def _one_value_per_band(self) -> SensorSpec:
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise ValueError(
                f"sensor {self.id!r}: {len(self.bands)} bands need as many means and standard deviations,"
                f" found {len(self.mean)} and {len(self.std)}"
            )
        return self


class DataSpec(StrictParameters):
    """Where the samples come from, pinned by content."""

    store: str = Field(description="image-set store: a path relative to the run directory, or a URL with a scheme")
    store_hash: str = Field(description="the store's manifest hash when the specification was written")
    index: str = Field(description="NumPy index of the sets, relative to the run directory")
    index_hash: str = Field(description="SHA-256 of that file")
    sensors: tuple[SensorSpec, ...] = Field(
        min_length=1, strict=False, description="in the order of `ImageSetBatch.sensor_id`"
    )

    @model_validator(mode="after")
    def _each_sensor_once(self) -> DataSpec:
        ids = [sensor.id for sensor in self.sensors]
        if len(set(ids)) != len(ids):
            raise ValueError(f"'sensors' names a sensor twice: {ids}")
        return self


class OptimizerSpec(AdamWParameters, StrictParameters):
    """AdamW and its schedule: linear warm-up, then half a cosine to `learning_rate_end`."""

    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(gt=0)
    steps: int = Field(default=1000, ge=1)
    warmup_steps: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _warm_up_ends(self) -> OptimizerSpec:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"'warmup_steps' ({self.warmup_steps}) must be fewer than 'steps' ({self.steps})")
        return self


class NumericsSpec(NumericsParameters):
    """What changes the numbers that a step computes; the precision is decided."""

    precision: ComputePrecision = "32-true"


class RunSpec(StrictParameters):
    """One training run, resolved."""

    method: Method
    model: ModelSpec
    start: StartSpec | None = None
    teacher: TeacherSpec | None = None
    data: DataSpec
    sampling: SamplingParameters
    optimizer: OptimizerSpec
    numerics: NumericsSpec = NumericsSpec()
    hardware: HardwareParameters = HardwareParameters()
    logging: LoggingParameters = LoggingParameters()
    seed: int = Field(default=0, ge=0, lt=2**63)
    code_commit: str = "unknown"
    format_version: int = FORMAT_VERSION

    @model_validator(mode="after")
    def _known_format(self) -> RunSpec:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"'format_version' is {self.format_version}, this code reads {FORMAT_VERSION}: write the run again"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Write a run without start or teacher as it was before there were such: its identity stays."""
        content: dict[str, object] = handler(self)
        absent = [name for name in ("start", "teacher") if getattr(self, name) is None]
        return {name: value for name, value in content.items() if name not in absent}

    @property
    def channels(self) -> int:
        """Bands per image that the model sees; with `all`, sensors with fewer are filled up with absent bands."""
        if self.sampling.bands == "all":
            return max(len(sensor.bands) for sensor in self.data.sensors)
        return 3 if self.sampling.bands == "rgb" else self.sampling.bands_drawn

    @property
    def model_options(self) -> dict[str, object]:
        """The keyword arguments of `create_model`: the model's options, its bands, and its teacher's width."""
        taught: dict[str, object] = {}
        if self.teacher is not None:
            taught = {"teacher_width": self.teacher.width, "teacher_weight": self.teacher.weight}
        return {"in_chans": self.channels, **taught, **self.model.options}

    @property
    def sampled_size(self) -> int:
        """Side of the images that are read, pixels: Scale-MAE's target is twice as fine as its input."""
        return self.sampling.image_size * (2 if self.method == "scale_mae" else 1)

    @property
    def identity(self) -> str:
        """SHA-256 of all that decides the weights: two runs with the same identity may continue one another.

        Hardware, logging and the code's commit are left out: a run may go on elsewhere and be watched more closely.
        So are the places of the store, of the weights to start from and of a teacher, whose content is hashed, and the
        licences.
        """
        content = self.model_dump(
            mode="json",
            exclude={
                "hardware": True,
                "logging": True,
                "code_commit": True,
                "data": {"store"},
                "start": {"weights", "licence"},
                "teacher": {"file", "licence"},
            },
        )
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def write(self, run_dir: Path) -> None:
        """Write `spec.json` atomically into the run directory."""
        write_json(run_dir / SPEC_FILE, self.model_dump(mode="json"))

    def in_precision(self, precision: ComputePrecision) -> RunSpec:
        """Give the same run in another precision."""
        return self.replace(numerics=self.numerics.replace(precision=precision))

    def with_hardware(self, **changes: object) -> RunSpec:
        """Give the same run on other hardware.

        Args:
            **changes: Fields of `HardwareParameters`.

        Raises:
            SpecificationError: If a value cannot be meant.
        """
        try:
            return self.replace(hardware=self.hardware.replace(**changes))
        except ValidationError as error:
            raise SpecificationError(f"hardware: {problems_of(error)}") from error


def read_spec(run_dir: Path) -> RunSpec:
    """Read `spec.json` of a run directory.

    Raises:
        SpecificationError: If it is absent, not JSON, or not understood; the message names the place.
    """
    path = run_dir / SPEC_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpecificationError(
            f"{run_dir} is no run directory: it has no {SPEC_FILE}. `kedro run --pipelines=pretrain` writes one"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SpecificationError(f"{path} is not JSON: {error}") from error
    try:
        return RunSpec.model_validate(data)
    except ValidationError as error:
        raise SpecificationError(f"{path}: {problems_of(error)}") from error


def identity_begun(run_dir: Path) -> str:
    """Return the identity of the run that a directory holds; empty where it holds none that is read."""
    try:
        return read_spec(run_dir).identity
    except SpecificationError:
        return ""


RATES: Mapping[Method, tuple[float, float]] = {
    # Base learning rate per 256 samples, warm-up share (docs/methods.md; MAE: He et al. 2022, appendix A; SatMAE: its
    # repository's command for dates).
    "a2mae": (1e-5, 0.4),  # it starts from ImageNet-MAE weights: from scratch give a larger rate
    "scale_mae": (1.5e-4, 20 / 800),
    "mae": (1.5e-4, 40 / 800),
    "satmae": (1.5e-4, 40 / 100),
}
"""As published."""


def resolve(
    parameters: PretrainParameters,
    data: DataSpec,
    *,
    sets: int,
    code_commit: str,
    precision: ComputePrecision,
    start: StartSpec | None = None,
    teacher: TeacherSpec | None = None,
) -> RunSpec:
    """Specify the run that the parameters ask for.

    Args:
        parameters: The group `pretrain`.
        data: What it is trained on.
        sets: Image sets trained on.
        code_commit: For the description of the model.
        precision: That which `parameters.numerics.precision` comes to.
        start: What `parameters.start` names, hashed.
        teacher: What `parameters.teacher` names, hashed.
    """
    method = parameters.method
    return RunSpec(
        method=method,
        model=ModelSpec(
            name=parameters.model_name,
            options=parameters.model_options,
        ),
        start=start,
        teacher=teacher,
        data=data,
        sampling=parameters.sampling,
        optimizer=resolve_optimizer(parameters.optimizer, method, sets),
        numerics=NumericsSpec(**{**parameters.numerics.model_dump(), "precision": precision}),
        hardware=parameters.hardware,
        logging=parameters.logging,
        seed=parameters.seed,
        code_commit=code_commit,
    )


def resolve_optimizer(parameters: OptimizerParameters, method: Method, sets: int) -> OptimizerSpec:
    """Fill in what is null and turn epochs into steps.

    Args:
        parameters: As configured.
        method: Whose published rate and warm-up fill the gaps.
        sets: Image sets trained on.
    """
    base_rate, warmup_share = RATES[method]
    if parameters.base_learning_rate is not None:
        base_rate = parameters.base_learning_rate
    if parameters.warmup_share is not None:
        warmup_share = parameters.warmup_share
    steps = parameters.steps or max(1, round((parameters.epochs or 1) * sets / parameters.batch_size))
    return OptimizerSpec(
        **{name: getattr(parameters, name) for name in AdamWParameters.model_fields},
        learning_rate=base_rate * parameters.batch_size / 256,
        steps=steps,
        warmup_steps=min(int(warmup_share * steps), steps - 1),
    )


def check_unchanged(path: Path, found: str, stated: str, key: str) -> None:
    """Check that a file is the one that a run was specified with.

    Args:
        path: Of the file.
        found: SHA-256 of its content.
        stated: That of the specification.
        key: Of the specification, for the message.

    Raises:
        SpecificationError: If they differ.
    """
    if found != stated:
        raise SpecificationError(
            f"{path} has changed since this run was specified: its SHA-256 is {found[:12]}…, '{key}.sha256' says"
            f" {stated[:12]}…. Run the pretrain stage again, or restore the file"
        )


def resolve_url(run_dir: Path, url: str) -> str:
    """Give the store's address as seen from here: a URL stays, a relative path starts at the run directory."""
    return url if "://" in url else os.path.normpath(run_dir.resolve() / url)


def relative_url(run_dir: Path, url: str) -> str:
    """Give the store's address as written into `spec.json`; the inverse of `resolve_url`."""
    return url if "://" in url else os.path.relpath(Path(url).resolve(), run_dir.resolve())
