"""Positional, geographic and temporal encodings: functions of metres, degrees and days, per sample and grid.

Nothing here is learned or interpolated: an encoding is computed from where a patch lies, not looked up in a table. All
functions compute and return float32; the caller casts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from a2mae.errors import InputError

DAYS_PER_YEAR = 365.2425


@dataclass(frozen=True)
class Place:
    """Where, when and at which scale the K images of each sample were seen.

    Attributes:
        gsd_m: `(B, K)` metres per pixel.
        geosot_bits: `(B, K, 256)` of 0 and 1, the most significant bit of each code first; None: place unknown.
        day: `(B, K)` days since 1970-01-01 UTC; None: date unknown.
    """

    gsd_m: Tensor
    geosot_bits: Tensor | None = None
    day: Tensor | None = None


def sincos_1d(position: Tensor, dim: int) -> Tensor:
    """Encode positions by all sines, then all cosines, at `dim / 2` frequencies w_k = 10000^(-k / (dim / 2)).

    Args:
        position: Any shape, any unit.
        dim: Even.

    Returns:
        `(*position.shape, dim)`.
    """
    k = torch.arange(dim // 2, dtype=torch.float32, device=position.device)
    w = 1.0 / 10000 ** (k / (dim / 2.0))
    angle = position.float()[..., None] * w
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def sincos_2d(grid_size: tuple[int, int], scale: Tensor, dim: int) -> Tensor:
    """Encode the patch index times the scale, PE(x, y) = [e_x, e_y], the GSD encoding of Scale-MAE §3.1.

    Args:
        grid_size: Patches in height and width.
        scale: `(...)` the ratio r of the sample's GSD to the reference; 1 gives the plain encoding of MAE.
        dim: A multiple of 4; half of it for each axis, x first.

    Returns:
        `(..., N, dim)` with N = height * width patches in row order.

    Raises:
        InputError: If dim is not a multiple of 4.
    """
    if dim % 4:
        raise InputError(f"a 2-D sine-cosine encoding needs a dim that is a multiple of 4, found {dim}")
    height, length = grid_size
    r = scale.float()[..., None]
    e_x = sincos_1d(torch.arange(length, device=scale.device) * r, dim // 2)  # (..., W, dim/2)
    e_y = sincos_1d(torch.arange(height, device=scale.device) * r, dim // 2)  # (..., H, dim/2)
    shape = (*scale.shape, height, length, dim // 2)
    return torch.cat([e_x[..., None, :, :].expand(shape), e_y[..., :, None, :].expand(shape)], dim=-1).flatten(-3, -2)


def location_encoding(bits: Tensor, dim: int) -> Tensor:
    """Take the leading bits of the eight GeoSOT codes, as many as fit (A²-MAE: all 256 at dim 1024).

    Args:
        bits: `(..., 256)`.
        dim: Of the encoder: a multiple of 32, at most 1024; a quarter of it holds the location.

    Returns:
        `(..., dim / 4)`: at 1024 the 32 bits of each code, at narrower ones the dim / 32 most significant.
    """
    return torch.unflatten(bits.float(), -1, (8, 32))[..., : dim // 32].flatten(-2)


def paper_encoding(grid_size: tuple[int, int], place: Place, dim: int, gsd_reference_m: float) -> Tensor:
    """Encode the anchor's location and three images' scales for all images alike (A²-MAE, geographic encoding).

    The paper has three slots, for images 1, 2 and 3. In a smaller set the anchor fills the free slots (the released
    sampler repeats image 1); of a larger one the first three images fill them [ours].

    Args:
        grid_size: Patches in height and width.
        place: Of K images, the first is the anchor.
        dim: 1024 = 256 location + 3 x 256 scale; narrower ones keep those shares.
        gsd_reference_m: The GSD whose ratio is 1.

    Returns:
        `(B, 1, N, dim)`: one vector per patch index, the same for every image of the set.
    """
    images = place.gsd_m.shape[1]
    slots = [index if index < images else 0 for index in range(3)]
    # Stacked columns rather than a list of indices, which would be copied to the device in every step.
    ratio = torch.stack([place.gsd_m[:, slot] for slot in slots], dim=1) / gsd_reference_m  # (B, 3)
    scale = sincos_2d(grid_size, ratio, dim // 4).permute(0, 2, 1, 3).flatten(2)  # (B, N, 3 * dim/4)
    location = _location(place, dim)[:, :1].expand(-1, scale.shape[1], -1)  # (B, N, dim/4)
    return torch.cat([location, scale], dim=-1)[:, None]


def own_encoding(grid_size: tuple[int, int], place: Place, dim: int, gsd_reference_m: float) -> Tensor:
    """Encode each image's own place, scale and date, in shares 1 : 2 : 1 [ours].

    Returns:
        `(B, K, N, dim)`.
    """
    scale = sincos_2d(grid_size, place.gsd_m / gsd_reference_m, dim // 2)  # (B, K, N, dim/2)
    tokens = scale.shape[:3]
    location = _location(place, dim)[:, :, None].expand(*tokens, -1)
    if place.day is None:
        time = scale.new_zeros(*tokens, dim // 4)
    else:
        time = time_encoding(place.day, dim // 4)[:, :, None].expand(*tokens, -1)
    return torch.cat([location, scale, time], dim=-1)


def own_decoder_encoding(
    grid_size: tuple[int, int], place: Place, wavelength_nm: Tensor, dim: int, gsd_reference_m: float
) -> Tensor:
    """Encode each image's own scale, date and bands for the decoder, in shares 2 : 1 : 1 [ours].

    With the GSD alone, as published, two dates of one sensor have the same mask tokens, so where both are hidden the
    decoder predicts the same for both. The location is left out, as published.

    Args:
        grid_size: Patches in height and width.
        place: Of K images.
        wavelength_nm: `(B, K, C)`.
        dim: Of the decoder, a multiple of 16.
        gsd_reference_m: The GSD whose ratio is 1.

    Returns:
        `(B, K, N, dim)`.
    """
    scale = sincos_2d(grid_size, place.gsd_m / gsd_reference_m, dim // 2)  # (B, K, N, dim/2)
    tokens = scale.shape[:3]
    day = torch.zeros_like(place.gsd_m) if place.day is None else place.day
    image = torch.cat([time_encoding(day, dim // 4), band_encoding(wavelength_nm, dim // 4)], dim=-1)
    return torch.cat([scale, image[:, :, None].expand(*tokens, -1)], dim=-1)


def band_encoding(wavelength_nm: Tensor, dim: int) -> Tensor:
    """Encode the bands of an image, in their order, by sines and cosines of each wavelength in octaves [ours].

    Args:
        wavelength_nm: `(..., C)` nanometres.
        dim: Shared evenly by the bands; what is left over is zero.

    Returns:
        `(..., dim)`.
    """
    share = dim // wavelength_nm.shape[-1] // 2
    octave = torch.log2(wavelength_nm.float().clamp(min=1.0) / 1000)[..., None]  # 0 at 1 um
    phase = octave * 2.0 ** torch.arange(share, dtype=torch.float32, device=wavelength_nm.device)  # (..., C, share)
    code = torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(-2)
    return torch.nn.functional.pad(code, (0, dim - code.shape[-1]))


def temporal_encoding(grid_size: tuple[int, int], place: Place, dim: int) -> Tensor:
    """Encode patch index, year, month and hour, in shares 5 : 1 : 1 : 1 (SatMAE §3.2).

    Returns:
        `(B, K, N, dim)`; at dim 1024 the 384 temporal dims of the paper. Unknown dates have zeros.
    """
    ones = torch.ones_like(place.gsd_m)
    spatial = sincos_2d(grid_size, ones, dim * 5 // 8)  # (B, K, N, 5/8 dim)
    if place.day is None:
        time = spatial.new_zeros(*ones.shape, dim * 3 // 8)
    else:
        time = torch.cat([sincos_1d(part, dim // 8) for part in year_month_hour(place.day)], dim=-1)
    return torch.cat([spatial, time[:, :, None].expand(*spatial.shape[:3], -1)], dim=-1)


def group_encoding(grid_size: tuple[int, int], groups: int, dim: int, device: torch.device) -> Tensor:
    """Encode patch index and number of the band group, in shares 3 : 1 (SatMAE §3.3).

    Returns:
        `(1, G, N, dim)`; at dim 1024 the 256 spectral dims of the paper.
    """
    spatial = sincos_2d(grid_size, torch.ones(1, groups, device=device), dim * 3 // 4)
    group = sincos_1d(torch.arange(groups, device=device), dim // 4)[None, :, None]  # (1, G, 1, dim/4)
    return torch.cat([spatial, group.expand(*spatial.shape[:3], -1)], dim=-1)


def year_month_hour(day: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn days since 1970-01-01 UTC into calendar year since 2002, month from 0, and hour (proleptic Gregorian).

    Counted from March, every 400 years have 146,097 days and the lengths of months follow a line.
    """
    whole = day.double().floor()
    hour = ((day.double() - whole) * 24).floor()
    shifted = whole.long() + 719_468  # days since 0000-03-01
    era = torch.div(shifted, 146_097, rounding_mode="floor")
    in_era = shifted - era * 146_097
    year_of_era = (in_era - in_era // 1460 + in_era // 36_524 - in_era // 146_096) // 365
    day_of_year = in_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153  # 0 is March
    january_first = (month + 2) % 12
    year = year_of_era + era * 400 + (month >= 10).long()
    return (year - 2002).float(), january_first.float(), hour.float()


def time_encoding(day: Tensor, dim: int) -> Tensor:
    """Encode a date by integer harmonics of the year (continuous at new year) and by years since 2000 [ours].

    Args:
        day: Any shape, days since 1970-01-01.
        dim: A multiple of 4.

    Returns:
        `(*day.shape, dim)`; the j-th harmonic has amplitude 1/j, so that near dates have near encodings.
    """
    years = (day.float() - 10957.0) / DAYS_PER_YEAR  # 10957 days from 1970 to 2000
    harmonic = torch.arange(1, dim // 4 + 1, dtype=torch.float32, device=day.device)
    phase = 2 * math.pi * years[..., None] * harmonic
    season = torch.cat([phase.sin() / harmonic, phase.cos() / harmonic], dim=-1)
    return torch.cat([season, sincos_1d(years, dim // 2)], dim=-1)


def _location(place: Place, dim: int) -> Tensor:
    if place.geosot_bits is None:
        return torch.zeros(*place.gsd_m.shape, dim // 4, device=place.gsd_m.device)
    return location_encoding(place.geosot_bits, dim)
