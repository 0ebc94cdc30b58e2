"""Published weights: what a file is, what a model takes of it, and that its features are those of its own model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from timm.layers.patch_embed import resample_patch_embed
from torch import nn

from a2mae.models import CheckpointError, create_model, load_encoder, save_pretrained
from a2mae.models.layers.encodings import sincos_2d
from a2mae.models.sources import RGB_NM, read_weights, weights_digest
from a2mae.models.start import map_bands, plan_start

SMALL = {"embed_dim": 128, "depth": 2, "decoder_dim": 64, "decoder_depth": 2}
SIZES = {"tiny": 192, "small": 384, "base": 768}


def randomize(module: nn.Module) -> nn.Module:
    """Biases, norms and scales away from 0 and 1, so that a forgotten one shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return module.eval()


def small(method: str, **kwargs: object):
    return randomize(create_model(f"{method}_vit_tiny_patch16", **{**SMALL, **kwargs}))


def timm_vit(name: str = "vit_tiny_patch16_224", *, sincos: bool = True, **kwargs: object) -> nn.Module:
    """A vision transformer of timm, random, its positions those that MAE has, but for the class token's."""
    model = randomize(timm.create_model(name, num_classes=kwargs.pop("num_classes", 0), **{"depth": 2, **kwargs}))
    if sincos:
        table = sincos_2d(model.patch_embed.grid_size, torch.ones(1), model.embed_dim)
        model.pos_embed.data[:, -table.shape[1] :] = table
    return model


def verdicts(plan) -> dict[str, str]:
    return {row.part: row.verdict for row in plan.rows}


