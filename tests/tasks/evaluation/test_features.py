"""Frozen features: an encoder's, those of timm's networks, and the plain baselines."""

import numpy as np
import pytest
import torch

from a2mae.models.checkpoint import load_encoder
from a2mae.tasks.datasets.inputs import TaskInputs, plan_inputs
from a2mae.tasks.evaluation.features import (
    ConvolutionFeatures,
    EncoderFeatures,
    coarser,
    histogram_features,
    pixel_features,
    statistics_features,
)
from a2mae.tasks.parameters import EvaluateParameters
from helpers.evaluation import STATISTICS, batch_of


@pytest.mark.parametrize("scale", [0.125, 0.25, 0.5])
def test_coarser_images_keep_their_mean_and_say_their_gsd(scale):
    images = torch.rand(2, 3, 64, 64)
    seen = coarser(batch_of(images), scale, 8)
    assert seen.images.shape[-1] == 64 * scale
    torch.testing.assert_close(seen.images.mean((-1, -2))[:, 0], images.mean((-1, -2)))
    assert seen.gsd_m.tolist() == [10.0 / scale] * 2
    # one pixel is the mean of its block
    side = int(1 / scale)
    torch.testing.assert_close(seen.images[0, 0, 0, 0, 0], images[0, 0, :side, :side].mean())


def test_a_side_below_the_patch_is_enlarged_and_its_gsd_is_that_of_the_pixels_fed():
    seen = coarser(batch_of(torch.rand(1, 3, 64, 64)), 0.125, 16)
    assert seen.images.shape[-1] == 16
    assert seen.gsd_m.tolist() == [40.0]


def test_baselines_are_what_they_say():
    images = torch.zeros(1, 3, 16, 16)
    images[0, 0, :8] = 10.0  # beyond three deviations: counted in the last bin
    histogram = histogram_features(batch_of(images)).reshape(3, 32)
    assert histogram.sum(1).tolist() == [1.0, 1.0, 1.0]
    assert histogram[0, 31] == histogram[0, 16] == 0.5
    pixels = pixel_features(batch_of(images)).reshape(3, 8, 8)
    assert pixels[0, :4].min() == 10.0
    assert pixels[0, 4:].max() == 0.0


def test_encoder_features_are_the_encoders(pretrained, data):
    encoder = load_encoder(pretrained)
    plan = plan_inputs(data, ("red", "green", "blue") * 2, STATISTICS, bands_per_view=3, location=True)
    batch = TaskInputs(data, plan).batch(np.arange(3))
    with torch.no_grad():
        tokens = encoder.forward_features(
            batch.images[:, 0, :3], gsd_m=batch.gsd_m, lonlat_deg=batch.lonlat_deg, day=batch.day[:, 0]
        )
    patches = tokens[:, 1:]
    spread = (patches - patches.mean(1, keepdim=True)).square().mean(1).sqrt()
    for pool, expected in (
        ("cls", tokens[:, 0]),
        ("mean", patches.mean(1)),
        ("mean_std", torch.cat([patches.mean(1), spread], 1)),
    ):
        found = EncoderFeatures(encoder, pool=pool, bands_per_view=3)(batch)
        torch.testing.assert_close(found, torch.cat([expected, expected], 1))


@torch.no_grad()
def test_layers_are_those_of_the_encoder(pretrained, data):
    encoder = load_encoder(pretrained)
    plan = plan_inputs(data, ("red", "green", "blue") * 2, STATISTICS, bands_per_view=3)
    batch = TaskInputs(data, plan).batch(np.arange(3))
    last = EncoderFeatures(encoder, pool="mean", bands_per_view=3)(batch)
    features = EncoderFeatures(encoder, pool="mean", bands_per_view=3, layers=("joined", "middle", "last"))
    assert features.parts == 3 and list(features.readouts) == ["joined", "middle", "last"]
    parts = torch.unflatten(features(batch), 1, (3, -1))
    torch.testing.assert_close(parts[:, features.readouts["last"]].flatten(1), last)
    maps = encoder.forward_intermediates(
        batch.images[:, 0, :3], [0, 0, 1], norm=True, gsd_m=batch.gsd_m, day=batch.day[:, 0]
    )
    for number, level in enumerate(maps):  # two blocks: the first is the middle one
        torch.testing.assert_close(parts[:, number, : level.shape[1]], level.mean((-1, -2)))
    assert parts[:, features.readouts["joined"]].shape[1] == 3
    with pytest.raises(ValueError, match=r"evaluate\.layers: joined needs patch tokens, and evaluate.pool is cls"):
        EvaluateParameters(layers=("joined",), pool="cls")


def test_random_convolution_features_are_drawn_from_training_images_alone(data):
    plan = plan_inputs(data, ("red", "green", "blue"), STATISTICS, bands_per_view=3)
    inputs = TaskInputs(data, plan)
    batch = inputs.batch(data.rows("train"))
    found = ConvolutionFeatures(inputs, seed=0)(batch)
    assert found.shape == (len(batch.images), 256)
    torch.testing.assert_close(found.mean(0), torch.zeros(256), atol=1e-4, rtol=0)  # standardised on these images
    assert torch.equal(found, ConvolutionFeatures(inputs, seed=0)(batch))
    assert not torch.equal(found, ConvolutionFeatures(inputs, seed=1)(batch))


def test_statistics_are_those_of_each_band():
    images = torch.arange(2 * 3 * 64).float().view(2, 3, 8, 8)
    found = statistics_features(batch_of(images)).view(2, 7, 3)
    flat = images.flatten(2)
    torch.testing.assert_close(found[:, 0], flat.mean(2))
    torch.testing.assert_close(found[:, 1], flat.std(2, correction=0))
    torch.testing.assert_close(found[:, 4], flat.quantile(0.5, dim=2))


def test_half_precision_gives_nearly_the_same_features(pretrained, data):
    encoder = load_encoder(pretrained)
    plan = plan_inputs(data, ("red", "green", "blue"), STATISTICS, bands_per_view=3)
    batch = TaskInputs(data, plan).batch(np.arange(4))
    whole, half = (
        EncoderFeatures(encoder, pool="mean_std", bands_per_view=3, precision=precision)(batch)
        for precision in ("32-true", "bf16-mixed")
    )
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.05 * whole.abs().max()
