"""The encoder that a task starts from: this run's, that of another model directory, or a network of timm's."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from a2mae.errors import InputError
from a2mae.files import digest_of
from a2mae.models.checkpoint import Json, encoder_of_config, load_encoder, read_config
from a2mae.models.encoder import Encoder
from a2mae.models.released import CheckpointError
from a2mae.models.sources import RGB_NM, described, table_of, weights_digest
from a2mae.models.timm_encoder import PREFIX, TimmEncoder, load_timm, timm_config
from a2mae.sensors import Band
from a2mae.tasks.datasets.inputs import InputPlan, Normalisation, plan_inputs, view_width
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.finetune.model import TaskEncoder
from a2mae.tasks.parameters import EncoderParameters

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder with the inputs that it takes.

    Attributes:
        encoder: In evaluation mode.
        plan: Bands and normalisation.
        config: Of its model directory, or what such a one would say of it.
        origin: Which weights they are: file, SHA-256, licence, what was adapted.
    """

    encoder: TaskEncoder
    plan: InputPlan
    config: Mapping[str, Json]
    origin: Mapping[str, Json]

    @property
    def digest(self) -> str:
        """Of everything that decides what it computes, but for the plan."""
        return digest_of([self.config, self.origin["sha256"]])


def pretrained_here(directory: Path) -> EncoderParameters:
    """Describe the encoder that this run has pretrained as any other.

    Args:
        directory: Model directory.
    """
    return EncoderParameters.model_validate({"weights": str(directory)})


def load_start(
    start: EncoderParameters, data: TaskData, bands: tuple[str, ...], *, location: bool = False, group: str = ""
) -> LoadedEncoder:
    """Load an encoder and decide how task data enters it.

    An encoder of ours takes its bands view by view, normalised as in its pretraining; a network of timm's all at once.

    Args:
        start: Where it comes from.
        data: The task data.
        bands: Names or common names.
        location: Tell the encoder where an image lies.
        group: Parameters that name the bands, for messages; empty: the task's.

    Raises:
        CheckpointError: If the weights cannot be read, or are not of the model.
        TaskDataError: If the bands do not fit.
    """
    path, group = Path(str(start.weights)), group or data.spec.task.value
    if start.model is None:
        return _own(start, path, data, bands, location=location, group=group)
    chosen = [data.spec.bands[data.spec.band_index(name, group)] for name in bands]
    encoder, rows = load_timm(
        start.model,
        path,
        bands=len(bands),
        wavelength_nm=[band.center_wavelength_nm for band in chosen],
        image_px=max(data.image_shape[-2:]),
        size_px=start.size_px,
    )
    logger.info("%s: %s starts timm's %s\n%s", group, path.name, start.model, table_of(rows))
    taught = _statistics(start, encoder, data, chosen, group)
    plan = plan_inputs(data, bands, taught, bands_per_view=None, group=group)
    kind = f"timm's {start.model}"
    origin = described(path, kind, rows, sha256=weights_digest(path), licence=start.licence)
    return LoadedEncoder(encoder, plan, encoder.config.document(), origin)


def check_start(start: EncoderParameters, bands: Sequence[str], group: str, problems: list[str]) -> None:
    """Load an encoder before there is data, and add what is wrong with it or with the number of bands.

    Args:
        start: Where it comes from.
        bands: Names or common names.
        group: Parameters that name it, for messages.
        problems: Sentences; added to.
    """
    path = Path(str(start.weights))
    try:
        if start.model is not None:
            load_timm(start.model, path, bands=len(bands))
        else:
            view_width(bands, bands_per_view(load_encoder(path)), group)
    except InputError as error:
        hint = "; name the network that the file is of as start.model" if start.model is None and path.is_file() else ""
        problems.append(f"{group}.start: {error}{hint}")


def _own(
    start: EncoderParameters, path: Path, data: TaskData, bands: tuple[str, ...], *, location: bool, group: str
) -> LoadedEncoder:
    encoder = load_encoder(path)
    config = read_config(path)
    # A directory that `a2mae weights import` has written knows no sensor: all are normalised by the training split.
    taught = cast(Normalisation, config.get("normalization") or {})
    width = bands_per_view(encoder)
    plan = plan_inputs(data, bands, taught, bands_per_view=width, location=location, group=group)
    kind = f"model directory of a2mae, {config['model']}"
    return LoadedEncoder(
        encoder, plan, config, described(path, kind, (), sha256=weights_digest(path), licence=start.licence)
    )


def bands_per_view(encoder: Encoder) -> int | None:
    """Return how many bands an encoder takes at once; None for any number."""
    return None if encoder.config.bands == "wavelength" else encoder.config.in_chans


def encoder_normalisation(directory: Path) -> Normalisation:
    """Read the statistics that an encoder was pretrained with.

    Args:
        directory: Model directory.

    Returns:
        `{sensor: {band: [mean, std]}}` in physical units.

    Raises:
        CheckpointError: If the model directory does not say.
    """
    found = read_config(directory).get("normalization")
    if not isinstance(found, dict):
        raise CheckpointError(f"{directory}/config.json has no 'normalization': {{sensor: {{band: [mean, std]}}}}")
    return cast(Normalisation, found)


def random_init(encoder: TaskEncoder, seed: int) -> TaskEncoder:
    """Make the baseline of an encoder: the same architecture with random weights.

    Args:
        encoder: Whose configuration is used, and what no training changes: the filters of a stem of random convolution
            features. Its weights are not.
        seed: Of the random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = TimmEncoder(encoder.config) if isinstance(encoder, TimmEncoder) else Encoder(encoder.config)
    if isinstance(encoder, Encoder):
        fresh.load_state_dict(dict(encoder.named_buffers()), strict=False)
    return fresh


def encoder_of_task(directory: Path) -> TaskEncoder:
    """Build the encoder that a finetuned model's `config.json` describes, with fresh weights.

    Raises:
        CheckpointError: If it describes none of this version.
    """
    config = read_config(directory)
    name = str(config["model"])
    if name.startswith(PREFIX):
        return TimmEncoder(timm_config(name, cast("dict[str, Any]", config["kwargs"])))
    return encoder_of_config(directory)


def _statistics(
    start: EncoderParameters, encoder: TimmEncoder, data: TaskData, bands: Sequence[Band], group: str
) -> Normalisation:
    """Give the mean and deviation per band that are stated or timm's, for every sensor; empty: of the training split.

    Raises:
        TaskDataError: If there are not as many as bands, or timm's are not of such data.
    """
    pairs: list[tuple[float, float]]
    if start.mean:
        if len(bands) != len(start.mean):
            raise TaskDataError(
                f"{group}: {len(bands)} bands need as many means and deviations, found {len(start.mean)}"
            )
        pairs = list(zip(start.mean, start.std, strict=True))
    elif start.normalisation == "timm":
        encoding = data.spec.encoding
        if encoding.dtype != "uint8" or not math.isclose(255 * encoding.scale + encoding.offset, 1.0):
            raise TaskDataError(
                f"{group}: normalisation timm is of 8-bit pictures from 0 to 1, and {data.spec.source!r} holds"
                f" {encoding.units} as {encoding.dtype}: take data, or state mean and std"
            )
        mean, deviation = encoder.statistics
        channels = [
            min(range(len(RGB_NM)), key=lambda one: abs(RGB_NM[one] - band.center_wavelength_nm)) for band in bands
        ]
        pairs = [(mean[channel], deviation[channel]) for channel in channels]
    else:
        return {}
    stated = {band.name: pair for band, pair in zip(bands, pairs, strict=True)}
    return {sensor: stated for sensor in data.sensors}
