"""The run specification: everything that a training run is made of, resolved, in one `spec.json`.

The `pretrain` node (or a person) writes it; `python -m a2mae.training RUN_DIR` reads it and nothing else. Paths are
relative to the run directory, so that a tree of data and models can be moved and two machines write the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from a2mae.files import write_json
from a2mae.training.strict_json import Scalar, SpecificationError, check_bounds, from_json, to_json

FORMAT_VERSION = 1
SPEC_FILE = "spec.json"

Method = Literal["a2mae", "scale_mae", "mae"]


@dataclass(frozen=True)
class ModelSpec:
    """Which model: a name of `a2mae.models.create_model` and its keyword arguments."""

    name: str
    options: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class SensorSpec:
    """One source: its bands and how they are normalised, in the store's order and physical units."""

    id: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...] = field(metadata={"gt": 0})

    def __post_init__(self) -> None:
        """Refuse statistics that do not match the bands."""
        if not self.bands or not len(self.bands) == len(self.mean) == len(self.std):
            raise SpecificationError(
                f"sensor {self.id!r}: {len(self.bands)} bands need as many means and standard deviations,"
                f" found {len(self.mean)} and {len(self.std)}"
            )


@dataclass(frozen=True)
class DataSpec:
    """Where the samples come from, pinned by content.

    Attributes:
        store: Image-set store: a path relative to the run directory, or a URL with a scheme.
        store_hash: The store's manifest hash when the specification was written.
        index: NumPy index of the sets, relative to the run directory.
        index_hash: SHA-256 of that file.
        sensors: The sources, in the order of `ImageSetBatch.sensor_id`.
    """

    store: str
    store_hash: str
    index: str
    index_hash: str
    sensors: tuple[SensorSpec, ...]


@dataclass(frozen=True)
class SamplingSpec:
    """How a sample is drawn from a set (METHOD section 2).

    Attributes:
        images: Images per sample K; image 1 is the anchor. Methods for single images take them as K samples.
        image_size: Side of every image after crop and resize, pixels.
        bands: `draw`: `bands_drawn` of the sensor's bands in random order; `rgb`: red, green, blue; `all`: every band.
        bands_drawn: Bands drawn per image, without replacement.
        whole_probability: Share of samples that take the whole footprint; the others take one crop.
        crop_fraction_min: Smallest side of a crop as a share of the footprint's side; drawn uniformly up to 1.
        anchor: `random`: any image of the set may be the anchor; `table`: the one tagged in the image table.
        fallback: What stands in where the wanted source has no other image: `anchor` (image 1 again, as released) or
            `other_date` (any image of the set not used yet, then image 1).
        flips: Whether samples are mirrored and transposed at random (the same for all K images).
    """

    images: int = field(default=3, metadata={"ge": 1, "le": 6})
    image_size: int = field(default=224, metadata={"ge": 8, "le": 4096})
    bands: Literal["draw", "rgb", "all"] = "draw"
    bands_drawn: int = field(default=3, metadata={"ge": 1})
    whole_probability: float = field(default=0.5, metadata={"ge": 0, "le": 1})
    crop_fraction_min: float = field(default=0.25, metadata={"gt": 0, "le": 1})
    anchor: Literal["random", "table"] = "random"
    fallback: Literal["anchor", "other_date"] = "anchor"
    flips: bool = False


@dataclass(frozen=True)
class OptimizerSpec:
    """AdamW and its schedule: linear warm-up, then half a cosine to `learning_rate_end`."""

    learning_rate: float = field(metadata={"gt": 0})
    learning_rate_end: float = field(default=0.0, metadata={"ge": 0})
    weight_decay: float = field(default=0.05, metadata={"ge": 0})
    betas: tuple[float, float] = field(default=(0.9, 0.95), metadata={"ge": 0, "lt": 1})
    clip_norm: float | None = field(default=None, metadata={"gt": 0})
    steps: int = field(default=1000, metadata={"ge": 1})
    warmup_steps: int = field(default=0, metadata={"ge": 0})
    batch_size: int = field(default=64, metadata={"ge": 1})
    ema_decay: float | None = field(default=None, metadata={"gt": 0, "lt": 1})


@dataclass(frozen=True)
class NumericsSpec:
    """What changes the numbers a step computes.

    Attributes:
        precision: `32-true`, or `bf16-mixed`: bfloat16 autocast with weights and loss in fp32.
        compile: Whether the model goes through `torch.compile`.
        activation_checkpointing: Recompute the encoder's activations in the backward pass to save memory.
        micro_batch_size: Samples per forward pass and process; smaller than the process's share means accumulation.
    """

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    activation_checkpointing: bool = False
    micro_batch_size: int | None = field(default=None, metadata={"ge": 1})


