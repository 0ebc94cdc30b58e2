"""What the loader hands on: stored integers per sensor, and how they are normalised.

Loader processes import this and not the models.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class RawImages:
    """Images of one sensor, as stored: whole, or the same part of each that was read.

    Attributes:
        sensor: Position in the run's list of sensors.
        grid: Stored rows and columns of a whole image.
        origin: Row and column of the whole image where `pixels` begin.
        pixels: `(n, C, H, W)` stored integers of the drawn bands.
        valid: `(n, H, W)` bool.
        bands: `(n, C)` int64, which bands they are; -1 for one that only fills the tensor up.
        slot: `(n,)` int64, where the image goes: `sample * K + image`.
        fully_valid: True if every pixel is valid: known to the host, so that nobody has to ask the device.
    """

    sensor: int
    grid: tuple[int, int]
    origin: tuple[int, int]
    pixels: Tensor
    valid: Tensor
    bands: Tensor
    slot: Tensor
    fully_valid: bool

    def map(self, change: Callable[[Tensor], Tensor]) -> RawImages:
        """The same images with every tensor changed."""
        return dataclasses.replace(
            self,
            pixels=change(self.pixels),
            valid=change(self.valid),
            bands=change(self.bands),
            slot=change(self.slot),
        )


@dataclass(frozen=True)
class RawBatch:
    """A batch as the loader reads it: stored integers per sensor, and per image what the index knows.

    Attributes:
        images: The stored pixels, in groups of one sensor and one size.
        window: `(B, 3)` float64, left, top and side as shares of the footprint.
        flips: `(B, 3)` bool, mirror left-right, mirror up-down, transpose.
        gsd_m: `(B, K)` float64, metres per stored pixel.
        sensor_id: `(B, K)` int64.
        day: `(B, K)` float32.
        lonlat_deg: `(B, K, 2)` float64.
        geosot: `(B, K, 8)` int64, the unsigned 32-bit codes.
        index: `(B,)` int64, the set's position in the index.
    """

    images: tuple[RawImages, ...]
    window: Tensor
    flips: Tensor
    gsd_m: Tensor
    sensor_id: Tensor
    day: Tensor
    lonlat_deg: Tensor
    geosot: Tensor
    index: Tensor

    @property
    def fully_valid(self) -> bool:
        """True if every pixel of the batch is valid."""
        return all(group.fully_valid for group in self.images)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RawBatch:
        """The same batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> RawBatch:
        """The same batch in page-locked memory (called by the DataLoader)."""
        return self._map(Tensor.pin_memory)

    def __getitem__(self, samples: slice) -> RawBatch:
        """Some of the samples, for gradient accumulation."""
        per_sample = self.sensor_id.shape[1]
        start, stop, _ = samples.indices(len(self.index))
        images = []
        for group in self.images:
            inside = (group.slot >= start * per_sample) & (group.slot < stop * per_sample)
            rows = inside.nonzero().flatten()
            if len(rows):
                # Not `tensor[rows]`: before torch 2.9 that does not know uint16 on a CPU.
                part = group.map(functools.partial(torch.index_select, dim=0, index=rows))
                images.append(dataclasses.replace(part, slot=part.slot - start * per_sample))
        rest: dict[str, Any] = {name: getattr(self, name)[samples] for name in _PER_SAMPLE}
        return dataclasses.replace(self, images=tuple(images), **rest)

    def _map(self, change: Callable[[Tensor], Tensor]) -> RawBatch:
        rest: dict[str, Any] = {name: change(getattr(self, name)) for name in _PER_SAMPLE}
        return dataclasses.replace(self, images=tuple(group.map(change) for group in self.images), **rest)


_PER_SAMPLE = ("window", "flips", "gsd_m", "sensor_id", "day", "lonlat_deg", "geosot", "index")


@dataclass(frozen=True)
class BandTables:
    """Per sensor and band, how a stored integer becomes a normalised value: `stored * gain + bias`.

    Attributes:
        gain: One `(bands,)` float32 tensor per sensor.
        bias: Likewise.
        wavelength_nm: Likewise, centre wavelength; 0 for radar.
    """

    gain: tuple[Tensor, ...]
    bias: tuple[Tensor, ...]
    wavelength_nm: tuple[Tensor, ...]

    def to(self, device: torch.device) -> BandTables:
        """The same tables on another device."""
        return BandTables(*(tuple(t.to(device) for t in getattr(self, f.name)) for f in dataclasses.fields(self)))


def band_tables(
    encodings: Sequence[tuple[float, float]],
    mean: Sequence[Sequence[float]],
    std: Sequence[Sequence[float]],
    wavelength_nm: Sequence[Sequence[float]],
) -> BandTables:
    """Fold decoding and normalisation into one gain and one bias per band.

    Args:
        encodings: Per sensor `(scale, offset)`: physical = stored * scale + offset.
        mean: Per sensor and band, physical units.
        std: Likewise.
        wavelength_nm: Likewise.
    """
    gains, biases = [], []
    for (scale, offset), means, stds in zip(encodings, mean, std, strict=True):
        spread = torch.tensor(stds, dtype=torch.float64)
        gains.append((scale / spread).to(torch.float32))
        biases.append(((offset - torch.tensor(means, dtype=torch.float64)) / spread).to(torch.float32))
    waves = tuple(torch.tensor(list(waves), dtype=torch.float32) for waves in wavelength_nm)
    return BandTables(tuple(gains), tuple(biases), waves)
