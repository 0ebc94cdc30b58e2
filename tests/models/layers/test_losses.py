from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from a2mae.models import create_model
from a2mae.models.layers.masking import masked_patch_loss, patchify, token_validity, unpatchify


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
    """Loss in bf16 cost a peer 1.3 (METHOD.md section 4)."""
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
