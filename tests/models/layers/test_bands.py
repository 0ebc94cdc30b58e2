"""Any bands at once: the wavelength-conditioned embedding and head."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from a2mae.models import create_model
from a2mae.models.layers.bands import ABSENT_NM, WavelengthMixing


@pytest.fixture
def model(tiny):
    return create_model("a2mae_vit_tiny_patch8", bands="wavelength", spectral_rank=8, **tiny).eval()


@pytest.mark.parametrize("bands", [1, 4, 6])
@pytest.mark.parametrize("method", ["a2mae", "mae"])
def test_every_band_of_a_sensor_fits(method, bands, tiny, make_batch):
    model = create_model(f"{method}_vit_tiny_patch8", bands="wavelength", **tiny)
    out = model(make_batch(bands=bands))
    out.loss.backward()
    assert out.prediction["pixels"].shape == (2, 3, bands, 32, 48)
    radar = {"encoder.patch_embed.mixing.radar", "decoder.pred.mixing.radar"}
    assert all(p.grad is not None and (n in radar or p.grad.any()) for n, p in model.named_parameters())


@torch.no_grad()
def test_the_order_of_the_bands_means_nothing(model, make_batch):
    batch = make_batch(bands=4)
    order = [2, 0, 3, 1]
    other = dataclasses.replace(batch, pixels=batch.pixels[:, :, order], wavelength_nm=batch.wavelength_nm[..., order])
    hidden = torch.rand(2, 3, 24) < 0.7
    plain, shuffled = model(batch, hidden=hidden), model(other, hidden=hidden)
    assert_close(shuffled.loss, plain.loss, atol=1e-5, rtol=0)
    assert_close(shuffled.prediction["pixels"], plain.prediction["pixels"][:, :, order], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_absent_bands_are_neither_read_nor_scored(model, make_batch):
    batch = make_batch(bands=4)
    padded = dataclasses.replace(
        batch,
        pixels=torch.cat([batch.pixels, torch.full_like(batch.pixels[:, :, :2], 9.0)], dim=2),
        wavelength_nm=torch.nn.functional.pad(batch.wavelength_nm, (0, 2), value=ABSENT_NM),
    )
    hidden = torch.rand(2, 3, 24) < 0.7
    assert_close(model(padded, hidden=hidden).loss, model(batch, hidden=hidden).loss, atol=1e-5, rtol=0)


@torch.no_grad()
def test_near_wavelengths_have_near_weights():
    """Smooth in the wavelength, so that a band never seen is read like its neighbours."""
    mixing = WavelengthMixing(16)
    red, near_red, infrared = mixing(torch.tensor([665.0, 660.0, 2202.0]))
    assert (red - near_red).norm() < 0.1 * (red - infrared).norm()
    radar = mixing(torch.tensor([0.0]))[0]
    assert torch.equal(radar, mixing.radar)


@torch.no_grad()
def test_a_sensor_never_seen_is_read_by_the_encoder(model):
    images = torch.randn(2, 5, 32, 32)
    wavelength = torch.tensor([430.0, 545.0, 680.0, 1240.0, 10900.0])
    tokens = model.forward_features(images, gsd_m=7.5, wavelength_nm=wavelength)
    assert tokens.shape == (2, 17, 64) and tokens.isfinite().all()
    with pytest.raises(ValueError, match="needs wavelength_nm"):
        model.forward_features(images, gsd_m=7.5)


def test_more_bands_do_not_make_larger_tokens(model):
    few, many = (
        model.encoder.patch_embed(torch.randn(4, n, 32, 32), torch.linspace(450, 2200, n).expand(4, -1)).std()
        for n in (2, 12)
    )
    assert 0.5 < few / many < 2
