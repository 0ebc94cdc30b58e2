import pytest
import torch
from torch.nn import functional as F

from a2mae.models.layers.rcf import LIMIT, THRESHOLD, RandomConvolutionFeatures


def fitted(images: torch.Tensor, **options) -> RandomConvolutionFeatures:
    features = RandomConvolutionFeatures(images.shape[1], num_filters=12)
    features.fit(images, generator=torch.Generator().manual_seed(1), **options)
    return features


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    noise = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(noise, 3, stride=1, padding=1) * 3


@pytest.mark.parametrize("patch", [8, 16])
def test_features_of_a_patch_are_the_means_of_the_windows_inside_it(images, patch):
    features = fitted(images, patch_size=patch)
    found, across = features.of_patches(images, patch), images.shape[-1] // patch
    assert found.shape == (12, across**2, 24)
    patches = images[3, :, patch : 2 * patch, -patch:]  # row 1, the last column
    windows = patches.unfold(1, 5, 1).unfold(2, 5, 1).permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1)
    response = (windows - features.mean.flatten()) @ features.filters.flatten(1).T
    expected = torch.cat([(response - THRESHOLD).clamp(min=0), (-response - THRESHOLD).clamp(min=0)], 1).mean(0)
    expected = ((expected - features.feature_mean) / features.feature_std).clamp(-LIMIT, LIMIT)
    torch.testing.assert_close(found[3, 2 * across - 1], expected, atol=1e-4, rtol=1e-4)


def test_patches_know_nothing_of_their_neighbours(images):
    features = fitted(images, patch_size=8)
    other = images.clone()
    other[:, :, :, 8:] = 0
    torch.testing.assert_close(features.of_patches(other, 8)[:, 0], features.of_patches(images, 8)[:, 0])


def test_features_are_standardised_on_what_they_were_fitted_on(images):
    features = fitted(images, patch_size=8)
    patches = features._standardised(features._pooled_patches(images, 8)).flatten(0, 1)
    assert torch.equal(features.of_patches(images, 8).flatten(0, 1), patches.clamp(-LIMIT, LIMIT))
    assert patches.abs().max() > LIMIT, "a few lie beyond what is let through"
    whole = fitted(images)(images)
    for features in (patches, whole):
        torch.testing.assert_close(features.mean(0), torch.zeros(24), atol=1e-4, rtol=0)
        assert (features.std(0) - 1).abs().max() < 1e-3


def test_whitened_filters_answer_to_structure_not_to_brightness(images):
    features = fitted(images)
    assert features.filters.flatten(1).norm(dim=1).min() > 0
    shifted = features._responses(images + 0.0)
    assert 0.01 < (shifted > 0).float().mean() < 0.6, "the threshold lets some windows through, not all"


def test_what_was_not_seen_neither_makes_filters_nor_counts(images):
    valid = torch.ones(12, 32, 32, dtype=torch.bool)
    valid[:, :, 16:] = False
    spoilt = images.clone()
    spoilt[:, :, :, 16:] = 1e6
    clean, dirty = fitted(images, valid=valid), fitted(spoilt, valid=valid)
    torch.testing.assert_close(clean.filters, dirty.filters)
    torch.testing.assert_close(clean(images, valid), dirty(spoilt, valid))
    assert dirty(spoilt, torch.zeros_like(valid)).abs().max() == 0
    patches = fitted(spoilt, valid=valid, patch_size=8)
    assert patches.feature_mean.max() < 100, "statistics are of patches that were seen"


def test_the_same_generator_gives_the_same_filters_and_a_state_carries_them(images):
    first, second = fitted(images, patch_size=8), fitted(images, patch_size=8)
    torch.testing.assert_close(first.filters, second.filters, rtol=0, atol=0)
    loaded = RandomConvolutionFeatures(3, num_filters=12)
    assert not loaded.fitted
    loaded.load_state_dict(first.state_dict())
    assert loaded.fitted
    torch.testing.assert_close(loaded.of_patches(images, 8), first.of_patches(images, 8), rtol=0, atol=0)
    assert not list(loaded.parameters()), "nothing is trained"


def test_too_little_ground_is_told(images):
    with pytest.raises(ValueError, match="need 12 windows of 5 x 5 pixels that were seen as a whole, found 4"):
        fitted(images[:1, :, :6, :6])
    with pytest.raises(ValueError, match="patches of 4 pixels are smaller than the filters of 5"):
        fitted(images).of_patches(images, 4)


def test_features_of_patches_have_a_shape_without_memory():
    """Floating-point operations are counted on the device `meta`; there, autocast is not known."""
    with torch.device("meta"):
        features = RandomConvolutionFeatures(3).of_patches(torch.empty(2, 3, 32, 32), 16)
    assert features.shape == (2, 4, 256) and features.is_meta
