from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from a2mae.models import CheckpointError, create_model, from_pretrained, load_encoder, save_pretrained

METHODS = ("a2mae", "scale_mae", "mae", "satmae")


@pytest.mark.parametrize("method", METHODS)
def test_a_model_comes_back_as_it_was_saved(method, tiny, tmp_path, make_batch):
    model = create_model(f"{method}_vit_tiny_patch8", **tiny).eval()
    save_pretrained(model, tmp_path, config={"sensors": ["sentinel-2-l2a"], "code_commit": "abc"})

    images, gsd_m = torch.randn(2, 3, 32, 48), torch.tensor([2.0, 10.0])
    expected = model.forward_features(images, gsd_m=gsd_m)
    assert torch.equal(from_pretrained(tmp_path).forward_features(images, gsd_m=gsd_m), expected)
    encoder = load_encoder(tmp_path)
    assert torch.equal(encoder.forward_features(images, gsd_m=gsd_m), expected)
    assert (encoder.num_features, encoder.patch_size) == (64, 8)

    hidden = model(make_batch()).hidden
    assert torch.equal(
        from_pretrained(tmp_path)(make_batch(), hidden=hidden).loss, model(make_batch(), hidden=hidden).loss
    )
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["sensors"] == ["sentinel-2-l2a"] and config["kwargs"]["embed_dim"] == 64


def test_the_same_weights_give_the_same_bytes(tiny, tmp_path):
    model = create_model("a2mae_vit_tiny_patch8", **tiny)
    first, second = save_pretrained(model, tmp_path / "a"), save_pretrained(model, tmp_path / "b")
    for name in ("config.json", "model.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert sorted(path.name for path in first.iterdir()) == ["config.json", "model.safetensors"]


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


@pytest.mark.parametrize("how", ["torch.save", "legacy", "pickle"])
def test_a_pickle_is_refused_and_never_executed(how, tiny, tmp_path):
    save_pretrained(create_model("mae_vit_tiny_patch8", **tiny), tmp_path)
    path = tmp_path / "model.safetensors"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save({"a": Bomb()}, path, _use_new_zipfile_serialization=how == "torch.save")
    with pytest.raises(CheckpointError, match="is a pickle"):
        load_encoder(tmp_path)


def test_what_is_wrong_with_a_directory_is_said(tiny, tmp_path):
    with pytest.raises(CheckpointError, match="is no model directory"):
        load_encoder(tmp_path)
    model = create_model("mae_vit_tiny_patch8", **tiny)
    save_pretrained(model, tmp_path)
    config_path, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    config = json.loads(config_path.read_text())

    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        from_pretrained(tmp_path)
    weights.write_bytes(whole)

    config_path.write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(CheckpointError, match="format version 99; this code reads 1"):
        from_pretrained(tmp_path)
    config_path.write_text(json.dumps({**config, "kwargs": {**config["kwargs"], "depth": 3}}))
    with pytest.raises(CheckpointError, match=r"missing 12: .*blocks\.2"):
        load_encoder(tmp_path)
    config_path.write_text(json.dumps({**config, "kwargs": {**config["kwargs"], "depth": 1}}))
    with pytest.raises(CheckpointError, match=r"not known 12: .*blocks\.1"):
        from_pretrained(tmp_path)
    config_path.write_text(json.dumps({**config, "kwargs": {**config["kwargs"], "embed_dim": 32}}))
    with pytest.raises(CheckpointError, match=r"other shape 30: .*attn.qkv.bias is \(192,\) instead of \(96,\)"):
        from_pretrained(tmp_path)
    config_path.write_text(json.dumps({**config, "kwargs": {"no_such": 1}}))
    with pytest.raises(CheckpointError, match="no argument 'no_such'"):
        from_pretrained(tmp_path)
    config_path.write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float8_e4m3fn, torch.float16])
def test_weights_are_judged_as_the_model_holds_them(tiny, tmp_path, dtype):
    model = create_model("mae_vit_tiny_patch8", **tiny)
    save_pretrained(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bias = tensors["encoder.norm.bias"].to(dtype)
    save_file({**tensors, "encoder.norm.bias": bias}, tmp_path / "model.safetensors")
    assert torch.equal(load_encoder(tmp_path).norm.bias, bias.float())
    bias[3] = 1e300 if dtype == torch.float64 else torch.nan
    save_file({**tensors, "encoder.norm.bias": bias}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has values that are not finite, in \S*norm\.bias"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("gsd_m", [1e-300, 1e9])
def test_a_reference_gsd_by_which_no_encoding_can_be_computed_is_refused(tiny, tmp_path, gsd_m):
    save_pretrained(create_model("mae_vit_tiny_patch8", **tiny), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["kwargs"]["gsd_reference_m"] = gsd_m
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"gsd_reference_m must be 0\.001 to 1,000,000 metres"):
        load_encoder(tmp_path)


def test_reserved_keys_are_not_overwritten(tiny, tmp_path):
    with pytest.raises(ValueError, match="must not hold \\['model'\\]"):
        save_pretrained(create_model("mae_vit_tiny_patch8", **tiny), tmp_path, config={"model": "x"})
