"""Turn stored integers into the batch that a model sees: crop, resize, normalise and mirror, batched, on any device.

Crop and resize are one step: each output pixel is a weighted mean of the stored pixels under it, and the window's edges
may lie between two stored pixels. So images of 4, 10 and 30 m show exactly the same ground.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from a2mae.models.batch import ImageSetBatch
from a2mae.models.layers.bands import ABSENT_NM
from a2mae.models.layers.geosot import codes_to_bits
from a2mae.models.layers.masking import full_precision


@dataclass(frozen=True)
class RawImages:
    """Images of one sensor as stored: whole, or the same part of each.

    Attributes:
        sensor: Position in the run's list of sensors.
        grid: Stored rows and columns of a whole image.
        origin: Row and column of the whole image where `pixels` begin.
        pixels: `(n, C, H, W)` stored integers of the drawn bands.
        valid: `(n, H, W)` bool.
        bands: `(n, C)` int64, which bands they are; -1 for one that only fills the tensor up.
        slot: `(n,)` int64, where the image goes: `sample * K + image`.
        fully_valid: True if every pixel is valid; known on the host, so that nothing waits for the device.
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
        """Give the same images with every tensor changed."""
        return dataclasses.replace(
            self,
            pixels=change(self.pixels),
            valid=change(self.valid),
            bands=change(self.bands),
            slot=change(self.slot),
        )


@dataclass(frozen=True)
class RawBatch:
    """A batch as the loader reads it: stored integers by sensor, and what the index has of each image.

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
        teacher: `(B, D)` float32, a teacher's features of the anchors as they are seen; None without a teacher.
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
    teacher: Tensor | None = None

    @property
    def fully_valid(self) -> bool:
        """Whether every pixel of the batch is valid."""
        return all(group.fully_valid for group in self.images)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RawBatch:
        """Give the same batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> RawBatch:
        """Give the same batch in page-locked memory (called by the DataLoader)."""
        return self._map(Tensor.pin_memory)

    def __getitem__(self, samples: slice) -> RawBatch:
        """Take some of the samples, for gradient accumulation."""
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
        rest: dict[str, Any] = {name: getattr(self, name)[samples] for name in self._per_sample}
        return dataclasses.replace(self, images=tuple(images), **rest)

    def _map(self, change: Callable[[Tensor], Tensor]) -> RawBatch:
        rest: dict[str, Any] = {name: change(getattr(self, name)) for name in self._per_sample}
        return dataclasses.replace(self, images=tuple(group.map(change) for group in self.images), **rest)

    @property
    def _per_sample(self) -> tuple[str, ...]:
        return _PER_SAMPLE if self.teacher is None else (*_PER_SAMPLE, "teacher")


@dataclass(frozen=True)
class _Part:
    """Where a tensor lies in a block of bytes."""

    start: int
    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class PackedBatch:
    """A batch on its way from a loader process: all its tensors in one block.

    Processes hand tensors over as files of shared memory, which costs 0.2 ms for each in either process: a batch of
    eighty took longer to hand over than to read.

    Attributes:
        block: `(bytes,)` uint8.
        layout: The batch with places in the block instead of tensors.
    """

    block: Tensor
    layout: RawBatch

    def pin_memory(self) -> PackedBatch:
        """Give the same in page-locked memory (called by the DataLoader)."""
        return PackedBatch(self.block.pin_memory(), self.layout)

    def unpacked(self) -> RawBatch:
        """Give the batch; its tensors are views of the block."""

        def view(part: Any) -> Tensor:  # noqa: ANN401 (a `_Part`, where a tensor was)
            size = part.shape.numel() * part.dtype.itemsize
            return self.block[part.start : part.start + size].view(part.dtype).view(part.shape)

        return self.layout._map(view)


