from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from a2mae.models.layers.geosot import codes_to_bits, encode, footprint_bits


def dms(degrees: float, minutes: float, seconds: float) -> torch.Tensor:
    return torch.tensor(degrees + minutes / 60 + seconds / 3600, dtype=torch.float64)


LAT, LON = dms(39, 54, 37.0098), dms(116, 18, 54.8198)  # the worked example of github.com/dadream/geosot


def quaternary(lon_code: int, lat_code: int, layer: int) -> str:
    """The published text form: a digit per layer, 2 * latitude bit + longitude bit, as degrees-minutes-seconds."""
    digits = [str(2 * (lat_code >> shift & 1) + (lon_code >> shift & 1)) for shift in range(31, 31 - layer, -1)]
    text = "".join(digits)
    groups = [text[:9], text[9:15], text[15:21]]
    return "G" + "-".join(group for group in groups if group) + ("." + text[21:] if layer > 21 else "")


def test_published_codes():
    lon, lat = int(encode(LON, 15)), int(encode(LAT, 15))
    assert (lon >> 17, lat >> 17) == (7442, 2550)  # column and row of layer 15
    assert quaternary(lon, lat, 15) == "G001310322-230230"
    # The example of the Rust package `geosot`: 76.233 E, 27.688 N at layer 32.
    point = torch.tensor([76.233, 27.688], dtype=torch.float64)
    assert quaternary(*encode(point).tolist(), 32) == "G001023122-203103-131010.33003300330"


@pytest.mark.parametrize(
    ("layer", "lat", "lon"),
    [
        (7, (36, 0, 0), (116, 0, 0)),
        (8, (38, 0, 0), (116, 0, 0)),
        (9, (39, 0, 0), (116, 0, 0)),
        (14, (39, 54, 0), (116, 18, 0)),
        (20, (39, 54, 36), (116, 18, 54)),
        (21, (39, 54, 37), (116, 18, 54)),
        (23, (39, 54, 37), (116, 18, 54.75)),
        (26, (39, 54, 37), (116, 18, 54.78125)),
        (27, (39, 54, 37), (116, 18, 54.796875)),
    ],
)
def test_published_cell_corners(layer, lat, lon):
    """The examples of github.com/catnuko/geosot for 39° 54′ 37.0″ N, 116° 18′ 54.8″ E."""
    tiny = 1e-10  # a coordinate on a cell's edge must not fall below it in rounding
    assert int(encode(dms(39, 54, 37.0) + tiny, layer)) == int(encode(dms(*lat) + tiny))
    assert int(encode(dms(116, 18, 54.8), layer)) == int(encode(dms(*lon) + tiny))


@given(st.floats(-180, 180), st.integers(1, 32))
def test_a_code_is_its_leading_bits(degrees, layer):
    value = torch.tensor(degrees, dtype=torch.float64)
    full, cut = int(encode(value)), int(encode(value, layer))
    assert cut == full >> (32 - layer) << (32 - layer)
    assert 0 <= cut < 2**32
    assert (full >> 31 == 1) == (degrees < 0)


def test_bits_are_the_most_significant_first():
    codes = torch.tensor([[2**31, 1, 0, 0, 0, 0, 0, 2**32 - 1]])
    bits = codes_to_bits(codes)[0]
    assert bits.shape == (256,)
    assert bits[0] == 1 and bits[1:63].sum() == 0 and bits[63] == 1 and bits[224:].sum() == 32


def test_footprints_differ_by_place_and_hemisphere():
    size = torch.tensor([[1920.0, 1920.0]])
    here, there, mirrored = (
        footprint_bits(torch.tensor([lonlat], dtype=torch.float64), size, 14)
        for lonlat in ((12.5, 41.9), (12.6, 41.9), (-12.5, -41.9))
    )
    assert here.shape == (1, 256) and not torch.equal(here, there)
    signs = mirrored.view(8, 32)[:, 0]
    assert signs.all() and not here.view(8, 32)[:, 0].any()
    assert not here.view(8, 32)[:, 14:].any(), "everything below layer 14 is zero"
    # Across the date line the eastern corners are west of Greenwich.
    edge = footprint_bits(torch.tensor([[180.0, 0.0]], dtype=torch.float64), size, 14).view(4, 2, 32)
    assert edge[:, 0, 0].tolist() == [0, 1, 1, 0]
