"""From stored integers to the batch a model sees: normalise, crop, resize, mirror; batched, on any device.

Crop and resize are one step: each output pixel is a weighted mean of the stored pixels under it, with the window's
edges where its metres say, also between two stored pixels. So images of 4, 10 and 30 m show exactly the same ground.
"""

from __future__ import annotations

import torch
from torch import Tensor

from a2mae.models.batch import ImageSetBatch
from a2mae.models.layers.bands import ABSENT_NM
from a2mae.models.layers.losses import full_precision
from a2mae.training.reading.raw import BandTables, RawBatch


def prepare(raw: RawBatch, tables: BandTables, size: int) -> ImageSetBatch:
    """Make the batch that the models take.

    Args:
        raw: B samples of K images, on the device where the work is to be done.
        tables: Normalisation, on the same device.
        size: Side of the images that come out, pixels.

    Returns:
        The batch; `gsd_m` is the distance between its pixels, so the window's metres over `size`.
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
            # Decoding and normalising are linear, so they may follow the resize, where there are fewer pixels.
            normalised = resized * gain[..., None, None] + bias[..., None, None]
        pixels[group.slot] = normalised if seen is None else normalised * seen[:, None]
        valid[group.slot] = True if seen is None else seen
        wavelength[group.slot] = torch.where(present, tables.wavelength_nm[group.sensor][bands], ABSENT_NM)
        footprint_m[group.slot] = native_gsd_m[group.slot] * group.grid[1]
    pixels = pixels.view(samples, per_sample, channels, size, size)
    valid = valid.view(samples, per_sample, size, size)
    side_m = footprint_m.view(samples, per_sample) * raw.window[:, 2:3]
    bits = torch.arange(31, -1, -1, device=device)
    return ImageSetBatch(
        pixels=_flip(pixels, raw.flips),
        gsd_m=(side_m / size).to(torch.float32),
        geosot_bits=((raw.geosot[..., None] >> bits) & 1).flatten(-2).to(torch.float32),
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
        `(n, C, size, size)` float32, 0 where invalid; `(n, size, size)` bool, True where at least half of what lies
        under the pixel is valid, None if all of it is.
    """
    height, width = values.shape[-2:]
    all_rows, all_columns = grid or (height, width)
    rows = resize_weights(height, window[:, 1] * all_rows - origin[0], window[:, 2] * all_rows, size)
    columns = resize_weights(width, window[:, 0] * all_columns - origin[1], window[:, 2] * all_columns, size)
    columns = columns.transpose(1, 2)
    if valid is None:
        return rows[:, None] @ values @ columns[:, None], None
    weight = valid.to(values.dtype)[:, None]
    share = rows[:, None] @ weight @ columns[:, None]
    mean = rows[:, None] @ (values * weight) @ columns[:, None]
    seen = share >= 0.5
    return torch.where(seen, mean / share.clamp(min=1e-6), 0.0), seen[:, 0]


def resize_weights(length: int, start: Tensor, extent: Tensor, size: int) -> Tensor:
    """Weights of an antialiased bilinear resize of a stretch of one axis.

    Args:
        length: Stored pixels along the axis.
        start: `(n,)` where the stretch begins, in stored pixels from the edge.
        extent: `(n,)` its length in stored pixels.
        size: Pixels that come out.

    Returns:
        `(n, size, length)` float32; every row sums to 1. Output pixel i is a triangle around its centre, as wide as
        the coarser of the two grids: torch's `interpolate(..., mode="bilinear", antialias=True)`, at any offset.
    """
    step = (extent / size)[:, None, None]
    centres = start[:, None, None] + (torch.arange(size, device=start.device)[None, :, None] + 0.5) * step
    cells = torch.arange(length, device=start.device)[None, None, :] + 0.5
    weights = (1 - (cells - centres).abs() / step.clamp(min=1.0)).clamp(min=0.0)
    return (weights / weights.sum(dim=-1, keepdim=True)).to(torch.float32)


def _flip(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror and transpose `(B, K, ..., H, W)` as each sample's flags say."""
    shape = (-1,) + (1,) * (images.dim() - 1)
    # The flags stay on the device: asking whether any is set would make the host wait for it.
    images = torch.where(flips[:, 0].view(shape), images.flip(-1), images)
    images = torch.where(flips[:, 1].view(shape), images.flip(-2), images)
    return torch.where(flips[:, 2].view(shape), images.transpose(-1, -2), images)