def packed(batch: RawBatch) -> PackedBatch:
    """Put all tensors of a batch into one block."""
    tensors, parts, end = [], [], 0

    def place(tensor: Tensor) -> Any:  # noqa: ANN401
        nonlocal end
        tensors.append(tensor.contiguous())
        parts.append(_Part(end, tensor.shape, tensor.dtype))
        end += -(-tensors[-1].nbytes // 16) * 16  # every type begins where it may
        return parts[-1]

    layout = batch._map(place)
    block = torch.empty(end, dtype=torch.uint8)
    for tensor, part in zip(tensors, parts, strict=True):
        block[part.start : part.start + tensor.nbytes] = tensor.view(-1).view(torch.uint8)
    return PackedBatch(block, layout)


_PER_SAMPLE = ("window", "flips", "gsd_m", "sensor_id", "day", "lonlat_deg", "geosot", "index")


@dataclass(frozen=True)
class BandTables:
    """How stored integers are normalised, by sensor and band: `stored * gain + bias`.

    Attributes:
        gain: One `(bands,)` float32 tensor per sensor.
        bias: One likewise.
        wavelength_nm: One likewise, centre wavelengths; 0 for radar.
    """

    gain: tuple[Tensor, ...]
    bias: tuple[Tensor, ...]
    wavelength_nm: tuple[Tensor, ...]

    def to(self, device: torch.device) -> BandTables:
        """Give the same tables on another device."""
        return BandTables(*(tuple(t.to(device) for t in getattr(self, f.name)) for f in dataclasses.fields(self)))


def band_tables(
    encodings: Sequence[tuple[float, float]],
    mean: Sequence[Sequence[float]],
    std: Sequence[Sequence[float]],
    wavelength_nm: Sequence[Sequence[float]],
) -> BandTables:
    """Fold decoding and normalisation into one gain and one bias per band.

    Args:
        encodings: `(scale, offset)` of each sensor: physical = stored * scale + offset.
        mean: Of each band of each sensor, physical units.
        std: Likewise.
        wavelength_nm: Centre wavelength likewise.
    """
    gains, biases = [], []
    for (scale, offset), means, stds in zip(encodings, mean, std, strict=True):
        spread = torch.tensor(stds, dtype=torch.float64)
        gains.append((scale / spread).to(torch.float32))
        biases.append(((offset - torch.tensor(means, dtype=torch.float64)) / spread).to(torch.float32))
    waves = tuple(torch.tensor(list(waves), dtype=torch.float32) for waves in wavelength_nm)
    return BandTables(tuple(gains), tuple(biases), waves)


def prepare(raw: RawBatch, tables: BandTables, size: int) -> ImageSetBatch:
    """Make the batch that the models take.

    Args:
        raw: B samples of K images, on the device that is to do the work.
        tables: Normalisation, on the same device.
        size: Side of the images that come out, pixels.

    Returns:
        The batch; its `gsd_m` is the side of the window, metres, over `size`.
    """
    samples, per_sample = raw.sensor_id.shape
    channels = raw.images[0].bands.shape[1]
    device = raw.window.device
    pixels = torch.zeros(samples * per_sample, channels, size, size, device=device)
    valid = torch.zeros(samples * per_sample, size, size, dtype=torch.bool, device=device)
    wavelength = torch.zeros(samples * per_sample, channels, device=device)
    footprint_m = torch.zeros(samples * per_sample, dtype=torch.float64, device=device)
    native_gsd_m = raw.gsd_m.flatten()
    for group in raw.images:
        present = group.bands >= 0
        bands = group.bands.clamp(min=0)
        gain, bias = (table[group.sensor][bands] * present for table in (tables.gain, tables.bias))
        window = raw.window[group.slot // per_sample]
        with full_precision(pixels):
            resized, seen = crop_resize(
                group.pixels.to(torch.float32),
                None if group.fully_valid else group.valid,
                window,
                size,
                grid=group.grid,
                origin=group.origin,
            )
            # Decoding and normalising are linear, so they may follow the resize, which leaves fewer pixels.
            normalised = resized * gain[..., None, None] + bias[..., None, None]
        pixels[group.slot] = normalised if seen is None else normalised * seen[:, None]
        valid[group.slot] = True if seen is None else seen
        wavelength[group.slot] = torch.where(present, tables.wavelength_nm[group.sensor][bands], ABSENT_NM)
        footprint_m[group.slot] = native_gsd_m[group.slot] * group.grid[1]
    pixels = pixels.view(samples, per_sample, channels, size, size)
    valid = valid.view(samples, per_sample, size, size)
    side_m = footprint_m.view(samples, per_sample) * raw.window[:, 2:3]
    return ImageSetBatch(
        pixels=_flip(pixels, raw.flips),
        gsd_m=(side_m / size).to(torch.float32),
        geosot_bits=codes_to_bits(raw.geosot),
        sensor_id=raw.sensor_id,
        day=raw.day,
        same_source_as_anchor=raw.sensor_id == raw.sensor_id[:, :1],
        valid=_flip(valid, raw.flips),
        wavelength_nm=wavelength.view(samples, per_sample, channels),
        lonlat_deg=raw.lonlat_deg,
        index=raw.index,
    )


def crop_resize(
    values: Tensor,
    valid: Tensor | None,
    window: Tensor,
    size: int,
    *,
    grid: tuple[int, int] | None = None,
    origin: tuple[int, int] = (0, 0),
) -> tuple[Tensor, Tensor | None]:
    """Crop a window and resize it in one step, over valid pixels only.

    Args:
        values: `(n, C, H, W)` float32.
        valid: `(n, H, W)` bool; None if all of them are.
        window: `(n, 3)` left, top and side as shares of the whole image.
        size: Side of the result, pixels.
        grid: Rows and columns of the whole image, where `values` is a part of it.
        origin: Row and column of the whole image where `values` begins.

    Returns:
        `(n, C, size, size)` float32, 0 where invalid; and `(n, size, size)` bool, True where at least half of what lies
        under the pixel is valid, or None if `valid` is None.
    """
    height, width = values.shape[-2:]
    all_rows, all_columns = grid or (height, width)
    rows = resize_weights(height, window[:, 1] * all_rows - origin[0], window[:, 2] * all_rows, size)
    columns = resize_weights(width, window[:, 0] * all_columns - origin[1], window[:, 2] * all_columns, size)
    columns = columns.transpose(1, 2)
    # As many as an output pixel has under it where the window is the whole image.
    taps = min(height, 2 * math.ceil(max(all_rows / size, 1.0)) + 2)

    def resized(images: Tensor) -> Tensor:
        return _weighted_rows(images, rows, taps) @ columns[:, None]

    if valid is None:
        return resized(values), None
    weight = valid.to(values.dtype)[:, None]
    share = resized(weight)
    seen = share >= 0.5
    return torch.where(seen, resized(values * weight) / share.clamp(min=1e-6), 0.0), seen[:, 0]


def _weighted_rows(images: Tensor, weights: Tensor, taps: int) -> Tensor:
    """Multiply weights `(n, size, H)`, of which at most `taps` neighbours are not 0, with images `(n, C, H, W)`.

    Nine tenths of a product of matrices would be with zeros.
    """
    count, bands, height, width = images.shape
    first = (weights > 0).to(torch.uint8).argmax(dim=2).clamp(max=height - taps)  # (n, size)
    tap = first[..., None] + torch.arange(taps, device=images.device)
    image = torch.arange(0, count * bands * height, height, device=images.device).view(count, bands, 1, 1)
    taken = weights.gather(2, tap)[:, None].expand(-1, bands, -1, -1)  # (n, C, size, taps)
    sums = torch.nn.functional.embedding_bag(
        (tap[:, None] + image).flatten(0, 2),
        images.flatten(0, 2),
        per_sample_weights=taken.flatten(0, 2),
        mode="sum",
    )
    return sums.view(count, bands, -1, width)


def resize_weights(length: int, start: Tensor, extent: Tensor, size: int) -> Tensor:
    """Compute the weights of an antialiased bilinear resize of a stretch of one axis.

    Args:
        length: Stored pixels along the axis.
        start: `(n,)` where the stretch begins, stored pixels from the edge.
        extent: `(n,)` its length, stored pixels.
        size: Pixels that come out.

    Returns:
        `(n, size, length)` float32; every row sums to 1. An output pixel weighs a triangle around its centre,
        as wide as the coarser of the two grids, as of torch's `interpolate(..., mode="bilinear", antialias=True)`, but
        at any offset.
    """
    step = (extent / size)[:, None, None]
    centres = start[:, None, None] + (torch.arange(size, device=start.device)[None, :, None] + 0.5) * step
    cells = torch.arange(length, device=start.device)[None, None, :] + 0.5
    weights = (1 - (cells - centres).abs() / step.clamp(min=1.0)).clamp(min=0.0)
    return (weights / weights.sum(dim=-1, keepdim=True)).to(torch.float32)


def _flip(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror and transpose `(B, K, ..., H, W)` as each sample's flags say."""
    if flips.device.type == "cpu" and not flips.any():
        return images
    shape = (-1,) + (1,) * (images.dim() - 1)
    # On an accelerator the flags are not looked at: the host would wait for it.
    images = torch.where(flips[:, 0].view(shape), images.flip(-1), images)
    images = torch.where(flips[:, 1].view(shape), images.flip(-2), images)
    return torch.where(flips[:, 2].view(shape), images.transpose(-1, -2), images)
