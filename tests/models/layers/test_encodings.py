from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from a2mae.models import create_model
from a2mae.models.layers.encodings import (
    Place,
    band_encoding,
    location_encoding,
    own_decoder_encoding,
    own_encoding,
    paper_encoding,
    sincos_2d,
    time_encoding,
)


def test_the_formula_of_the_paper():
    """PE(x, y) = [e_x, e_y], e_x = [sin(r x w), cos(r x w)], w_k = 10000^(-k / (h / 2)), h = D / 2."""
    width, ratio, (height, length) = 16, 2.3, (3, 5)
    found = sincos_2d((height, length), torch.tensor([ratio]), width)[0]
    half = width // 2
    w = [10000 ** (-k / (half / 2)) for k in range(half // 2)]
    for row in range(height):
        for column in range(length):
            axes = [[ratio * position * f for f in w] for position in (column, row)]
            expected = torch.cat([torch.cat([torch.tensor(a).sin(), torch.tensor(a).cos()]) for a in axes])
            assert_close(found[row * length + column], expected, atol=1e-5, rtol=0)


def test_resampling_changes_the_encoding_as_its_metres_say():
    """Twice the GSD: patch i of the coarse image stands where patch 2i of the fine one stands."""
    fine = sincos_2d((8, 8), torch.tensor([10.0]), 32).view(8, 8, 32)
    coarse = sincos_2d((4, 4), torch.tensor([20.0]), 32).view(4, 4, 32)
    assert_close(coarse, fine[::2, ::2], atol=1e-5, rtol=0)
    assert (coarse - fine[:4, :4]).abs().max() > 0.1


def test_cropping_changes_the_size_of_the_grid_and_nothing_else():
    """A crop counts its patches from its own corner: where it lies is said by the location, not by the scale."""
    whole = sincos_2d((6, 8), torch.tensor([10.0]), 32).view(6, 8, 32)
    crop = sincos_2d((3, 5), torch.tensor([10.0]), 32).view(3, 5, 32)
    assert torch.equal(crop, whole[:3, :5])


def test_shifting_is_a_rotation_by_the_metres_shifted():
    """PE(x + d) is PE(x) rotated by an angle that depends on d times the GSD alone: 3 patches of 10 m = 1 of 30 m."""
    encoded = sincos_2d((1, 12), torch.tensor([10.0]), 32)[0, :, :16]
    sine, cosine = encoded[:, :8], encoded[:, 8:]
    shifted = sincos_2d((1, 2), torch.tensor([30.0]), 32)[0, 1, :16]
    for patch in range(9):
        s = sine[patch] * shifted[8:] + cosine[patch] * shifted[:8]
        assert_close(s, sine[patch + 3], atol=1e-4, rtol=0)


def place(images: int = 3) -> Place:
    bits = (torch.rand(2, images, 256) > 0.5).float()
    return Place(torch.tensor([[10.0, 30.0, 4.0, 2.0]])[:, :images].expand(2, -1), bits, 18000 + torch.rand(2, images))


def test_paper_encoding_is_256_location_and_three_scales():
    where = place()
    encoded = paper_encoding((14, 14), where, 1024, 1.0)
    assert encoded.shape == (2, 1, 196, 1024)
    assert torch.equal(encoded[:, 0, 5, :256], where.geosot_bits[:, 0]), "the anchor's location, for every token"
    for image in range(3):
        expected = sincos_2d((14, 14), where.gsd_m[:, image], 256)
        assert torch.equal(encoded[:, 0, :, 256 * (image + 1) : 256 * (image + 2)], expected)


def test_paper_encoding_of_smaller_and_larger_sets():
    one, many = place(1), place(4)
    encoded = paper_encoding((2, 2), one, 128, 1.0)[..., 32:].unflatten(-1, (3, 32))
    assert torch.equal(encoded[..., 0, :], encoded[..., 1, :]) and torch.equal(encoded[..., 0, :], encoded[..., 2, :])
    first_three = Place(many.gsd_m[:, :3], many.geosot_bits[:, :3], many.day[:, :3])
    assert torch.equal(paper_encoding((2, 2), many, 128, 1.0), paper_encoding((2, 2), first_three, 128, 1.0))


def test_narrow_encoders_keep_the_leading_bits_of_every_code():
    bits = torch.arange(256).float()
    kept = location_encoding(bits, 192).view(8, 6)
    assert torch.equal(kept, torch.arange(256).float().view(8, 32)[:, :6])


def test_own_encoding_is_of_each_image_alone():
    where = place()
    encoded = own_encoding((2, 3), where, 128, 1.0)
    assert encoded.shape == (2, 3, 6, 128)
    for image in range(3):
        alone = Place(*(value[:, image : image + 1] for value in (where.gsd_m, where.geosot_bits, where.day)))
        assert torch.equal(own_encoding((2, 3), alone, 128, 1.0)[:, 0], encoded[:, image])
    unknown = own_encoding((2, 3), Place(where.gsd_m), 128, 1.0)
    assert not unknown[..., :32].any() and not unknown[..., 96:].any()


def test_own_decoder_tells_two_dates_of_one_sensor_apart():
    """By the GSD alone their mask tokens are the same, and so is every prediction where both are hidden."""
    gsd, bands = torch.full((1, 2), 10.0), torch.tensor([[[490.0, 560.0, 665.0]] * 2])
    dates = Place(gsd, None, torch.tensor([[18262.0, 18350.0]]))
    told = own_decoder_encoding((2, 3), dates, bands, 64, 1.0)
    assert told.shape == (1, 2, 6, 64)
    assert (told[:, 0] - told[:, 1]).abs().max() > 0.1
    assert torch.equal(told[..., :32], sincos_2d((2, 3), gsd, 32))  # the published part is unchanged
    other = own_decoder_encoding((2, 3), dates, bands.flip(-1), 64, 1.0)
    assert torch.equal(other[..., :48], told[..., :48])
    assert (other[..., 48:] - told[..., 48:]).abs().max() > 0.1  # the order of the bands is told too


@pytest.mark.parametrize("encoding", ["own", "paper"])
@torch.no_grad()
def test_what_the_decoder_predicts_where_two_dates_are_hidden(encoding, tiny, make_batch):
    """A consequence of the published decoder: two dates of one sensor get one prediction. `own` mends it."""
    model = create_model("a2mae_vit_tiny_patch8", encoding=encoding, **tiny).eval()
    batch = make_batch()
    hidden = torch.zeros(2, 3, 24, dtype=torch.bool)
    hidden[..., :18] = True
    predicted = model(batch, hidden=hidden).prediction["normalized"][:, :2, :, :16]  # images 0 and 1 have 10 m
    assert torch.allclose(predicted[:, 0], predicted[:, 1], atol=1e-5) == (encoding == "paper")


def test_band_encoding_knows_wavelength_and_order():
    near, far = band_encoding(torch.tensor([[665.0, 704.0], [665.0, 2190.0]]), 16)
    assert (near[:8] - far[:8]).abs().max() == 0
    assert (near[8:] - far[8:]).norm() > 0.5
    assert not band_encoding(torch.tensor([665.0, 704.0, 865.0]), 16)[12:].any()  # what is left over is zero


def test_dates_near_each_other_have_near_encodings():
    new_year = time_encoding(torch.tensor([18261.9, 18262.1]), 64)  # around 2020-01-01
    season = time_encoding(torch.tensor([18262.0, 18262.0 + 182.6]), 64)
    assert (new_year[0] - new_year[1]).norm() < 0.1 * (season[0] - season[1]).norm()
    years = time_encoding(torch.tensor([18262.0, 18262.0 + 365.2425]), 64)
    assert_close(years[0, :32], years[1, :32], atol=1e-4, rtol=0)  # the same season
    assert (years[0, 32:] - years[1, 32:]).norm() > 0.1  # another year


def permuted(batch, order):
    fields = {
        field.name: getattr(batch, field.name)[:, order] for field in dataclasses.fields(batch) if field.name != "index"
    }
    return dataclasses.replace(batch, **fields)


@pytest.mark.parametrize("encoding", ["own", "paper"])
@torch.no_grad()
def test_permuting_the_other_images_permutes_the_outputs(encoding, tiny, make_batch, encoded):
    """In `own` mode always. In `paper` mode only where the permuted images share their GSD: its slots are ordered."""
    model = create_model("a2mae_vit_tiny_patch8", encoding=encoding, **tiny).eval()
    batch = make_batch(images=4)
    order = [0, 2, 1, 3] if encoding == "own" else [0, 3, 2, 1]  # images 1 and 3 both have 10 m
    hidden = torch.rand(2, 4, 24) < 0.6
    plain, swapped = model(batch, hidden=hidden), model(permuted(batch, order), hidden=hidden[:, order])
    for name in ("normalized", "pixels"):
        assert_close(swapped.prediction[name], plain.prediction[name][:, order], atol=2e-5, rtol=1e-4)
    assert_close(swapped.loss, plain.loss)
    tokens = encoded(model, batch)
    assert_close(encoded(model, permuted(batch, order)), tokens[:, order], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_with_paper_encoding_the_encoder_tells_images_apart_by_content_alone(tiny, make_batch, encoded):
    """A consequence (docs/methods.md): equal pixels give equal tokens, whatever the image's own GSD and date."""
    batch = make_batch()
    batch = dataclasses.replace(batch, pixels=batch.pixels[:, :1].expand(-1, 3, -1, -1, -1))
    paper, own = (
        encoded(create_model("a2mae_vit_tiny_patch8", encoding=encoding, **tiny).eval(), batch)
        for encoding in ("paper", "own")
    )
    assert_close(paper[:, 1], paper[:, 0], atol=1e-5, rtol=0)
    assert_close(paper[:, 2], paper[:, 0], atol=1e-5, rtol=0)  # 30 m and 10 m cannot be told apart
    assert (own[:, 2] - own[:, 0]).abs().max() > 0.1
    assert (own[:, 1] - own[:, 0]).abs().max() > 1e-3  # another date


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 4, found 6"):
        sincos_2d((2, 2), torch.ones(1), 6)
    with pytest.raises(ValueError, match="multiple of 32 and at most 1024, found 48"):
        create_model("a2mae_vit_tiny_patch16", embed_dim=48, num_heads=2)
