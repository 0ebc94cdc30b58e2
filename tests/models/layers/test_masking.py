"""Masks keep what they say and put it back where it was; losses count masked and valid pixels alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from a2mae.models import create_model
from a2mae.models.layers.masking import (
    STRATEGIES,
    draw_mask,
    mask_from_hidden,
    masked_patch_loss,
    num_keep,
    patchify,
    token_validity,
    unpatchify,
)

cases = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(STRATEGIES),
        "batch": st.integers(1, 4),
        "images": st.integers(1, 6),
        "patches": st.integers(2, 50),
        "keep": st.floats(0.05, 0.95),
        "seed": st.integers(0, 2**31),
    }
)


def drawn(case, valid_share=1.0):
    generator = torch.Generator().manual_seed(case["seed"])
    shape = (case["batch"], case["images"], case["patches"])
    valid = torch.rand(shape, generator=generator) < valid_share
    same = torch.rand(shape[:2], generator=generator) < 0.5
    same[:, 0] = True
    return draw_mask(case["strategy"], valid, same, case["keep"], generator), valid, same


@settings(max_examples=150, deadline=None)
@given(cases)
def test_every_image_keeps_exactly_its_share(case):
    mask, _, _ = drawn(case)
    kept = num_keep(case["patches"], case["keep"])
    visible = (~mask.hidden).sum(-1)
    if case["strategy"] == "random":
        assert (visible.sum(-1) == kept * case["images"]).all()
    elif case["strategy"] == "anchor_visible":
        assert (visible[:, 0] == min(kept * case["images"], case["patches"])).all()
        assert (visible[:, 1:] == 0).all()
    else:
        assert (visible == kept).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_mixed_masks_are_anchor_aware_or_independent_by_sample(seed):
    valid = torch.ones(64, 3, 64, dtype=torch.bool)
    same = torch.tensor([True, True, False]).expand(64, -1)
    mixed, anchor, independent = (
        draw_mask(name, valid, same, 0.25, torch.Generator().manual_seed(seed)).hidden
        for name in ("mixed", "anchor", "independent")
    )
    as_anchor, as_independent = ((mixed == other).flatten(1).all(1) for other in (anchor, independent))
    assert (as_anchor | as_independent).all()
    assert 12 <= int(as_anchor.sum()) <= 52, "about half of 64 samples each"


@settings(max_examples=100, deadline=None)
@given(cases, st.floats(0, 1))
def test_visible_and_masked_are_everything_once(case, valid_share):
    mask, valid, _ = drawn(case, valid_share)
    for row in range(case["batch"]):
        shown = mask.ids_keep[row][~mask.key_padding_mask[row]]
        assert shown.unique().numel() == shown.numel()
        hidden = mask.hidden[row].flatten().nonzero().squeeze(1)
        together = torch.cat([shown, hidden]).sort().values
        assert torch.equal(together, torch.arange(case["images"] * case["patches"]))
    assert not (~mask.hidden & ~valid).any(), "a token without a valid pixel was shown"


@settings(max_examples=100, deadline=None)
@given(cases, st.floats(0, 1))
def test_identity_returns_every_token_to_its_own_place(case, valid_share):
    mask, _, _ = drawn(case, valid_share)
    batch, images, patches = case["batch"], case["images"], case["patches"]
    tokens = torch.arange(1, batch * images * patches + 1).float().view(batch, images, patches, 1)
    restored = mask.restore(mask.select(tokens), torch.zeros(1, 1, 1))
    assert torch.equal(restored, torch.where(mask.hidden[..., None], 0.0, tokens))


@settings(max_examples=100, deadline=None)
@given(cases)
def test_whose_mask_is_whose(case):
    mask, _, same = drawn(case)
    like_anchor = (mask.hidden == mask.hidden[:, :1]).all(-1)
    if case["strategy"] == "anchor":
        assert like_anchor[~same].all(), "another source must hide the anchor's places"
    if case["strategy"] == "same":
        assert like_anchor.all()


@pytest.mark.parametrize("strategy", ["anchor", "independent"])
def test_masks_of_one_source_are_independent(strategy):
    valid = torch.ones(4000, 2, 16, dtype=torch.bool)
    mask = draw_mask(strategy, valid, torch.ones(4000, 2, dtype=torch.bool), 0.25, torch.Generator().manual_seed(1))
    both = (~mask.hidden[:, 0] & ~mask.hidden[:, 1]).float().mean()
    assert both == pytest.approx(0.25 * 0.25, abs=0.004)
    assert (~mask.hidden).float().mean((0, 1)).sub(0.25).abs().max() < 0.03, "every place is as likely as any other"


@settings(max_examples=60, deadline=None)
@given(cases, st.floats(0, 1))
def test_another_source_never_shows_what_the_anchor_hides(case, valid_share):
    case = {**case, "strategy": "anchor"}
    mask, valid, same = drawn(case, valid_share)
    leaks = ~mask.hidden & mask.hidden[:, :1] & valid[:, :1] & ~same[..., None]
    assert not leaks.any()


def test_a_given_mask_is_used_as_it_is():
    hidden = torch.rand(5, 3, 12) < 0.6
    valid = torch.rand(5, 3, 12) < 0.8
    mask = mask_from_hidden(hidden, valid)
    assert torch.equal(mask.hidden, hidden | ~valid)
    tokens = torch.arange(5 * 36).float().view(5, 3, 12, 1) + 1
    assert torch.equal(
        mask.restore(mask.select(tokens), torch.zeros(1, 1, 1)), torch.where(mask.hidden[..., None], 0.0, tokens)
    )
    with pytest.raises(ValueError, match=r"hidden must be bool of shape \(5, 3, 12\)"):
        mask_from_hidden(hidden[:, :1], valid)


def test_the_same_generator_draws_the_same_mask():
    valid, same = torch.ones(2, 3, 20, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    first, second = (draw_mask("anchor", valid, same, 0.25, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first.hidden, second.hidden)


def test_what_cannot_be_masked_is_refused():
    valid, same = torch.ones(2, 3, 20, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="unknown masking strategy 'half'; choose one of anchor"):
        draw_mask("half", valid, same, 0.25)
    for ratio in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match=f"found {ratio}"):
            draw_mask("anchor", valid, same, ratio)
    with pytest.raises(ValueError, match="at least two patches"):
        draw_mask("anchor", valid[..., :1], same, 0.5)


def test_patches_are_ordered_as_maes():
    images = torch.randn(2, 5, 3, 8, 12)
    patches = patchify(images, 4)
    flat = images.flatten(0, 1)
    expected = torch.einsum("nchpwq->nhwpqc", flat.reshape(10, 3, 2, 4, 3, 4)).reshape(2, 5, 6, 48)
    assert torch.equal(patches, expected)
    assert torch.equal(unpatchify(patches, 4, (2, 3)), images)


def test_the_loss_is_maes_where_everything_is_valid():
    images, prediction = torch.rand(4, 3, 32, 48), torch.randn(4, 24, 192)
    hidden = torch.zeros(4, 24, dtype=torch.bool)
    hidden[:, ::2] = True
    target = patchify(images, 8)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
    error = ((prediction - target) ** 2).mean(-1)
    expected = (error * hidden).sum() / hidden.sum()
    found = masked_patch_loss(prediction, images, torch.ones(4, 1, 32, 48, dtype=torch.bool), hidden, 8)
    assert_close(found.loss, expected, atol=1e-5, rtol=1e-5)
    assert_close(found.token_loss, error * hidden, atol=1e-5, rtol=1e-5)


def test_statistics_and_errors_are_of_valid_values_only():
    images, prediction = torch.rand(1, 2, 4, 4), torch.randn(1, 1, 32)
    valid = torch.rand(1, 1, 4, 4) < 0.6
    values = images[0, :, valid[0, 0]]  # (2, n)
    expected = (values - values.mean()) / (values.var() + 1e-6) ** 0.5
    predicted = unpatchify(prediction, 4, (1, 1))[0][:, valid[0, 0]]
    hidden = torch.ones(1, 1, dtype=torch.bool)
    found = masked_patch_loss(prediction, images, valid, hidden, 4)
    assert_close(found.loss, ((predicted - expected) ** 2).mean())
    assert found.token_weight.item() == 2 * int(valid.sum())
    altered = torch.where(valid, images, 100.0)
    assert_close(masked_patch_loss(prediction, altered, valid, hidden, 4).loss, found.loss)


def test_nothing_to_score_is_a_loss_of_zero():
    images, prediction = torch.rand(1, 2, 4, 4), torch.randn(1, 1, 32, requires_grad=True)
    found = masked_patch_loss(prediction, images, torch.zeros(1, 1, 4, 4, dtype=torch.bool), torch.ones(1, 1).bool(), 4)
    found.loss.backward()
    assert found.loss == 0 and prediction.grad.isfinite().all()


def test_a_token_is_valid_if_any_pixel_is():
    valid = torch.zeros(1, 8, 8, dtype=torch.bool)
    valid[0, 5, 2] = True
    assert token_validity(valid, 4).tolist() == [[False, False, True, False]]


@pytest.mark.parametrize("method", ["a2mae", "scale_mae", "mae", "satmae"])
def test_the_loss_is_float32_under_autocast(method, tiny, make_batch):
    """Loss in bf16 cost a peer 1.3 (docs/methods.md, traps)."""
    model = create_model(f"{method}_vit_tiny_patch8", **tiny)
    batch = make_batch()
    hidden = model(batch).hidden
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(batch, hidden=hidden)
    assert out.loss.dtype == torch.float32
    if method in ("a2mae", "mae"):
        exact = masked_patch_loss(
            patchify(out.prediction["normalized"], 8), batch.pixels, batch.valid[:, :, None], hidden, 8
        )
        assert_close(out.loss, exact.loss, atol=1e-6, rtol=0)
    assert_close(out.loss, model(batch, hidden=hidden).loss, atol=0.05, rtol=0)