def write(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    torch.save({"model": tensors, "epoch": 3}, path)
    return path


@torch.no_grad()
@pytest.mark.parametrize("pixels", [64, 224])
@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize("size", SIZES)
def test_the_encoder_equals_timms_own_model(tmp_path, size, patch, pixels):
    pixels = pixels // patch * patch
    theirs = timm_vit(f"vit_{size}_patch16_224", img_size=pixels, patch_size=patch)
    path = tmp_path / "vit.safetensors"
    save_file(theirs.state_dict(), path)
    weights = read_weights(path)
    assert weights.name == f"mae_vit_{size}_patch{patch}" and weights.positions == "sincos"
    ours = create_model(weights.name, depth=2, decoder_depth=1).eval()
    plan = plan_start(weights, ours)
    assert verdicts(plan) == {
        "position of the class token": "adapted",
        "patch embedding": "taken",
        "class token and blocks": "taken",
        "positions": "taken",
        "decoder": "fresh",
    }
    plan.apply(ours)
    images = torch.randn(1, 3, pixels, pixels)
    expected = theirs.forward_features(images)
    torch.testing.assert_close(ours.forward_features(images), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_layer_scale_is_multiplied_in_and_the_function_stays(tmp_path):
    theirs = timm_vit("vit_small_patch14_dinov2", img_size=70)
    for block in theirs.blocks:
        block.ls1.gamma.copy_(torch.rand(384) + 0.5)
        block.ls2.gamma.copy_(torch.rand(384) + 0.5)
    weights = read_weights(write(tmp_path / "dino.pth", theirs.state_dict()))
    assert "DINOv2" in weights.kind and weights.name == "mae_vit_small_patch14"
    ours = create_model(weights.name, depth=2).eval()
    plan_start(weights, ours).apply(ours)
    images = torch.randn(2, 3, 70, 70)
    torch.testing.assert_close(ours.forward_features(images), theirs.forward_features(images), atol=1e-5, rtol=0)


def test_dinov3_brings_its_blocks_and_tells_what_it_leaves(tmp_path):
    theirs = randomize(timm.create_model("vit_small_patch16_dinov3", depth=2, num_classes=0))
    weights = read_weights(write(tmp_path / "dino.pth", theirs.state_dict()))
    assert "DINOv3" in weights.kind
    ours = create_model("mae_vit_small_patch16", depth=2)
    plan = plan_start(weights, ours)
    told = verdicts(plan)
    assert told["register tokens"] == told["positions"] == "left out"
    assert told["bias of queries, keys and values"] == told["layer scale"] == "adapted"
    plan.apply(ours)
    block = theirs.blocks[1]
    expected = block.attn.proj.weight * block.gamma_1[:, None]
    assert torch.equal(ours.encoder.blocks[1].attn.proj.weight, expected)
    assert not ours.encoder.blocks[1].attn.qkv.bias.any()


@torch.no_grad()
def test_torchgeos_scale_mae_is_read(tmp_path):
    scale_mae = pytest.importorskip("torchgeo.models.scale_mae")
    theirs = randomize(scale_mae.ScaleMAE(img_size=64, embed_dim=192, depth=2, num_heads=3, num_classes=0))
    weights = read_weights(write(tmp_path / "scale.pth", theirs.state_dict()), method="scale_mae")
    assert weights.name == "scale_mae_vit_tiny_patch16"
    ours = create_model(weights.name, depth=2)
    plan_start(weights, ours).apply(ours)
    assert torch.equal(ours.encoder.blocks[1].mlp.fc2.weight, theirs.blocks[1].mlp.fc2.weight)


def test_of_dofa_the_plain_parts_are_taken(tmp_path):
    dofa = pytest.importorskip("torchgeo.models.dofa")
    theirs = randomize(dofa.DOFA(img_size=64, embed_dim=192, depth=2, num_heads=3, num_classes=0))
    weights = read_weights(write(tmp_path / "dofa.pth", theirs.state_dict()))
    assert weights.kind == "DOFA" and not weights.has_stem
    ours = create_model("a2mae_vit_tiny_patch8", depth=2)
    kernel = ours.encoder.patch_embed.proj.weight.detach().clone()
    plan = plan_start(weights, ours)
    plan.apply(ours)
    assert verdicts(plan)["patch embedding"] == verdicts(plan)["last norm of the encoder"] == "fresh"
    assert verdicts(plan)["generator of kernels from wavelengths"] == "left out"
    assert torch.equal(ours.encoder.blocks[0].attn.qkv.weight, theirs.blocks[0].attn.qkv.weight)
    assert torch.equal(ours.encoder.patch_embed.proj.weight, kernel)


@pytest.mark.parametrize(("method", "kind"), [("a2mae", "A²-MAE"), ("scale_mae", "Scale-MAE"), ("mae", "MAE")])
def test_ours_under_published_names_comes_back_to_the_bit(tmp_path, method, kind):
    model = small(method, released_tables=True)
    if hasattr(model, "released"):  # as published: computed, not learned
        model.released.pos_embed.data[:, 1:] = sincos_2d((14, 14), torch.ones(1), model.released.pos_embed.shape[-1])
        model.released.pos_embed.data[:, 0] = 0
    weights = read_weights(write(tmp_path / "published.pth", model.released_state_dict()))
    assert weights.kind == kind and weights.name == f"{method}_vit_base_patch16"
    again = create_model(weights.name, **SMALL)
    plan = plan_start(weights, again, decoder="same")
    plan.apply(again)
    expected = {name: value for name, value in model.state_dict().items() if not name.startswith("released.")}
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
    assert set(verdicts(plan).values()) <= {"taken", "left out"} and verdicts(plan)["positions"] == "taken"


@pytest.mark.parametrize("method", ["a2mae", "scale_mae", "mae", "satmae"])
@pytest.mark.parametrize("stem", ["linear", "rcf"])
def test_a_model_directory_starts_another_to_the_bit(tmp_path, method, stem):
    options = {"rcf_weight": 0.0 if method == "satmae" else 1.0, "stem": stem}
    model = small(method, **options)
    save_pretrained(model, tmp_path / "model")
    again = create_model(model.name, **SMALL, **options)
    plan = plan_start(read_weights(tmp_path / "model"), again, decoder="same")
    plan.apply(again)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    assert set(verdicts(plan).values()) == {"taken"}
    other = plan_start(
        read_weights(tmp_path / "model"), create_model(model.name, **SMALL, **options, gsd_reference_m=10.0)
    )
    assert verdicts(other)["positions"] == ("adapted" if method in ("a2mae", "scale_mae") else "taken")


def test_satmae_of_dates_is_told_by_the_width_of_its_table(tmp_path):
    sizes = {**SMALL, "embed_dim": 512, "depth": 1}
    model = small("satmae", **sizes)
    tables = {"pos_embed": torch.zeros(1, 5, 128), "decoder_pos_embed": torch.zeros(1, 5, 40)}
    weights = read_weights(write(tmp_path / "dates.pth", {**model.released_state_dict(), **tables}))
    assert weights.kind == "SatMAE, dates" and weights.config.encoding == "temporal"
    again = create_model(weights.name, **sizes)
    plan = plan_start(weights, again, decoder="same")
    plan.apply(again)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    assert verdicts(plan)["positions"] == "taken"


def test_satmaes_groups_are_read_group_by_group(tmp_path):
    groups = ((0, 1, 2), (3, 4))
    model = small("satmae", bands="groups", encoding="group", in_chans=5, groups=groups)
    names = {name: value for name, value in model.state_dict().items() if name.startswith("encoder.")}
    published = {name.removeprefix("encoder.").replace("members.", ""): value for name, value in names.items()}
    decoder = {"decoder_embed.weight": torch.zeros(64, 128), "decoder_blocks.0.norm1.weight": torch.zeros(64)}
    tables = {"pos_embed": torch.zeros(1, 5, 96), "channel_embed": torch.zeros(1, 2, 32)}
    weights = read_weights(write(tmp_path / "satmae.pth", {**published, **decoder, **tables}))
    assert weights.kind == "SatMAE, groups of bands" and weights.config.groups == groups and not weights.has_decoder
    again = create_model(weights.name, **SMALL, bands="groups", encoding="group", in_chans=5, groups=groups)
    plan_start(weights, again).apply(again)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in names.items())
    with pytest.raises(
        CheckpointError, match=r"cannot be mapped: its patch embedding reads groups of 3, 2; that of mae"
    ):
        plan_start(weights, small("mae"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(400, 2500), min_size=1, max_size=13), st.integers(1, 13))
def test_what_all_bands_show_alike_is_embedded_as_before(wavelengths, channels):
    """The kernels of all bands add up to those of the channels that are taken."""
    kernel = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    found, _ = map_bands(kernel, len(wavelengths), RGB_NM, wavelengths)
    taken = {min(range(3), key=lambda c: abs(RGB_NM[c] - nm)) for nm in wavelengths}
    torch.testing.assert_close(found.sum(1), kernel[:, sorted(taken)].sum(1))
    other = torch.randn(4, channels, 2, 2, dtype=torch.float64)
    spread, _ = map_bands(other, len(wavelengths), None, wavelengths)
    torch.testing.assert_close(spread.sum(1), other.sum(1))


def test_bands_take_the_kernel_of_the_nearest_channel_and_patches_are_resampled(tmp_path):
    theirs = timm_vit()
    weights = read_weights(write(tmp_path / "vit.pth", theirs.state_dict()))
    ours = create_model("a2mae_vit_tiny_patch8", depth=2, in_chans=4, encoding="own")
    plan = plan_start(weights, ours, wavelength_nm=(492, 560, 665, 833))  # Sentinel-2's blue, green, red, NIR
    plan.apply(ours)
    kernel = theirs.patch_embed.proj.weight.detach()
    expected = torch.stack([kernel[:, 2], kernel[:, 1], kernel[:, 0] / 2, kernel[:, 0] / 2], dim=1)
    assert torch.equal(ours.encoder.patch_embed.proj.weight, resample_patch_embed(expected, [8, 8]))
    assert torch.equal(ours.encoder.patch_embed.proj.bias, theirs.patch_embed.proj.bias)
    row = next(row for row in plan.rows if row.part == "patch embedding")
    assert row.verdict == "adapted"
    assert row.detail.endswith("492←490, 560←560, 665←665, 833←665; patch 16 resampled to 8")
    assert verdicts(plan)["positions"] == "left out"
    drawn = create_model("a2mae_vit_tiny_patch16", depth=2)  # three drawn bands: A²-MAE starts from ImageNet-MAE so
    plan_start(weights, drawn).apply(drawn)
    assert torch.equal(drawn.encoder.patch_embed.proj.weight, kernel)


def test_a_learned_table_is_told_as_left_out(tmp_path):
    weights = read_weights(write(tmp_path / "vit.pth", timm_vit(sincos=False, num_classes=10).state_dict()))
    plan = plan_start(weights, create_model("mae_vit_tiny_patch16", depth=2))
    told = verdicts(plan)
    assert told["positions"] == told["classification head"] == "left out"
    assert "learned table" in plan.table()


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the file was executed",))


def test_what_is_no_such_file_is_refused_in_a_sentence(tmp_path):
    tensors = timm_vit().state_dict()
    good = write(tmp_path / "good.pth", tensors)
    save_file(tensors, tmp_path / "good.safetensors")
    torch.save({"model": Bomb()}, tmp_path / "evil.pth")
    (tmp_path / "torn.pth").write_bytes(good.read_bytes()[:100_000])
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:100_000])
    (tmp_path / "text.pth").write_text("<html>404</html>")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    small_decoder = {n: v for n, v in small("mae").released_state_dict().items() if n.startswith(("decoder_", "mask_"))}
    write(tmp_path / "decoder.pth", small_decoder)
    write(tmp_path / "resnet.pth", {"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)})
    write(tmp_path / "missing.pth", {name: value for name, value in tensors.items() if name != "blocks.1.norm2.bias"})
    write(tmp_path / "extra.pth", {**tensors, "blocks.0.attn.q_norm.weight": torch.ones(64)})
    write(tmp_path / "nan.pth", {**tensors, "norm.bias": torch.full((192,), torch.nan)})
    write(tmp_path / "scale.pth", {**tensors, "blocks.0.ls1.gamma": torch.ones(192)})
    write(tmp_path / "bias.pth", {name: value for name, value in tensors.items() if name != "blocks.1.attn.qkv.bias"})
    torch.save({"model": {"cls_token": "x"}}, tmp_path / "words.pth")
    meta = torch.zeros(3, device="meta")
    for name, changed in {
        "meta": {"norm.bias": meta},
        "expanded": {"norm.bias": torch.zeros(1).expand(10**12)},
        "width": {"cls_token": torch.zeros(1, 1, 0)},
        "scalar": {"blocks.1.attn.qkv.weight": torch.tensor(1.0)},
        "hidden": {"blocks.0.mlp.fc1.weight": torch.zeros(3)},
        "gamma": {f"blocks.{index}.ls1.gamma": torch.ones(5) for index in range(2)},
        "embed": {"decoder_embed.weight": torch.tensor(1.0)},
    }.items():
        write(tmp_path / f"{name}.pth", {**tensors, **changed})
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04\x95" + bytes(5) + b"{" + bytes(100))
    save_pretrained(small("mae"), tmp_path / "model")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_bytes((tmp_path / "model" / "config.json").read_bytes())
    for name, message in {
        "absent.pth": "is missing: name a file of weights or a model directory",
        "evil.pth": r"holds more than tensors, a pickle that calls \S+, and was not executed",
        "torn.pth": "is no whole file of torch.save",
        "torn.safetensors": "is not a whole safetensors file",
        "text.pth": "is no whole file of torch.save, nor safetensors",
        "empty.pth": "is no whole file of torch.save, nor safetensors",
        "folder": r"config\.json is missing: \S+ is no model directory",
        "half": r"model\.safetensors is missing",
        "decoder.pth": "holds a decoder alone",
        "resnet.pth": "is a ResNet, and what is trained here is a vision transformer: a task can start",
        "missing.pth": r"of another architecture, or not whole: missing 1: encoder\.blocks\.1\.norm2\.bias",
        "extra.pth": r"of another architecture, or not whole: not known 1: encoder\.blocks\.0\.attn\.q_norm\.weight",
        "scale.pth": r"is not whole: 1 of its 2 blocks have ls1\.gamma",
        "bias.pth": r"is not whole: 1 of its 2 blocks have attn\.qkv\.bias",
        "nan.pth": r"has values that are not finite, in norm\.bias",
        "meta.pth": r"must map names to tensors of real numbers, .* found norm\.bias",
        "expanded.pth": r"must map names to tensors of real numbers, .* found norm\.bias",
        "width.pth": "is no vision transformer that can be read",
        "scalar.pth": r"is no vision transformer: blocks\.1\.attn\.qkv\.weight has the shape \(\)",
        "hidden.pth": r"is no vision transformer: blocks\.0\.mlp\.fc1\.weight has the shape \(3,\)",
        "gamma.pth": r"is no vision transformer: blocks\.0\.ls1\.gamma has the shape \(5,\)",
        "embed.pth": r"is no vision transformer: decoder_embed\.weight has the shape \(\)",
        "pickle.safetensors": "is not a whole safetensors file",
        "words.pth": "must map names to tensors of real numbers, .* 'state_dict', found cls_token",
        "model/model.safetensors": "of a model directory: name the directory",
    }.items():
        with pytest.raises(CheckpointError, match=message) as told:
            read_weights(tmp_path / name)
        assert "\n" not in str(told.value) and str(tmp_path / name) in str(told.value)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("mae_vit_small_patch16", {}, "width 192 in the file, 384 in the model; depth 2"),
        ("mae_vit_tiny_patch16", {"depth": 4}, "depth 2 in the file, 4 in the model"),
        ("mae_vit_tiny_patch16", {"depth": 2, "num_heads": 6}, "attention heads 3 in the file, 6 in the model"),
        (
            "mae_vit_tiny_patch16",
            {"depth": 2, "mlp_ratio": 2.0},
            "hidden width over width 4 in the file, 2 in the model",
        ),
        (
            "mae_vit_tiny_patch16",
            {"depth": 2, "bands": "wavelength"},
            r"cannot be mapped: its patch embedding reads 3, taken for red, green, blue; .* bands='wavelength'",
        ),
        ("mae_vit_tiny_patch16", {"depth": 2, "decoder": "same"}, r"has no decoder that can be taken"),
        (
            "mae_vit_tiny_patch16",
            {"depth": 2, "in_chans": 2, "wavelength_nm": (560, 0)},
            r"its channels see 665, 560, 490 nm, band 2 of the model has no wavelength \(radar\)",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_both_sides(tmp_path, model, options, message):
    weights = read_weights(write(tmp_path / "vit.pth", timm_vit().state_dict()))
    how = {name: options.pop(name) for name in ("decoder", "wavelength_nm") if name in options}
    target = create_model(model, **options)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        plan_start(weights, target, **how)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_a_decoder_of_other_sizes_is_told_and_nothing_loaded_by_half(tmp_path):
    weights = read_weights(write(tmp_path / "mae.pth", small("mae").released_state_dict()))
    target = create_model("a2mae_vit_tiny_patch16", **{**SMALL, "decoder_dim": 32})
    with pytest.raises(
        CheckpointError, match=r"the decoder of .* not fit .*2 heads in the file, 1 in the model; .*is \(64,\) inst"
    ):
        plan_start(weights, target, decoder="same")
    with pytest.raises(CheckpointError, match=r"the decoder of .* does not fit .*missing .*decoder\.fcn"):
        plan_start(weights, create_model("scale_mae_vit_tiny_patch16", **SMALL), decoder="same")
    plan = plan_start(weights, create_model("a2mae_vit_tiny_patch16", **SMALL, rcf_weight=1.0), decoder="same")
    assert verdicts(plan)["decoder"] == "taken" and verdicts(plan)["prediction of features"] == "fresh"


def test_the_digest_of_a_directory_changes_with_either_file(tmp_path):
    save_pretrained(small("mae"), tmp_path / "model")
    before = weights_digest(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert weights_digest(tmp_path / "model") != before
    assert load_encoder(tmp_path / "model").config.depth == 2
