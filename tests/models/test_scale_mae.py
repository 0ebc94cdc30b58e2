"""Scale-MAE's decoder, targets and losses against a second, independent writing of docs/methods.md, Scale-MAE."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from a2mae.models import create_model
from a2mae.models.laplacian import laplacian_targets

SMALL = {"embed_dim": 64, "depth": 1, "num_heads": 2, "decoder_dim": 32, "decoder_depth": 3, "decoder_num_heads": 4}


def sincos(width, grid, ratio):
    """(N, width); x first, all sines then all cosines per axis."""
    w = 10000.0 ** (-torch.arange(width // 4) / (width / 4))
    y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    axes = [ratio * p.flatten()[:, None] * w for p in (x, y)]
    return torch.cat([f(a) for a in axes for f in (torch.sin, torch.cos)], dim=1)


def norm(x, sd, name):
    return F.layer_norm(x, x.shape[-1:], sd[f"{name}.weight"], sd[f"{name}.bias"], 1e-6)


def block(x, sd, name, heads):
    batch, count, width = x.shape
    y = norm(x, sd, f"{name}.norm1")
    qkv = F.linear(y, sd[f"{name}.attn.qkv.weight"], sd[f"{name}.attn.qkv.bias"])
    q, k, v = qkv.view(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    y = ((q @ k.mT) * (width // heads) ** -0.5).softmax(-1) @ v
    y = y.transpose(1, 2).reshape(batch, count, width)
    x = x + F.linear(y, sd[f"{name}.attn.proj.weight"], sd[f"{name}.attn.proj.bias"])
    y = F.gelu(F.linear(norm(x, sd, f"{name}.norm2"), sd[f"{name}.mlp.fc1.weight"], sd[f"{name}.mlp.fc1.bias"]))
    return x + F.linear(y, sd[f"{name}.mlp.fc2.weight"], sd[f"{name}.mlp.fc2.bias"])


def conv(x, sd, name, **kwargs):
    return F.conv2d(x, sd[f"{name}.weight"], sd[f"{name}.bias"], **kwargs)


def deconv(x, sd, name):
    weight = sd[f"{name}.weight"]
    return F.conv_transpose2d(x, weight, sd[f"{name}.bias"], stride=weight.shape[-1])


def channel_norm(x, sd, name):
    return norm(x.permute(0, 2, 3, 1), sd, f"{name}.ln").permute(0, 3, 1, 2)


def head(x, sd, name):
    x = conv(x, sd, f"{name}.proj")
    for i in range(2):
        b = f"{name}.conv_blocks.{i}"
        y = conv(F.gelu(x), sd, f"{b}.convs.1", padding=1, groups=sd[f"{b}.convs.1.weight"].shape[0])
        x = conv(F.gelu(y), sd, f"{b}.convs.3") + conv(x, sd, f"{b}.residual")
    x = F.gelu(deconv(channel_norm(x, sd, f"{name}.pred.0"), sd, f"{name}.pred.1"))
    x = F.gelu(conv(x, sd, f"{name}.pred.3", padding=1, groups=sd[f"{name}.pred.3.weight"].shape[0]))
    return deconv(F.gelu(conv(x, sd, f"{name}.pred.5")), sd, f"{name}.pred.7")


def reference(model, images, ratio, hidden):
    """The whole forward from the authors' names, one image at a time."""
    sd, config = model.released_state_dict(), model.config
    lows, highs = [], []
    for image, r, mask in zip(images, ratio, hidden, strict=True):
        grid = (image.shape[1] // 16, image.shape[2] // 16)
        tokens = F.conv2d(image[None], sd["patch_embed.proj.weight"], sd["patch_embed.proj.bias"], stride=16)
        tokens = tokens.flatten(2).transpose(1, 2) + sincos(config.embed_dim, grid, r)
        x = torch.cat([sd["cls_token"], tokens[:, ~mask]], dim=1)
        for i in range(config.depth):
            x = block(x, sd, f"blocks.{i}", config.num_heads)
        x = F.linear(norm(x, sd, "norm"), sd["decoder_embed.weight"], sd["decoder_embed.bias"])
        full = sd["mask_token"].repeat(1, grid[0] * grid[1], 1).clone()
        full[:, ~mask] = x[:, 1:]
        x = full + sincos(config.decoder_dim, grid, r)
        for i in range(config.decoder_depth):
            x = block(x, sd, f"decoder_blocks.{i}", config.decoder_num_heads)
        x = norm(x, sd, "decoder_norm").transpose(1, 2).reshape(1, -1, *grid)
        lows.append(head(deconv(x, sd, "fpn.fpn2.0"), sd, "fcn_low"))
        x = F.gelu(channel_norm(deconv(x, sd, "fpn.fpn1.0"), sd, "fpn.fpn1.1"))
        highs.append(head(deconv(x, sd, "fpn.fpn1.3"), sd, "fcn_high"))
    return torch.cat(lows), torch.cat(highs)


def up(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def area(x, size):
    return F.interpolate(x, size, mode="area")


@torch.no_grad()
@pytest.mark.parametrize("targets", ["paper", "released"])
def test_predictions_and_losses_follow_the_specification(targets):
    """At the published sizes: 448 → 224, targets 448 → 14 → 224 and I - up(56), or 224 by area and I - up(7)."""
    model = create_model("scale_mae_vit_tiny_patch16", targets=targets, **SMALL).eval()
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    high_res = torch.rand(2, 3, 448, 448)
    images = up(high_res, 224)
    ratio = torch.tensor([2.2, 4.7])
    hidden = torch.ones(2, 196, dtype=torch.bool)
    hidden[0, torch.randperm(196)[:49]] = False
    hidden[1, torch.randperm(196)[:49]] = False

    out = model(images, gsd_m=ratio, target_images=high_res, hidden=hidden)
    low, high = reference(model, images, ratio, hidden)
    assert torch.equal(out.hidden, hidden)
    assert_close(out.prediction["low"], low, atol=1e-4, rtol=0)
    assert_close(out.prediction["high"], high, atol=1e-4, rtol=0)

    mask = hidden.view(2, 1, 14, 14).float()
    mask_low, mask_high = (F.interpolate(mask, size, mode="nearest") for size in (224, 448))
    if targets == "paper":
        low_error = (low - up(area(high_res, 14), 224)) ** 2
        high_error = (high - (high_res - up(area(high_res, 56), 448))).abs()
        expected = (low_error.mean(1, keepdim=True) * mask_low).sum() / mask_low.sum()
        expected += (high_error.mean(1, keepdim=True) * mask_high).sum() / mask_high.sum()
    else:
        low_error = (low - area(high_res, 224)) ** 2
        high_error = (high - (high_res - up(area(high_res, 7), 448))) ** 2
        expected = (low_error * mask_low).sum() / mask_low.sum()  # three channels over a count of pixels
        expected += (high_error * mask_high).sum() / mask_high.sum()
    assert_close(out.loss, expected, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_a_set_is_its_images_as_targets_at_half_size_and_twice_the_gsd(make_batch):
    model = create_model("scale_mae_vit_tiny_patch8", **SMALL).eval()
    batch = make_batch(height=32, width=64)
    out = model(batch, generator=torch.Generator().manual_seed(0))
    flat = batch.pixels.flatten(0, 1)
    single = model(
        up(flat, (16, 32)), gsd_m=2 * batch.gsd_m.flatten(), target_images=flat, hidden=out.hidden.flatten(0, 1)
    )
    assert_close(single.loss, out.loss)
    assert_close(single.prediction["high"], out.prediction["high"].flatten(0, 1))
    assert out.prediction["high"].shape == out.prediction["pixels"].shape == batch.pixels.shape
    assert out.prediction["low"].shape == (2, 3, 3, 16, 32)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["paper", "released"])
def test_what_is_invalid_has_no_part_in_the_targets(kind):
    target = torch.rand(1, 3, 64, 64)
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    assert_close(
        laplacian_targets(target, (2, 2), 16, kind, valid),
        laplacian_targets(target, (2, 2), 16, kind),
        atol=1e-6,
        rtol=0,
    )
    valid[:, :20, 30:] = False
    low, high = laplacian_targets(target, (2, 2), 16, kind, valid)
    wild = torch.where(valid[:, None], target, 1e4)
    low_again, high_again = laplacian_targets(wild, (2, 2), 16, kind, valid)
    assert_close(low_again, low, atol=1e-3, rtol=0)
    assert_close(high_again * valid[:, None], high * valid[:, None], atol=1e-3, rtol=0)


def test_multispectral_input_works(make_batch):
    model = create_model("scale_mae_vit_tiny_patch8", in_chans=6, **SMALL)
    out = model(make_batch(bands=6, height=32, width=48))
    out.loss.backward()
    assert out.prediction["high"].shape == (2, 3, 6, 32, 48)


@torch.no_grad()
def test_heads_can_be_shared():
    own, shared = (create_model("scale_mae_vit_tiny_patch8", share_heads=flag, **SMALL) for flag in (False, True))
    assert shared.decoder.fcn_low is shared.decoder.fcn_high
    heads = sum(p.numel() for p in own.decoder.fcn_low.parameters())
    count = [sum(p.numel() for p in model.parameters()) for model in (own, shared)]
    assert count[0] - count[1] == heads
