"""Frozen features of images: an encoder's, and the plain baselines to beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from a2mae.models.encoder import Encoder
from a2mae.models.precision import ComputePrecision, autocast
from a2mae.tasks.datasets.inputs import TaskBatch, TaskInputs
from a2mae.tasks.finetune.baseline import drawn_features
from a2mae.tasks.finetune.model import TaskEncoder
from a2mae.tasks.finetune.sets import SetJoiner, joined_tokens, set_tokens
from a2mae.tasks.parameters import Layers, Pool

HISTOGRAM_BINS = 32
PIXELS_SIDE = 8
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FITTED_IMAGES = 1000


class FeatureExtractor(Protocol):
    """Images to vectors."""

    def __call__(self, batch: TaskBatch) -> Tensor:
        """Turn a batch with one date into `(B, D)` float32."""


def pooled(tokens: Tensor, pool: Pool) -> Tensor:
    """Pool the tokens of an image to one vector.

    Args:
        tokens: `(B, 1 + N, D)`, CLS first.
        pool: `cls`; `mean` of the patch tokens; `mean_std`: their mean and their deviation side by side, which also
            tells how much an image varies within itself.

    Returns:
        `(B, D)`, for `mean_std` `(B, 2 D)`.
    """
    patches = tokens[:, 1:]
    if pool == "cls":
        return tokens[:, 0]
    if pool == "mean":
        return patches.mean(dim=1)
    return torch.cat([patches.mean(dim=1), patches.std(dim=1, correction=0)], dim=1)


class EncoderFeatures:
    """An encoder's tokens pooled to a vector, the views of an image side by side.

    Attributes:
        parts: How many blocks are read; the vector is theirs, side by side and equally long.
        readouts: Which parts make up each way to read the encoder: the `last` block, the `middle` one, or the first,
            middle and last `joined`. All have passed the final norm. A pyramid is read at its last stage alone: the
            others are of other widths.
    """

    def __init__(
        self,
        encoder: TaskEncoder,
        *,
        pool: Pool,
        bands_per_view: int,
        precision: ComputePrecision = "32-true",
        layers: Sequence[Layers] = ("last",),
    ) -> None:
        """Wrap an encoder.

        Args:
            encoder: Put into evaluation mode.
            pool: See `pooled`; `cls` is of the last block alone.
            bands_per_view: Bands that the encoder takes at once.
            precision: What it computes in.
            layers: The ways to read it that are wanted.
        """
        self._encoder = encoder.eval()
        self._pool = pool
        self._width = bands_per_view
        self._precision = precision
        depth = len(encoder.feature_info)
        if len({stage.num_chs for stage in encoder.feature_info}) > 1:
            layers = ("last",)
        self._blocks = () if tuple(layers) == ("last",) else (0, (depth - 1) // 2, depth - 1)
        self.parts = max(len(self._blocks), 1)
        of = {"last": slice(self.parts - 1, None), "middle": slice(1, 2), "joined": slice(None)}
        self.readouts: Mapping[str, slice] = {name: of[name] for name in layers}

    @torch.no_grad()
    def __call__(self, batch: TaskBatch) -> Tensor:
        """Turn a batch with one date, or of image sets, into `(B, D)` float32."""
        if batch.valid is not None:
            return self._of_sets(batch)
        views = []
        for number, view in enumerate(torch.split(batch.images[:, 0], self._width, dim=1)):
            given: dict[str, Any] = {
                "gsd_m": batch.gsd_m,
                "lonlat_deg": batch.lonlat_deg,
                "day": None if batch.day is None else batch.day[:, 0],
                "wavelength_nm": batch.wavelength_nm[number * self._width : (number + 1) * self._width],
            }
            with autocast(self._precision, view.device.type):
                if self._blocks:
                    maps = self._encoder.forward_intermediates(view, self._blocks, norm=True, **given)
                    tokens = [F.pad(level.flatten(2).transpose(1, 2), (0, 0, 1, 0)) for level in maps]  # no CLS
                else:
                    tokens = [self._encoder.forward_features(view, **given)]
            views.append(torch.stack([pooled(level.float(), self._pool) for level in tokens], dim=1))
        return torch.cat(views, dim=2).flatten(1)  # (B, parts, views * D) to (B, D)

    def _of_sets(self, batch: TaskBatch) -> Tensor:
        """Read sets in one sequence; the tokens of one place are averaged over the images that show it."""
        mean, views = SetJoiner((), "mean"), []
        with autocast(self._precision, batch.images.device.type):
            for found in set_tokens(self._encoder, batch, self._width, self._blocks or None):
                levels = found
                if self._blocks and isinstance(self._encoder, Encoder):
                    norm = self._encoder.norm
                    levels = [dataclasses.replace(one, cls=norm(one.cls), patches=norm(one.patches)) for one in found]
                tokens = [joined_tokens(level, mean.weights(0, level)).float() for level in levels]
                views.append(torch.stack([pooled(level, self._pool) for level in tokens], dim=1))
        return torch.cat(views, dim=2).flatten(1)


class ConvolutionFeatures:
    """Random convolution features of all bands: nothing is trained, and an encoder should clear them (`layers.rcf`)."""

    def __init__(self, inputs: TaskInputs, seed: int) -> None:
        """Draw the filters from training images.

        Args:
            inputs: The data.
            seed: Of the images and windows that become filters.
        """
        self._features = drawn_features(inputs, seed, most=_FITTED_IMAGES)

    def __call__(self, batch: TaskBatch) -> Tensor:
        """Turn a batch with one date into `(B, D)` float32."""
        found: Tensor = self._features.to(batch.images.device)(batch.pixels)
        return found


def statistics_features(batch: TaskBatch) -> Tensor:
    """Compute the mean, the deviation and five quantiles of every band."""
    values = batch.pixels.flatten(2)  # (B, C, H * W)
    quantiles = torch.quantile(values, values.new_tensor(QUANTILES), dim=2)  # (Q, B, C)
    return torch.cat([values.mean(2), values.std(2, correction=0), *quantiles], dim=1)


def pixel_features(batch: TaskBatch) -> Tensor:
    """Average the image itself to 8 x 8 pixels."""
    return F.interpolate(batch.pixels, size=(PIXELS_SIDE, PIXELS_SIDE), mode="area").flatten(1)


def histogram_features(batch: TaskBatch) -> Tensor:
    """Count a histogram of 32 bins per band over −3 to 3 deviations; what lies outside counts in the last bins."""
    images = batch.pixels
    position = ((images + 3) / 6 * HISTOGRAM_BINS).long().clamp(0, HISTOGRAM_BINS - 1).flatten(2)
    counts = torch.zeros(*position.shape[:2], HISTOGRAM_BINS)
    counts.scatter_add_(2, position, torch.ones_like(position, dtype=torch.float32))
    return (counts / position.shape[-1]).flatten(1)


def extract(
    extractor: FeatureExtractor,
    inputs: TaskInputs,
    rows: npt.NDArray[np.int64],
    *,
    relative_gsd: float,
    multiple: int,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """Extract features of samples seen at a coarser GSD.

    Args:
        extractor: Images to vectors.
        inputs: Where batches come from.
        rows: `(N,)`.
        relative_gsd: 1 is native, 0.25 keeps a quarter of the side.
        multiple: The input's side must be a multiple of this (the patch).
        batch_size: Images at a time.
        device: Where to run; features return to the CPU.

    Returns:
        `(N, D)` float32 on the CPU.
    """
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = inputs.batch(rows[start : start + batch_size]).to(device)
        parts.append(extractor(coarser(batch, relative_gsd, multiple)).cpu())
    return torch.cat(parts)


def coarser(batch: TaskBatch, relative_gsd: float, multiple: int) -> TaskBatch:
    """Give images fewer pixels by area averaging, and the GSD that they then have.

    Where the side would be no multiple of the patch it is enlarged to the next one, bilinearly: the detail is that of
    the coarse image and the GSD that of the pixels fed.

    Args:
        batch: With one date, or of image sets.
        relative_gsd: 1 is native, 0.25 keeps a quarter of the side.
        multiple: Sides must be a multiple of this (the patch).
    """
    if relative_gsd == 1:
        return batch
    images = batch.images.flatten(0, 1)
    side = images.shape[-1]
    sizes = [max(round(length * relative_gsd), 1) for length in images.shape[-2:]]
    images = F.interpolate(images, size=sizes, mode="area")
    fed = [-(-length // multiple) * multiple for length in sizes]
    if fed != sizes:
        images = F.interpolate(images, size=fed, mode="bilinear", align_corners=False)
    valid = batch.valid
    if valid is not None:
        valid = F.interpolate(valid.float(), size=fed, mode="area") >= 0.5
    images = torch.unflatten(images, 0, (len(batch.images), -1))
    return dataclasses.replace(batch, images=images, valid=valid, gsd_m=batch.gsd_m * (side / fed[-1]))
