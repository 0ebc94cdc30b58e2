"""The authors' names and shapes, both ways; encoder parity with torchgeo's port of Scale-MAE."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from a2mae.models import CheckpointError, create_model, read_published

CHECKPOINTS = Path(__file__).parents[3] / "shared" / "checkpoints"
PUBLISHED = ("a2mae", "scale_mae", "mae")


def published_shapes(method: str) -> dict[str, list[int]]:
    path = CHECKPOINTS / f"{method}_vit_large.json"
    if not path.exists():
        pytest.skip("../shared/checkpoints (names and shapes of the published files) is absent")
    return json.loads(path.read_text())


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_published_architecture_to_the_last_tensor(method):
    with torch.device("meta"):
        model = create_model(f"{method}_vit_large_patch16")
    ours = {name: list(value.shape) for name, value in model.released_state_dict().items()}
    assert ours == published_shapes(method)


def test_scale_mae_counts_the_papers_parameters():
    with torch.device("meta"):
        model = create_model("scale_mae_vit_large_patch16", targets="released")
    assert sum(p.numel() for p in model.parameters()) == 322_930_438  # the paper's 322.9 M


def small(method: str, **kwargs: object):
    return create_model(
        f"{method}_vit_tiny_patch16",
        **{"embed_dim": 128, "depth": 2, "decoder_dim": 64, "decoder_depth": 2, "released_tables": True, **kwargs},
    )


def random_released(model) -> dict[str, torch.Tensor]:
    return {name: torch.randn_like(value) for name, value in model.released_state_dict().items()}


@pytest.mark.parametrize("method", PUBLISHED)
def test_a_published_checkpoint_converts_both_ways(method):
    model = small(method)
    weights = random_released(model)
    model.load_released_state_dict({"model": weights, "epoch": 3})
    back = model.released_state_dict()
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    assert torch.equal(model.encoder.blocks[1].attn.qkv.weight, weights["blocks.1.attn.qkv.weight"])
    assert torch.equal(model.decoder.embed.bias, weights["decoder_embed.bias"])


@pytest.mark.parametrize("method", PUBLISHED)
def test_keys_are_checked_strictly_and_nothing_is_loaded_by_half(method):
    model = small(method)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = random_released(model)
    missing = {name: value for name, value in weights.items() if name != "blocks.0.norm1.weight"}
    with pytest.raises(CheckpointError, match=r"missing 1: blocks\.0\.norm1\.weight"):
        model.load_released_state_dict(missing)
    with pytest.raises(CheckpointError, match=r"not known 1: head\.weight"):
        model.load_released_state_dict({**weights, "head.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"other shape 1: cls_token is \(1, 1, 3\) instead of \(1, 1, 128\)"):
        model.load_released_state_dict({**weights, "cls_token": torch.zeros(1, 1, 3)})
    with pytest.raises(CheckpointError, match="must map names to tensors"):
        model.load_released_state_dict({"model": {"cls_token": "x"}})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_without_decoder_says_how_to_be_read():
    model = small("scale_mae")
    weights = random_released(model)
    encoder = {n: v for n, v in weights.items() if n.startswith(("blocks.", "norm.", "patch_embed.", "cls_token"))}
    with pytest.raises(CheckpointError, match="lacks the decoder: pass parts='encoder'"):
        model.load_released_state_dict(encoder)
    model.load_released_state_dict(encoder, parts="encoder")
    assert torch.equal(model.encoder.norm.bias, weights["norm.bias"])
    with pytest.raises(CheckpointError, match=r"missing 1: norm\.bias"):
        model.load_released_state_dict({n: v for n, v in weights.items() if n != "norm.bias"}, parts="encoder")


def test_a2mae_starts_from_imagenet_mae():
    mae, a2mae = small("mae"), small("a2mae")
    weights = random_released(mae)
    with pytest.raises(CheckpointError, match="other shape 1: pos_embed"):
        a2mae.load_released_state_dict(weights)
    a2mae.load_released_state_dict(weights, same_method=False)
    assert torch.equal(a2mae.decoder.pred.weight, weights["decoder_pred.weight"])


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the file was executed",))


def test_published_files_are_read_but_never_executed(tmp_path):
    torch.save({"model": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=1.0)}, tmp_path / "fine.pth")
    assert torch.equal(read_published(tmp_path / "fine.pth")["model"]["a"], torch.ones(2))
    torch.save({"model": Bomb()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="was not executed"):
        read_published(tmp_path / "evil.pth")


def torchgeo_scale_mae(size: int, **widths: int) -> nn.Module:
    scale_mae = pytest.importorskip("torchgeo.models.scale_mae")
    norm = partial(nn.LayerNorm, eps=1e-6)
    return scale_mae.ScaleMAE(
        img_size=size, patch_size=16, num_classes=0, mlp_ratio=4, qkv_bias=True, norm_layer=norm, **widths
    ).eval()


RATIOS, SIZES = (0.5, 1.0, 2.3, 10.0), (128, 224, 320)


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_encoder_equals_torchgeos(size):
    """At ViT-L's width with two blocks; the whole ViT-L is below."""
    ours = create_model("scale_mae_vit_large_patch16", depth=2).encoder.eval()
    theirs = torchgeo_scale_mae(size, embed_dim=1024, depth=2, num_heads=16)
    randomize(ours)
    theirs.load_state_dict(ours.state_dict() | {"pos_embed": theirs.pos_embed}, strict=True)
    images = torch.randn(1, 3, size, size)
    assert (ours.forward_features(images, gsd_m=1.0) - ours.forward_features(images, gsd_m=2.3)).abs().max() > 0.01
    for ratio in RATIOS:
        theirs.res = ratio
        expected = theirs.forward_features(images)
        torch.testing.assert_close(ours.forward_features(images, gsd_m=ratio), expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_vit_large_equals_torchgeos(size):
    torchgeo_models = pytest.importorskip("torchgeo.models")
    ours = create_model("scale_mae_vit_large_patch16").encoder.eval()
    theirs = torchgeo_models.scalemae_large_patch16(img_size=size, num_classes=0).eval()
    theirs.load_state_dict(ours.state_dict() | {"pos_embed": theirs.pos_embed}, strict=True, assign=True)
    images = torch.randn(1, 3, size, size)
    for ratio in RATIOS:
        theirs.res = ratio
        expected = theirs.forward_features(images)
        found = ours.forward_features(images, gsd_m=ratio)
        print(f"ViT-L size {size} r {ratio}: max |difference| {(found - expected).abs().max():.1e}")  # noqa: T201
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def randomize(module: nn.Module) -> None:
    """Biases and norms away from 0 and 1, so that a forgotten one shows."""
    for parameter in module.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