@dataclass(frozen=True)
class HardwareSpec:
    """Where it runs. Nothing here changes which samples are seen, so a run may be continued on other hardware.

    Attributes:
        accelerator: `auto` takes a GPU where there is one.
        devices: Processes per machine; 0 = every GPU there is (or one process on a CPU).
        nodes: Machines.
        strategy: `auto`, `ddp` or `fsdp`.
        threads: Torch threads per process; 0 = the cores of this machine divided by its processes.
        workers: Loader processes per training process; 0 = load in the training process.
        timeout_s: How long a rank waits for the others before it gives up; at the start, up to ten minutes.
    """

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = field(default=1, metadata={"ge": 0})
    nodes: int = field(default=1, metadata={"ge": 1})
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    threads: int = field(default=0, metadata={"ge": 0})
    workers: int = field(default=0, metadata={"ge": 0})
    timeout_s: int = field(default=50, metadata={"ge": 1})


@dataclass(frozen=True)
class LoggingSpec:
    """What is written while it runs.

    Attributes:
        interval: Steps between two rows of `metrics.csv`; the only steps on which the host waits for the device.
        monitor_interval: Steps between two measurements on the held-out sets (features, kNN); 0 = only at the end.
        checkpoint_interval: Steps between two checkpoints; 0 = only at the end and when stopped.
        keep_checkpoints: How many of the newest checkpoints stay; the best by the held-out loss stays too.
        reconstructions: Fixed sets shown in `reconstructions.npz`.
        wandb_project: W&B project; null writes no W&B run. `WANDB_MODE` decides between offline and online.
    """

    interval: int = field(default=10, metadata={"ge": 1})
    monitor_interval: int = field(default=0, metadata={"ge": 0})
    checkpoint_interval: int = field(default=200, metadata={"ge": 0})
    keep_checkpoints: int = field(default=2, metadata={"ge": 1})
    reconstructions: int = field(default=6, metadata={"ge": 0})
    wandb_project: str | None = None


@dataclass(frozen=True)
class RunSpec:
    """One training run, resolved."""

    method: Method
    model: ModelSpec
    data: DataSpec
    sampling: SamplingSpec
    optimizer: OptimizerSpec
    numerics: NumericsSpec = NumericsSpec()
    hardware: HardwareSpec = HardwareSpec()
    logging: LoggingSpec = LoggingSpec()
    seed: int = field(default=0, metadata={"ge": 0, "lt": 2**63})
    code_commit: str = "unknown"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Refuse combinations that cannot be meant."""
        check_bounds(self)
        if self.format_version != FORMAT_VERSION:
            raise SpecificationError(
                f"'format_version' is {self.format_version}, this code reads {FORMAT_VERSION}: write the run again"
            )
        if self.optimizer.warmup_steps >= self.optimizer.steps:
            raise SpecificationError(
                f"'optimizer.warmup_steps' ({self.optimizer.warmup_steps}) must be fewer than"
                f" 'optimizer.steps' ({self.optimizer.steps})"
            )
        if not self.data.sensors:
            raise SpecificationError("'data.sensors' is empty: there is nothing to learn from")
        ids = [sensor.id for sensor in self.data.sensors]
        if len(set(ids)) != len(ids):
            raise SpecificationError(f"'data.sensors' names a sensor twice: {ids}")

    @property
    def channels(self) -> int:
        """Bands per image that the model sees; with `all`, sensors with fewer are filled up with absent bands."""
        if self.sampling.bands == "all":
            return max(len(sensor.bands) for sensor in self.data.sensors)
        return 3 if self.sampling.bands == "rgb" else self.sampling.bands_drawn

    @property
    def sampled_size(self) -> int:
        """Side of the images that are read: Scale-MAE's target is twice as fine as its input."""
        return self.sampling.image_size * (2 if self.method == "scale_mae" else 1)

    @property
    def identity(self) -> str:
        """SHA-256 of all that decides the weights: two runs with the same identity may continue one another.

        Hardware, logging and the code's commit are left out: a run may go on elsewhere and be watched more closely.
        """
        content = to_json(self)
        for name in ("hardware", "logging", "code_commit"):
            del content[name]
        # Where the store lies does not matter, its content does.
        del content["data"]["store"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def write(self, run_dir: Path) -> None:
        """Write `spec.json` atomically into the run directory."""
        write_json(run_dir / SPEC_FILE, to_json(self))

    def with_hardware(self, **changes: Any) -> RunSpec:  # noqa: ANN401 (fields of HardwareSpec)
        """The same run on other hardware."""
        return dataclasses.replace(self, hardware=dataclasses.replace(self.hardware, **changes))


def read_spec(run_dir: Path) -> RunSpec:
    """Read `spec.json` of a run directory.

    Raises:
        SpecificationError: If it is absent, not JSON, or not understood; the message names the key.
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
        return from_json(RunSpec, data)
    except SpecificationError as error:
        raise SpecificationError(f"{path}: {error}") from error


def resolve_url(run_dir: Path, url: str) -> str:
    """The store's address as seen from here: a URL stays, a relative path starts at the run directory."""
    return url if "://" in url else os.path.normpath(run_dir.resolve() / url)


def relative_url(run_dir: Path, url: str) -> str:
    """The store's address as written into `spec.json`; the inverse of `resolve_url`."""
    return url if "://" in url else os.path.relpath(Path(url).resolve(), run_dir.resolve())
