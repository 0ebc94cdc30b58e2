"""GeoSOT-2D codes of coordinates and footprints in torch (Cheng et al.; docs/methods.md, A²-MAE).

One coordinate is 32 bits: sign (1 = west or south), 8 bits of whole degrees, 6 of minutes, 6 of seconds and 11 of the
second's fraction in 1/2048. A code of layer n keeps its n leading bits: layer 9 is a cell of 1 degree, 15 of 1 minute,
21 of 1 second, 32 of 1/2048 second.

`stssd/tag/properties.py` has the same code for tables in NumPy. There are two because this one is traced into exported
graphs (torch.export, ONNX), while the stages that build image sets run without torch; a test holds them together
(tests/stssd/tag).
"""

from __future__ import annotations

import torch
from torch import Tensor

METRES_PER_DEGREE = 111_319.49
"""Of latitude, and of longitude at the equator (WGS 84 semi-major axis)."""

LAYERS = 32


def encode(degrees: Tensor, layer: int = LAYERS) -> Tensor:
    """Code coordinates.

    Args:
        degrees: `(...)` float64 longitudes or latitudes; negative is west or south.
        layer: 1 to 32, how many leading bits to keep.

    Returns:
        `(...)` int64 holding unsigned 32-bit codes.
    """
    # Units of 1/2048 second are whole numbers below 2^31, exact in float64.
    units = (degrees.double().abs() * (3600 * 2048)).floor().long()
    seconds = units // 2048
    # Sums and remainders rather than shifts: the same bits, and ONNX has no shift of signed integers.
    code = (
        (degrees < 0).long() * 2**31
        + (seconds // 3600) * 2**23
        + (seconds // 60 % 60) * 2**17
        + (seconds % 60) * 2**11
        + units % 2048
    )
    return code - code % (1 << (LAYERS - layer))


def codes_to_bits(codes: Tensor) -> Tensor:
    """Spread unsigned 32-bit codes into float32 bits, the most significant first.

    Args:
        codes: `(..., 8)` int64: four corners (upper left, upper right, lower right, lower left) x (lon, lat).

    Returns:
        `(..., 256)` of 0 and 1.
    """
    powers = torch.tensor([2**n for n in range(LAYERS - 1, -1, -1)], device=codes.device)
    # Remainders, no quotients: torch 2.8 exports the integer quotient of two tensors wrongly.
    return (codes[..., None] % (2 * powers) >= powers).flatten(-2).float()


def footprint_bits(lonlat_deg: Tensor, size_m: Tensor, layer: int) -> Tensor:
    """Code the footprint around a centre, on a local flat Earth.

    Args:
        lonlat_deg: `(..., 2)` longitude and latitude of the centre.
        size_m: `(..., 2)` extent east-west and north-south in metres.
        layer: Leading bits to keep, the same as in the training data.

    Returns:
        `(..., 256)`, corners upper left, upper right, lower right, lower left.
    """
    lon, lat = lonlat_deg.double().unbind(-1)
    width, height = size_m.double().unbind(-1)
    half_lat = height / 2 / METRES_PER_DEGREE
    # The cosine in float32, the one that older ONNX Runtimes (1.20 to 1.27) have: 0.02 mm of 640 m.
    shrink = torch.cos(torch.deg2rad(lat).float()).double().clamp(min=1e-6)
    half_lon = width / 2 / (METRES_PER_DEGREE * shrink)
    west, east = _wrap(lon - half_lon), _wrap(lon + half_lon)
    north, south = (lat + half_lat).clamp(max=90), (lat - half_lat).clamp(min=-90)
    corners = torch.stack([west, north, east, north, east, south, west, south], dim=-1)
    return codes_to_bits(encode(corners, layer))


def _wrap(lon: Tensor) -> Tensor:
    return torch.remainder(lon + 180, 360) - 180
