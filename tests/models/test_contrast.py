"""Contrast of crops: where crops lie, what the loss compares, and that an encoder learns by it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from a2mae.errors import InputError
from a2mae.models import contrast, create_model
from a2mae.models.batch import Singles
from a2mae.models.layers.encodings import Place
from a2mae.models.layers.masking import draw_mask

SIDE = 32
TINY = {"embed_dim": 64, "depth": 2, "num_heads": 2, "decoder_dim": 32, "decoder_depth": 1, "decoder_num_heads": 2}


def coordinates(count: int) -> torch.Tensor:
    """Images that tell where a pixel lies: column and row of its centre, pixels."""
    at = torch.arange(SIDE) + 0.5
    return torch.stack([at.expand(SIDE, SIDE), at[:, None].expand(SIDE, SIDE)]).expand(count, 2, SIDE, SIDE)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_law_a_crop_is_a_square_of_its_image_turned_and_mirrored(seed):
    images, valid = coordinates(6), torch.ones(6, SIDE, SIDE, dtype=torch.bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast, "JITTER", 0.0)
        crops = contrast.random_crops(
            Singles(images, torch.full((6,), 10.0), valid, None, None), torch.Generator().manual_seed(seed)
        )
    assert crops.valid.all()
    for pixels, gsd_m in zip(crops.images, crops.gsd_m, strict=True):
        step = float(gsd_m) / 10  # stored pixels per pixel of the crop
        assert math.sqrt(contrast.SMALLEST_AREA) - 1e-6 <= step <= 1
        inner = pixels[:, 2:-2, 2:-2]  # no pixel beyond the border's
        along, down = inner.diff(dim=2), inner.diff(dim=1)
        straight, turned = along[0].abs().max() > 1e-3, along[1].abs().max() > 1e-3
        assert straight != turned
        moved, still = (along[0], along[1]) if straight else (along[1], along[0])
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, step), atol=1e-3, rtol=0)
        torch.testing.assert_close(still, torch.zeros_like(still), atol=1e-3, rtol=0)
        assert (down[1] if straight else down[0]).abs().mean() == pytest.approx(step, abs=1e-3)
        assert inner.min() >= 0 and inner.max() <= SIDE


def test_all_eight_turns_are_drawn():
    images, valid = coordinates(400), torch.ones(400, SIDE, SIDE, dtype=torch.bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast, "JITTER", 0.0)
        every = Singles(images, torch.ones(400), valid, None, None)
        pixels = contrast.random_crops(every, torch.Generator().manual_seed(0)).images
    right, below = pixels[:, :, 10, 11] - pixels[:, :, 10, 10], pixels[:, :, 11, 10] - pixels[:, :, 10, 10]
    turns = torch.cat([right.sign() * (right.abs() > 1e-3), below.sign() * (below.abs() > 1e-3)], dim=1)
    _, counts = turns.unique(dim=0, return_counts=True)
    assert len(counts) == 8 and counts.min() > 20


def test_what_was_not_seen_stays_unseen():
    valid = torch.ones(50, SIDE, SIDE, dtype=torch.bool)
    valid[:, :, :16] = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast, "JITTER", 0.0)
        half = Singles(coordinates(50), torch.ones(50), valid, None, None)
        crops = contrast.random_crops(half, torch.Generator().manual_seed(1))
    column = crops.images[:, 0]
    assert (column[crops.valid] >= 16).all() and (column[~crops.valid] == 0).all()
    assert 0.3 < crops.valid.float().mean() < 0.7


def test_the_loss_is_that_of_the_definition():
    """A second writing, pair by pair: other images of the same place and what was not seen are no counterexamples."""
    model = create_model("mae_vit_tiny_patch8", **TINY, contrast_weight=1.0)
    images = torch.randn(6, 3, SIDE, SIDE)
    valid = torch.ones(6, SIDE, SIDE, dtype=torch.bool)
    valid[4] = False
    asked = Singles(images, torch.ones(6), valid, None, (3, 2))
    sample = asked.sample
    assert sample.tolist() == [0, 0, 1, 1, 2, 2]
    found = model.contrast(model.encoder, asked, 0.25, torch.Generator().manual_seed(3))

    generator = torch.Generator().manual_seed(3)
    crops = [contrast.random_crops(asked, generator) for _ in range(2)]
    shown = torch.cat([crops[0].images, crops[1].images])
    seen = torch.ones(12, 1, 16, dtype=torch.bool)
    seen[[4, 10]] = False
    mask = draw_mask("independent", seen, torch.ones(12, 1, dtype=torch.bool), 0.25, generator)
    tokens = mask.select(model.encoder.embed_set(shown[:, None], Place(torch.ones(12, 1)), None))
    unit = F.normalize(model.contrast.projection(model.encoder.forward_tokens(tokens)[:, 1:].mean(1)), dim=1)
    errors = []
    shown_crops = [crop for crop in range(12) if crop % 6 != 4]
    for one in shown_crops:
        positive = (one + 6) % 12
        scores = [
            math.exp(unit[one].dot(unit[other]).item() / contrast.TEMPERATURE)
            for other in shown_crops
            if other == positive or sample[other % 6] != sample[one % 6]
        ]
        errors.append(-math.log(math.exp(unit[one].dot(unit[positive]).item() / contrast.TEMPERATURE) / sum(scores)))
    assert found.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def share_of_a_batch(rank: int, folder: Path) -> None:
    """One of two processes: the loss, and the gradient of its own crops."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    given = torch.load(folder / f"{rank}.pt")
    projected = given["projected"].requires_grad_()
    loss = contrast.crop_loss(projected, given["sample"], given["empty"])
    (loss * (rank + 1)).backward()  # each process scales by what of its share is scored
    torch.save({"loss": loss.detach(), "gradient": projected.grad}, folder / f"found-{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_compare_the_crops_of_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.manual_seed(0)
    projected, empty = torch.randn(24, 8), torch.zeros(24, dtype=torch.bool)
    empty[[3, 15, 20]] = True
    sample = (torch.arange(12) // 3).repeat(2)
    for rank in range(2):  # images 0 to 5 are of samples 0 and 1, the others of 2 and 3
        own = torch.cat([torch.arange(6), 12 + torch.arange(6)]) + 6 * rank
        torch.save(
            {"projected": projected[own], "sample": sample[own] - 2 * rank, "empty": empty[own]},
            tmp_path / f"{rank}.pt",
        )
    torch.multiprocessing.spawn(share_of_a_batch, (tmp_path,), nprocs=2)
    whole = projected.clone().requires_grad_()
    loss = contrast.crop_loss(whole, sample, empty)
    loss.backward()
    for rank in range(2):
        own = torch.cat([torch.arange(6), 12 + torch.arange(6)]) + 6 * rank
        found = torch.load(tmp_path / f"found-{rank}.pt")
        torch.testing.assert_close(found["loss"], loss.detach())
        torch.testing.assert_close(found["gradient"], 3 * whole.grad[own])  # 1 + 2 of the two processes


def test_one_sample_has_nothing_to_be_told_from():
    model = create_model("mae_vit_tiny_patch8", **TINY, contrast_weight=1.0)
    seen = torch.ones(3, SIDE, SIDE, dtype=torch.bool)
    alone = Singles(torch.randn(3, 3, SIDE, SIDE), torch.ones(3), seen, None, (1, 3))
    found = model.contrast(model.encoder, alone, 0.25)
    assert float(found) == 0
    found.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("method", ["a2mae", "mae"])
def test_an_encoder_learns_to_tell_places_apart(make_batch, method):
    batch = make_batch(batch=8, height=32, width=32, all_valid=False)
    at = torch.arange(32) / 32
    stripes = torch.sin(2 * math.pi * at * (1 + torch.arange(8))[:, None])  # (8, 32): each place has its own width
    pixels = stripes[:, None, None, None] + stripes[:, None, None, :, None] + 0.1 * batch.pixels
    batch = dataclasses.replace(batch, pixels=pixels * batch.valid[:, :, None])
    options = {**TINY, "pixel_weight": 1e-6, "attention_init": "similar"}
    model = create_model(f"{method}_vit_tiny_patch8", **options, contrast_weight=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for step in range(60):
        output = model(batch, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert sum(losses[-10:]) / 10 < 0.85 * math.log(43)  # one of 43: itself and its place's other images are left out
    with torch.no_grad():  # a run is measured by what is reconstructed
        plain = create_model(f"{method}_vit_tiny_patch8", **options)
        plain.load_state_dict(
            {name: value for name, value in model.state_dict().items() if not name.startswith("contrast.")}
        )
        measured, expected = (one(batch, generator=torch.Generator().manual_seed(0)).loss for one in (model, plain))
    assert float(measured) == float(expected)


@pytest.mark.parametrize("stem", ["linear", "rcf"])
@pytest.mark.parametrize("encoding", ["sincos", "gsd", "paper", "own"])
def test_visible_patches_are_embedded_as_all_are(make_batch, stem, encoding):
    batch = make_batch(all_valid=False)
    model = create_model("a2mae_vit_tiny_patch8", **TINY, stem=stem, encoding=encoding)
    if stem == "rcf":
        model.fit_features(make_batch(), seed=0)
    place = Place(batch.gsd_m, batch.geosot_bits, batch.day)
    seen = torch.ones(2, 3, 24, dtype=torch.bool)
    mask = draw_mask("anchor", seen, batch.same_source_as_anchor, 0.25)
    every = mask.select(model.encoder.embed_set(batch.pixels, place, None))
    torch.testing.assert_close(model.encoder.embed_visible(batch.pixels, place, None, mask), every)


def test_visible_patches_of_any_bands(make_batch):
    batch = make_batch(bands=6)
    batch.wavelength_nm[:, 1] = batch.wavelength_nm[:, 1].flip(-1)  # images of other bands
    model = create_model("a2mae_vit_tiny_patch8", **TINY, bands="wavelength")
    place = Place(batch.gsd_m, batch.geosot_bits, batch.day)
    mask = draw_mask("independent", torch.ones(2, 3, 24, dtype=torch.bool), batch.same_source_as_anchor, 0.5)
    every = mask.select(model.encoder.embed_set(batch.pixels, place, batch.wavelength_nm))
    torch.testing.assert_close(model.encoder.embed_visible(batch.pixels, place, batch.wavelength_nm, mask), every)


@pytest.mark.parametrize(
    ("method", "weight", "message"),
    [
        ("scale_mae", 0.5, "contrast_weight is for A²-MAE and MAE"),
        ("satmae", 0.5, "leave rcf_weight and contrast_weight at 0"),
        ("a2mae", -1.0, "must not be negative"),
    ],
)
def test_who_cannot_is_told(method, weight, message):
    with pytest.raises(InputError, match=message):
        create_model(f"{method}_vit_tiny_patch8", **TINY, contrast_weight=weight)
