"""Features of a frozen encoder, computed once before a training and kept in its run directory.

A small model learns from a large one without running it in every step: the large one sees each training image once, as
a whole, in red, green and blue; what a sample shows of it is averaged from a grid of its features.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from a2mae.errors import plural
from a2mae.files import digest_of, whole_file
from a2mae.models.checkpoint import load_encoder
from a2mae.models.encoder import Encoder
from a2mae.models.released import CheckpointError
from a2mae.models.sources import weights_digest
from a2mae.models.timm_encoder import TimmEncoder, load_timm
from a2mae.training.data.draw import Draw
from a2mae.training.data.loader import SampleReader
from a2mae.training.data.prepare import prepare
from a2mae.training.data.taught import GRID, TEACHER_FILE, identity_of
from a2mae.training.parameters import TeacherParameters
from a2mae.training.spec import (
    RunSpec,
    SpecificationError,
    TeacherSpec,
    check_unchanged,
    relative_url,
    resolve_url,
)

_LOG = logging.getLogger(__name__)

_AT_ONCE = 16
_WHOLE = (0.0, 0.0, 1.0)


def pin_teacher(parameters: TeacherParameters, run_dir: Path) -> TeacherSpec:
    """Specify the encoder that the parameters name by its content.

    Raises:
        CheckpointError: If it cannot be read, or does not see red, green and blue.
    """
    path = Path(parameters.file)
    return TeacherSpec(
        file=relative_url(run_dir, str(path)),
        sha256=weights_digest(path),
        model=parameters.model,
        weight=parameters.weight,
        width=_load(path, parameters.model).num_features,
        licence=parameters.licence,
    )


def write_teacher_features(run_dir: Path, spec: RunSpec, reader: SampleReader, device: torch.device) -> None:
    """Compute the teacher's features of all training images, unless the run directory has them.

    Args:
        run_dir: The run directory.
        spec: The run; without a teacher nothing is done.
        reader: Of its samples.
        device: Where the teacher runs.

    Raises:
        SpecificationError: If the file is not that of the specification.
        CheckpointError: If it cannot be read.
    """
    if spec.teacher is None:
        return
    sensors = [sensor.model_dump(mode="json") for sensor in spec.data.sensors]
    decided = [spec.teacher.sha256, spec.teacher.model, spec.data.store_hash, spec.data.index_hash, sensors]
    identity = digest_of([*decided, spec.sampling.image_size, GRID])
    target = run_dir / TEACHER_FILE
    if identity_of(target) == identity:
        return
    path = Path(resolve_url(run_dir, spec.teacher.file))
    check_unchanged(path, weights_digest(path), spec.teacher.sha256, "teacher")
    encoder = _load(path, spec.teacher.model, image_px=spec.sampling.image_size).to(device)
    index = reader.index
    images = np.concatenate([np.arange(index.offsets[one], index.offsets[one + 1]) for one in reader.positions])
    colours = {int(image): bands for image in images if (bands := reader.colours(int(image))) is not None}
    if not colours:
        raise SpecificationError(
            f"the teacher {path.name} sees red, green and blue, and no training image has them: leave pretrain.teacher"
            " away, or train on other sensors"
        )
    if missing := len(images) - len(colours):
        _LOG.warning("teacher: %s without red, green or blue: they teach nothing", plural(missing, "image"))
    features = torch.zeros(len(index.row), GRID * GRID, spec.teacher.width, dtype=torch.float16)
    seen = sorted(colours)
    for start in tqdm(range(0, len(seen), _AT_ONCE), desc="teacher", unit="batch", leave=False):
        part = seen[start : start + _AT_ONCE]
        draws = [Draw(np.asarray([image]), colours[image][None], _WHOLE, (False, False, False)) for image in part]
        features[part] = _cells(encoder, reader, draws, spec.sampling.image_size, device).to("cpu", torch.float16)
    with whole_file(target) as partial:
        save_file({"features": features}, partial, metadata={"identity": identity})
    _LOG.info("teacher: features of %s by %s, %d wide", plural(len(seen), "image"), path.name, spec.teacher.width)


@torch.no_grad()
def _cells(
    encoder: Encoder | TimmEncoder, reader: SampleReader, draws: list[Draw], size: int, device: torch.device
) -> Tensor:
    """Encode whole images: `(n, GRID * GRID, D)`, the patch tokens averaged in cells."""
    raw = reader.gather(draws, [0] * len(draws)).to(device)
    batch = prepare(raw, reader.tables().to(device), size)
    tokens = encoder.forward_features(
        batch.pixels[:, 0], gsd_m=batch.gsd_m[:, 0], wavelength_nm=batch.wavelength_nm[:, 0]
    )[:, 1:]
    side = math.isqrt(tokens.shape[1])
    maps = torch.unflatten(tokens.transpose(1, 2), 2, (side, side)).float()
    # Bilinear where there are fewer tokens than cells: at patch 32 of 64 pixels, say.
    cells = F.adaptive_avg_pool2d(maps, GRID) if side >= GRID else F.interpolate(maps, (GRID, GRID), mode="bilinear")
    return cells.flatten(2).transpose(1, 2)


def _load(path: Path, model: str | None, *, image_px: int | None = None) -> Encoder | TimmEncoder:
    """Load a frozen encoder of red, green and blue."""
    encoder: Encoder | TimmEncoder
    if model is not None:
        encoder, _ = load_timm(model, path, bands=3, wavelength_nm=None, image_px=image_px)
    else:
        encoder = load_encoder(path)
        if encoder.config.bands != "wavelength" and encoder.config.in_chans != 3:
            raise CheckpointError(
                f"the teacher {path} reads {encoder.config.in_chans} bands (bands={encoder.config.bands!r}), and it is"
                " shown red, green and blue: take one of three bands, or of any (bands: wavelength)"
            )
    return encoder.requires_grad_(False).eval()
