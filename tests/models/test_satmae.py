from __future__ import annotations

import datetime

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from a2mae.models import create_model, from_pretrained, load_encoder, save_pretrained
from a2mae.models.layers.encodings import Place, temporal_encoding, year_month_hour

GROUPS = ((0, 2, 1), (5, 3), (4,))


def grouped(tiny, **kwargs):
    widths = {**tiny, "encoding": "group", "bands": "groups", "groups": GROUPS, "in_chans": 6}
    return create_model("satmae_vit_tiny_patch8", **widths, **kwargs)


@given(st.datetimes(datetime.datetime(1972, 1, 1), datetime.datetime(2100, 1, 1)))
def test_the_calendar(when):
    when = when.replace(minute=30, second=0, microsecond=0)
    day = (when - datetime.datetime(1970, 1, 1)) / datetime.timedelta(days=1)
    year, month, hour = year_month_hour(torch.tensor(day, dtype=torch.float64))
    assert (int(year) + 2002, int(month) + 1, int(hour)) == (when.year, when.month, when.hour)


def test_dates_share_the_position_and_differ_in_time():
    place = Place(torch.ones(1, 2), None, torch.tensor([[18262.0, 18300.0]]))  # January and February 2020
    encoded = temporal_encoding((2, 3), place, 128)
    assert encoded.shape == (1, 2, 6, 128)
    assert torch.equal(encoded[:, 0, :, :96], encoded[:, 1, :, :96]), "position and year"
    assert not torch.equal(encoded[:, 0, :, 96:112], encoded[:, 1, :, 96:112]), "month"


@pytest.mark.parametrize("masking", ["independent", "same"])
def test_temporal(masking, tiny, make_batch):
    model = create_model("satmae_vit_tiny_patch8", masking=masking, **tiny)
    batch = make_batch(all_valid=False)
    out = model(batch)
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert out.prediction["pixels"].shape == batch.pixels.shape and out.hidden.shape == (2, 3, 24)
    full = model(make_batch())
    assert ((full.hidden == full.hidden[:, :1]).all()) == (masking == "same")


def test_groups_of_bands(tiny, make_batch):
    model = grouped(tiny)
    batch = make_batch(bands=6)
    out = model(batch)
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    groups = out.prediction["hidden_groups"]
    assert groups.shape == (2, 3, 3, 24) and ((~groups).sum(-1) == 6).all()
    assert out.prediction["pixels"].shape == batch.pixels.shape
    again = model(batch, hidden=groups)
    assert_close(again.loss, out.loss)


@torch.no_grad()
def test_a_hidden_group_is_not_seen_and_a_visible_one_not_scored(tiny, make_batch):
    model = grouped(tiny).eval()
    batch = make_batch(bands=6)
    hidden = torch.zeros(2, 3, 3, 24, dtype=torch.bool)
    hidden[:, :, 1] = True  # group 1 holds bands 5 and 3
    out = model(batch, hidden=hidden)
    assert (out.token_weight == 64 * 2).all()
    altered = batch.pixels.clone()
    altered[:, :, [5, 3]] = torch.randn(2, 3, 2, 32, 48)
    object.__setattr__(batch, "pixels", altered)
    assert_close(model(batch, hidden=hidden).prediction["normalized"], out.prediction["normalized"])


@torch.no_grad()
def test_a_band_that_only_fills_the_tensor_is_not_scored(tiny, make_batch):
    model, batch = grouped(tiny).eval(), make_batch(bands=6)
    batch.wavelength_nm[:, 1, 4] = -1.0  # of image 1, group 2 is absent
    hidden = torch.zeros(2, 3, 3, 24, dtype=torch.bool)
    hidden[:, :, 2] = True
    weight = model(batch, hidden=hidden).token_weight
    assert (weight[:, 1] == 0).all() and (weight[:, [0, 2]] == 64).all()


@torch.no_grad()
def test_tasks_use_it_like_any_encoder(tiny, tmp_path):
    model = grouped(tiny).eval()
    save_pretrained(model, tmp_path)
    images = torch.randn(2, 6, 32, 48)
    encoder = load_encoder(tmp_path)
    tokens = encoder.forward_features(images)
    assert tokens.shape == (2, 25, 64) and torch.equal(from_pretrained(tmp_path).forward_features(images), tokens)
    assert encoder.forward_intermediates(images, [1])[0].shape == (2, 64, 4, 6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"bands": "groups"}, "go together"),
        ({"encoding": "group", "bands": "groups", "in_chans": 3, "groups": ((0, 1),)}, "each of the 3 bands once"),
        ({"groups": ((0, 1, 2),)}, "only with bands='groups'"),
        ({"encoding": "gsd"}, "must be 'temporal' or 'group'"),
        ({"masking": "anchor"}, "unknown masking 'anchor'"),
    ],
)
def test_what_cannot_be_meant_is_refused(kwargs, message, tiny):
    with pytest.raises(ValueError, match=message):
        create_model("satmae_vit_tiny_patch8", **tiny, **kwargs)
