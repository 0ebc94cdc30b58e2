"""Crop, resize and normalise: against torch's own resize, and against the metres."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from a2mae.training.data.prepare import RawBatch, RawImages, band_tables, crop_resize, prepare, resize_weights


@pytest.mark.parametrize(("source", "target"), [(64, 32), (48, 32), (16, 32), (33, 20), (32, 32)])
def test_a_whole_image_is_resized_as_torch_does(source: int, target: int) -> None:
    values = torch.randn(2, 3, source, source, generator=torch.Generator().manual_seed(0))
    window = torch.tensor([[0.0, 0.0, 1.0]] * 2, dtype=torch.float64)
    ours, valid = crop_resize(values, torch.ones(2, source, source, dtype=torch.bool), window, target)
    assert valid is not None and torch.allclose(crop_resize(values, None, window, target)[0], ours, atol=1e-5)
    reference = torch.nn.functional.interpolate(
        values, (target, target), mode="bilinear", antialias=True, align_corners=False
    )
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)
    assert valid.all()


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(8, 200),
    left=st.floats(0, 0.7),
    side=st.floats(0.1, 0.3),
    size=st.integers(4, 64),
)
def test_a_ramp_stays_where_its_metres_are(length: int, left: float, side: float, size: int) -> None:
    # A linear ramp is reproduced exactly wherever the filter does not touch the edge of the image.
    weights = resize_weights(length, torch.tensor([left * length]), torch.tensor([side * length]), size)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, size))
    ramp = (torch.arange(length) + 0.5) / length
    expected = left + side * (torch.arange(size) + 0.5) / size
    rim = max(1.0, side * length / size) / length
    inside = (expected > rim) & (expected < 1 - rim)
    found = (weights[0] @ ramp)[inside]
    torch.testing.assert_close(found, expected[inside].float(), atol=1.2 / length, rtol=0)


def test_images_of_different_gsd_show_the_same_ground() -> None:
    def scene(size: int) -> torch.Tensor:
        centre = (torch.arange(size) + 0.5) / size
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        return (torch.sin(6 * x) + torch.cos(5 * y))[None, None]

    window = torch.tensor([[0.21, 0.34, 0.43]], dtype=torch.float64)
    fine, _ = crop_resize(scene(240), None, window, 24)
    coarse, _ = crop_resize(scene(80), None, window, 24)
    assert (fine - coarse).abs().max() < 0.01


def test_a_part_gives_what_the_whole_gives() -> None:
    values = torch.randn(1, 2, 120, 120, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(1, 120, 120, generator=torch.Generator().manual_seed(1)) > 0.2
    window = torch.tensor([[0.3, 0.4, 0.25]], dtype=torch.float64)
    whole, seen = crop_resize(values, valid, window, 16)
    part = slice(40, 90), slice(30, 80)
    cut, cut_seen = crop_resize(
        values[:, :, part[0], part[1]], valid[:, part[0], part[1]], window, 16, grid=(120, 120), origin=(40, 30)
    )
    torch.testing.assert_close(cut, whole)
    assert torch.equal(seen, cut_seen)


def test_invalid_pixels_do_not_leak() -> None:
    values = torch.ones(1, 1, 32, 32)
    valid = torch.ones(1, 32, 32, dtype=torch.bool)
    values[:, :, :12], valid[:, :12] = 1e6, False
    resized, seen = crop_resize(values, valid, torch.tensor([[0.0, 0.0, 1.0]]), 16)
    assert not seen[0, :5].any() and seen[0, 7:].all()
    assert resized.max() <= 1 + 1e-5 and (resized[0, 0][~seen[0]] == 0).all()


def make_raw(flips: tuple[bool, bool, bool] = (False, False, False)) -> RawBatch:
    """One sample of two images: sensor 0 with 8 pixels of 30 m, sensor 1 with 24 pixels of 10 m."""

    def group(sensor: int, size: int, slot: int, bands: list[int]) -> RawImages:
        pixels = torch.from_numpy(
            np.arange(len(bands) * size * size, dtype=np.uint16).reshape(1, len(bands), size, size)
        )
        return RawImages(
            sensor, (size, size), (0, 0), pixels, torch.ones(1, size, size, dtype=torch.bool), torch.tensor([bands]),
            torch.tensor([slot]), True,
        )  # fmt: skip

    codes = torch.tensor([[[1, 2**31, 0, 0, 0, 0, 0, 2**32 - 1]] * 2])
    return RawBatch(
        images=(group(0, 8, 0, [0, 1]), group(1, 24, 1, [2, -1])),
        window=torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64),
        flips=torch.tensor([flips]),
        gsd_m=torch.tensor([[30.0, 10.0]], dtype=torch.float64),
        sensor_id=torch.tensor([[0, 1]]),
        day=torch.tensor([[1.0, 2.0]]),
        lonlat_deg=torch.zeros(1, 2, 2, dtype=torch.float64),
        geosot=codes,
        index=torch.tensor([5]),
    )


TABLES = band_tables(
    [(1e-4, -0.1), (2.0, 1.0)], [[0.1, 0.2], [1.0, 2.0, 3.0]], [[0.5, 0.25], [1.0, 1.0, 4.0]], [[490, 560], [1, 2, 3]]
)


def test_gsd_is_that_of_what_is_seen() -> None:
    batch = prepare(make_raw(), TABLES, 12)
    # 240 m of ground, half of it seen, 12 pixels.
    torch.testing.assert_close(batch.gsd_m, torch.full((1, 2), 10.0))
    assert batch.pixels.shape == (1, 2, 2, 12, 12) and batch.valid.all()
    assert batch.same_source_as_anchor.tolist() == [[True, False]]


def test_pixels_are_decoded_normalised_and_absent_bands_are_empty() -> None:
    raw = make_raw()
    whole = RawBatch(**{**raw.__dict__, "window": torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)})
    batch = prepare(whole, TABLES, 8)
    stored = np.arange(64, 128, dtype=np.float64).reshape(8, 8)
    expected = (stored * 1e-4 - 0.1 - 0.2) / 0.25
    np.testing.assert_allclose(batch.pixels[0, 0, 1].numpy(), expected, rtol=1e-5)
    assert (batch.pixels[0, 1, 1] == 0).all()
    assert batch.wavelength_nm.tolist() == [[[490, 560], [3, -1]]]


def test_geosot_codes_become_bits_most_significant_first() -> None:
    bits = prepare(make_raw(), TABLES, 4).geosot_bits[0, 0].view(8, 32)
    assert bits[0].tolist() == [0.0] * 31 + [1.0]
    assert bits[1].tolist() == [1.0] + [0.0] * 31
    assert bits[7].sum() == 32 and bits[2:7].sum() == 0


def test_flips_are_the_same_for_all_images() -> None:
    plain = prepare(make_raw(), TABLES, 12).pixels
    assert torch.equal(prepare(make_raw((True, False, False)), TABLES, 12).pixels, plain.flip(-1))
    assert torch.equal(prepare(make_raw((False, True, True)), TABLES, 12).pixels, plain.flip(-2).transpose(-1, -2))
