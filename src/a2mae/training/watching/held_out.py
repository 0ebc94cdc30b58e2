"""What is measured on a few fixed sets while the model trains: held-out loss, collapse, and a kNN that needs no labels.

A contrastive peer's loss fell by 30 % while its features collapsed (METHOD section 4): effective rank and standard
deviation of the features are therefore looked at from the first step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from a2mae.models import ImageSetBatch, Pretrainer
from a2mae.training.reading.draw import Draw
from a2mae.training.reading.index import HELD_OUT, TRAIN
from a2mae.training.reading.prepare import prepare
from a2mae.training.reading.raw import BandTables, RawBatch
from a2mae.training.reading.samples import SampleReader

HELD_OUT_LOSS, TRAINING_SETS_LOSS = "held_out_loss", "training_sets_loss"
"""Two names, so that a loss on sets that were trained on is nowhere taken for one on places held out."""
_WHOLE = (0.0, 0.0, 1.0)
_NO_FLIP = (False, False, False)
_DRAW_EPOCH = 2**32 - 1  # an epoch that no run reaches: fixed draws
_CHUNK = 32


@dataclass(frozen=True)
class FeatureStatistics:
    """How spread out features are.

    Attributes:
        effective_rank: exp of the entropy of the normalised singular values (Roy and Vetterli 2007); 1 is collapse.
        feature_std: Mean over the dimensions of the standard deviation over images.
    """

    effective_rank: float
    feature_std: float


class HeldOut:
    """Fixed sets and fixed draws of a run.

    Attributes:
        from_training: True if the index has no held-out sets, so that training sets stand in.
        loss_name: What the loss on them is called in the curves: `held_out_loss`, or `training_sets_loss`.
    """

    def __init__(self, reader: SampleReader, tables: BandTables, *, sets: int, images: int) -> None:
        """Read the fixed samples once.

        Args:
            reader: The run's reader.
            tables: Its normalisation, on the device.
            sets: At most how many sets.
            images: At most how many images for the features.
        """
        held_out = reader.index.sets_of(HELD_OUT)
        self.from_training = not len(held_out)
        self.loss_name = TRAINING_SETS_LOSS if self.from_training else HELD_OUT_LOSS
        positions = _spread(held_out if len(held_out) else reader.index.sets_of(TRAIN), sets)
        self.positions = positions
        self._reader, self._tables = reader, tables
        self._size = reader.spec.sampled_size
        self._samples = reader.gather([self._fixed_draw(int(p)) for p in positions], positions.tolist())
        members = [image for p in positions for image in range(*_bounds(reader, int(p)))]
        chosen = _spread(np.asarray(members, np.int64), images)
        set_of = np.searchsorted(reader.index.offsets, chosen, side="right") - 1
        self._location = torch.from_numpy(np.asarray(reader.index.location[set_of]))
        draws = [Draw(np.asarray([i]), self._show_bands(int(i))[None], _WHOLE, _NO_FLIP) for i in chosen]
        self._images = reader.gather(draws, set_of.tolist())

    def batch(self, samples: slice = slice(None)) -> ImageSetBatch:
        """The fixed samples, whole footprints in the bands that a person sees where the model takes three."""
        return prepare(self._to_device(self._samples[samples]), self._tables, self._size)

    @torch.no_grad()
    def features(self, model: Pretrainer) -> Tensor:
        """Each fixed image's mean patch token, which `evaluate` reads too, the place not told, `(n, D)` float32."""
        parts = []
        for start in range(0, len(self._images.index), _CHUNK):
            raw = self._to_device(self._images[start : start + _CHUNK])
            batch = prepare(raw, self._tables, self._reader.spec.sampling.image_size)
            # Without the place: its bits in the encoding would answer what the kNN asks of the pixels.
            tokens = model.forward_features(
                batch.pixels[:, 0],
                gsd_m=batch.gsd_m[:, 0],
                day=batch.day[:, 0],
                sensor_id=batch.sensor_id[:, 0],
                wavelength_nm=batch.wavelength_nm[:, 0],
            )
            parts.append(tokens[:, 1:].mean(1).float())
        return torch.cat(parts)

    def same_place_accuracy(self, features: Tensor) -> float | None:
        """Share of images whose nearest other image shows the same place: kNN (k = 1, cosine) without labels.

        Args:
            features: As from `features`.

        Returns:
            None if no place has two images or there is only one place.
        """
        place = self._location.to(features.device)
        same = place[:, None] == place[None]
        same.fill_diagonal_(False)
        asked = same.any(1)
        if not bool(asked.any()) or bool((place == place[0]).all()):
            return None
        unit = torch.nn.functional.normalize(features - features.mean(0), dim=1)
        similarity = unit @ unit.T
        similarity.fill_diagonal_(-2.0)
        found = same.gather(1, similarity.argmax(1, keepdim=True))[:, 0]
        return float(found[asked].float().mean())

    @torch.no_grad()
    def loss(self, model: Pretrainer, seed: int) -> float:
        """Loss on the fixed samples under fixed masks."""
        device = self._tables.gain[0].device
        masks = torch.Generator(device).manual_seed(seed % 2**63)
        total = weight = torch.zeros((), device=device)
        for start in range(0, len(self.positions), _CHUNK):
            output = model(self.batch(slice(start, start + _CHUNK)), generator=masks)
            total = total + output.loss * output.token_weight.sum()
            weight = weight + output.token_weight.sum()
        return float(total / weight.clamp(min=1))

    def _fixed_draw(self, position: int) -> Draw:
        draw = self._reader.draw(_DRAW_EPOCH, position)
        bands = np.stack([self._show_bands(int(image)) for image in draw.images])
        return Draw(draw.images, bands, _WHOLE, _NO_FLIP)

    def _show_bands(self, image: int) -> NDArray[np.int64]:
        """Red, green, blue where the model takes three bands, else the first ones it takes."""
        return self._reader.fixed_bands(image)

    def _to_device(self, raw: RawBatch) -> RawBatch:
        return raw.to(self._tables.gain[0].device)


def feature_statistics(features: Tensor) -> FeatureStatistics:
    """Effective rank and standard deviation.

    Args:
        features: `(n, D)`.
    """
    # In float64 on the CPU: a few hundred rows, and the same digits on every machine.
    centred = features.detach().to("cpu", torch.float64)
    centred = centred - centred.mean(0)
    values = torch.linalg.svdvals(centred)
    share = values / values.sum().clamp(min=1e-12)
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return FeatureStatistics(float(entropy.exp()), float(centred.pow(2).mean(0).sqrt().mean()))


def _spread(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the values, evenly over all of them."""
    if len(values) <= count:
        return values
    return values[np.linspace(0, len(values) - 1, count).astype(np.int64)]


def _bounds(reader: SampleReader, position: int) -> tuple[int, int]:
    members = reader.index.images_of(position)
    return members.start, members.stop
