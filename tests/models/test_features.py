"""Random convolution features in the models: as a stem beside the patch embedding, and as a target of the decoder."""

import dataclasses

import pytest
import torch

from a2mae.models import create_model, from_pretrained, load_encoder, save_pretrained
from a2mae.models.layers.masking import whole_patches
from a2mae.models.layers.rcf import LIMIT
from a2mae.models.pretrainer import FeaturePrediction
from a2mae.tasks.finetune.encoders import random_init

METHODS = ("a2mae", "scale_mae", "mae")
BOTH = {"stem": "rcf", "rcf_weight": 1.0, "pixel_weight": 0.3}


def fitted(method, batch, tiny, **options):
    torch.manual_seed(0)
    model = create_model(f"{method}_vit_tiny_patch8", **tiny, **options)
    model.fit_features(batch, seed=1)
    return model


@pytest.mark.parametrize("method", METHODS)
def test_a_step_reaches_every_parameter_and_no_filter(method, tiny, make_batch):
    batch = make_batch(batch=6, all_valid=False)
    model = fitted(method, batch, tiny, **BOTH)
    filters = [module.filters.clone() for module in model.random_features]
    assert len(filters) == 2 and torch.equal(*filters) and filters[0].any()
    out = model(batch)
    out.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert not any("filters" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_the_weighted_sum_of_both(method, tiny, make_batch):
    batch = make_batch(batch=6, all_valid=False)
    losses = {}
    for pixel, feature in ((1.0, 0.0), (0.0, 1.0), (0.3, 2.0)):
        model = fitted(method, batch, tiny, stem="rcf", rcf_weight=1.0)
        model.config = dataclasses.replace(model.config, pixel_weight=pixel, rcf_weight=feature)
        losses[pixel, feature] = model(batch, generator=torch.Generator().manual_seed(3)).loss
    torch.testing.assert_close(losses[0.3, 2.0], 0.3 * losses[1.0, 0.0] + 2 * losses[0.0, 1.0])


def test_the_feature_loss_is_the_mean_error_over_hidden_whole_patches(tiny, make_batch):
    batch = make_batch(batch=6, height=32, width=32)
    model = fitted("mae", batch, tiny, rcf_weight=1.0, pixel_weight=0.0).eval()
    with torch.no_grad():
        for parameter in model.features.head.parameters():
            parameter.zero_()  # predicts the mean, zeros: the error is the features' own size
        out = model(batch, generator=torch.Generator().manual_seed(3))
    features = model.features.rcf.of_patches(batch.pixels, 8)  # (B, K, N, F)
    torch.testing.assert_close(out.loss, features.abs().mean(-1)[out.hidden].mean())
    assert features.abs().max() <= LIMIT


def test_a_patch_that_was_not_seen_as_a_whole_is_no_target(tiny, make_batch):
    batch = make_batch(batch=6, all_valid=False)
    model = fitted("a2mae", batch, tiny, rcf_weight=1.0, pixel_weight=0.0).eval()
    torn = ~whole_patches(batch.valid, 8)  # (B, K, N)
    assert torn.any()
    hidden = torch.zeros_like(torn)
    hidden[:, :, 1::2] = True
    before = model(batch, hidden=hidden).loss
    # Other values in the seen pixels of hidden, torn patches are neither shown to the encoder nor scored.
    change = (torn & hidden).unflatten(2, (4, 6)).repeat_interleave(8, 2).repeat_interleave(8, 3) & batch.valid
    assert change.any()
    object.__setattr__(batch, "pixels", batch.pixels + 3 * change[:, :, None])
    torch.testing.assert_close(model(batch, hidden=hidden).loss, before)


def test_two_parts_of_a_batch_add_up_to_the_whole(tiny, make_batch):
    batch = make_batch(batch=6, all_valid=False)
    model = fitted("a2mae", batch, tiny, **BOTH).eval()
    hidden = torch.rand(6, 3, 24, generator=torch.Generator().manual_seed(0)) < 0.6
    whole = model(batch, hidden=hidden)
    total = weight = 0
    for part in (slice(0, 2), slice(2, 6)):
        fields = {field.name: getattr(batch, field.name)[part] for field in dataclasses.fields(batch)}
        out = model(type(batch)(**fields), hidden=hidden[part])
        total, weight = total + out.loss * out.token_weight.sum(), weight + out.token_weight.sum()
    torch.testing.assert_close(total / weight, whole.loss)


@torch.no_grad()
def test_the_stem_adds_structure_within_a_patch_and_nothing_of_its_neighbours(tiny, make_batch):
    batch = make_batch(batch=6)
    embed = fitted("a2mae", batch, tiny, stem="rcf").encoder.patch_embed
    images = batch.pixels[:, 0].clone()
    before = embed(images)
    images[:, :, :8, :8] = images[:, :, :8, :8].flip(-1)
    after = embed(images)
    assert (after[:, 0] - before[:, 0]).abs().max() > 0.01
    torch.testing.assert_close(after[:, 1:], before[:, 1:])
    plain = embed.proj(images).flatten(2).transpose(1, 2)
    features = embed.rcf_proj(embed.rcf.of_patches(images, 8))
    torch.testing.assert_close(after, plain + features)


@torch.no_grad()
def test_saved_and_random_models_keep_the_filters(tiny, make_batch, tmp_path):
    batch = make_batch(batch=6)
    model = fitted("a2mae", batch, tiny, **BOTH).eval()
    save_pretrained(model, tmp_path)
    again = from_pretrained(tmp_path)
    assert (
        again(batch, generator=torch.Generator().manual_seed(3)).loss
        == model(batch, generator=torch.Generator().manual_seed(3)).loss
    )
    encoder = load_encoder(tmp_path)
    fresh = random_init(encoder, seed=5)
    assert torch.equal(fresh.patch_embed.rcf.filters, encoder.patch_embed.rcf.filters)
    assert torch.equal(fresh.patch_embed.rcf.feature_std, encoder.patch_embed.rcf.feature_std)
    assert not torch.equal(fresh.patch_embed.proj.weight, encoder.patch_embed.proj.weight)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("a2mae", {"stem": "conv"}, "unknown stem 'conv'; choose one of linear, rcf"),
        ("a2mae", {"stem": "rcf", "bands": "wavelength"}, r"stem='rcf' needs a fixed number of bands .*'wavelength'"),
        ("mae", {"rcf_weight": 1.0, "patch_size": 4}, r"rcf_weight needs .* patches of at least 5 pixels \(found 4\)"),
        ("mae", {"rcf_weight": -1.0}, "must not be negative, nor the first two both 0, found 1.0, -1.0 and 0.0"),
        ("mae", {"pixel_weight": 0.0}, "must not be negative, nor the first two both 0, found 0.0, 0.0 and 0.0"),
        ("satmae", {"rcf_weight": 1.0}, "SatMAE predicts pixels alone: leave rcf_weight and contrast_weight at 0"),
    ],
)
def test_what_cannot_be_built_is_refused(method, options, message, tiny):
    with pytest.raises(ValueError, match=message):
        create_model(f"{method}_vit_tiny_patch8", **{**tiny, **options})


def test_constant_features_make_no_infinite_error():
    config = create_model("mae_vit_tiny_patch8", rcf_weight=1.0).config
    target = FeaturePrediction(config)
    images = torch.zeros(4, 3, 64, 64)
    target.rcf.fit(images, patch_size=8, generator=torch.Generator().manual_seed(0))
    error = target(torch.randn(4, 64, config.decoder_dim), images + torch.randn(4, 3, 64, 64))
    assert error.isfinite().all()
