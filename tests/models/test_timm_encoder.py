"""Encoders of timm from files: their features are timm's own, on any bands; what does not fit is told."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from a2mae.errors import InputError
from a2mae.models import CheckpointError
from a2mae.models.timm_encoder import levels_of, load_timm, timm_config

VITS = ("test_vit", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3")
PYRAMIDS = ("test_resnet", "test_convnext", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256")
SMALL = {"vit_small_patch14_dinov2": {"depth": 2}, "vit_small_patch16_dinov3": {"depth": 2}}


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """timm's small networks with two blocks: the files of these tests are made here."""
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **options: create(name, **{**SMALL.get(name, {}), **options})
    )
    torch.manual_seed(0)


def network(name: str, **options: object) -> nn.Module:
    """A network of timm with weights that are none of its first ones."""
    model = timm.create_model(name, **{"num_classes": 5, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def any_size(name: str) -> dict[str, bool]:
    return {"dynamic_img_size": True} if name not in ("test_resnet", "test_convnext") else {}


@torch.no_grad()
@pytest.mark.parametrize("name", [*VITS, *PYRAMIDS])
def test_features_are_timms_own(tmp_path, name):
    """The pooled feature, the maps of each level, the tokens; the classifier is left out."""
    theirs = network(name, **any_size(name))
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    ours, rows = load_timm(name, tmp_path / "weights.safetensors", bands=3)
    assert [row.verdict for row in rows if row.part == "classification head"] == ["left out"]
    images = torch.randn(2, 3, 5 * ours.multiple_px, 3 * ours.multiple_px)
    tokens = ours.forward_features(images)
    theirs.reset_classifier(0)
    torch.testing.assert_close(tokens[:, 0], theirs(images), atol=1e-5, rtol=0)
    assert tokens.shape[1] == 1 + 15 and tokens.shape[2] == ours.num_features
    levels = levels_of(ours.feature_info)
    maps = ours.forward_intermediates(images, levels)
    expected = theirs.forward_intermediates(images, indices=sorted(set(levels)), intermediates_only=True)
    for level, found in zip(levels, maps, strict=True):
        wanted = expected[sorted(set(levels)).index(level)]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
        stage = ours.feature_info[level]
        assert found.shape[1:] == (stage.num_chs, *(side // stage.reduction for side in images.shape[-2:]))


@torch.no_grad()
def test_a_pyramid_is_that_of_features_only(tmp_path):
    torch.save(network("test_resnet").state_dict(), tmp_path / "resnet.pth")
    ours, _ = load_timm("test_resnet", tmp_path / "resnet.pth", bands=3)
    theirs = timm.create_model("test_resnet", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    theirs.load_state_dict({n: v for n, v in ours.network.state_dict().items() if n in theirs.state_dict()})
    images = torch.randn(2, 3, 64, 96)
    for found, expected in zip(ours.forward_intermediates(images, [1, 2, 3, 4]), theirs(images), strict=True):
        torch.testing.assert_close(found, expected)


@torch.no_grad()
@pytest.mark.parametrize(("name", "first"), [("test_vit", "patch_embed.proj"), ("test_resnet", "conv1.0")])
def test_every_band_takes_the_kernel_of_the_nearest_channel(tmp_path, name, first):
    theirs = network(name)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "weights.pth")
    kernel = theirs.state_dict()[f"{first}.weight"]
    path = tmp_path / "weights.pth"
    ours, rows = load_timm(name, path, bands=4, wavelength_nm=(490, 560, 665, 833))
    expected = torch.stack([kernel[:, 2], kernel[:, 1], kernel[:, 0] / 2, kernel[:, 0] / 2], dim=1)
    assert torch.equal(ours.network.state_dict()[f"{first}.weight"], expected)
    told = {row.part: row for row in rows}
    assert told["first layer"].verdict == "adapted"
    assert told["first layer"].detail == "bands by nearest wavelength (nm): 490←490, 560←560, 665←665, 833←665"
    with pytest.raises(CheckpointError, match="band 2 of the model has no wavelength"):
        load_timm(name, path, bands=2, wavelength_nm=(490, 0))
    torch.save(network(name, in_chans=13).state_dict(), path)  # as torchgeo's of Sentinel-2
    _, rows = load_timm(name, path, bands=13, wavelength_nm=range(443, 456))
    assert {row.part: row.verdict for row in rows}["first layer"] == "taken"


@torch.no_grad()
def test_a_table_of_positions_for_other_images_is_taken_and_told(tmp_path):
    theirs = network("test_vit", img_size=64, num_classes=0)
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    ours, rows = load_timm("test_vit", tmp_path / "vit.safetensors", bands=3)
    assert ours.config.img_size == 64
    assert [row.detail for row in rows if row.part == "table of positions"] == [
        "for images of 64 px, resampled to the images' grid"
    ]
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.forward_features(images)[:, 0], theirs(images), atol=1e-5, rtol=0)
    document = ours.config.document()
    assert timm_config(str(document["model"]), dict(document["kwargs"])) == ours.config
    with pytest.raises(CheckpointError, match=r"describes no encoder of timm of this version.*'depth'"):
        timm_config("timm/test_vit", {"depth": 3})


@torch.no_grad()
@pytest.mark.parametrize(("size_px", "fed"), [(None, 48), (64, 64), ("timm", 160)])
def test_images_are_resized_by_one_factor(tmp_path, size_px, fed):
    """The factor of the samples holds for the windows of a raster, too: things keep their size in pixels."""
    save_file(network("test_vit").state_dict(), tmp_path / "vit.safetensors")
    ours, rows = load_timm("test_vit", tmp_path / "vit.safetensors", bands=3, image_px=40, size_px=size_px)
    assert ours.config.scale == fed / 40
    assert any(f"40 px are resized to {fed} px" in row.detail for row in rows)
    for pixels in (40, 80):
        images = torch.randn(1, 3, pixels, pixels)
        larger = nn.functional.interpolate(images, size=pixels * fed // 40, mode="bilinear", align_corners=False)
        expected = load_timm("test_vit", tmp_path / "vit.safetensors", bands=3)[0].forward_features(larger)
        torch.testing.assert_close(ours.forward_features(images), expected)


def test_what_does_not_fit_is_refused_in_a_sentence_and_nothing_is_loaded_by_half(tmp_path):
    tensors = network("test_vit").state_dict()
    save_file(tensors, tmp_path / "good.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:10_000])
    save_file({n: v for n, v in tensors.items() if n != "norm.bias"}, tmp_path / "missing.safetensors")
    save_file({**tensors, "decoder_pred.bias": torch.zeros(3)}, tmp_path / "extra.safetensors")
    save_file({**tensors, "norm.bias": torch.zeros(7)}, tmp_path / "width.safetensors")
    torch.save({"model": network}, tmp_path / "code.pth")
    for model, file, message in (
        ("test_vit2", "good", r"does not fit timm's test_vit2: missing \d+: .* Name the model that the weights are of"),
        ("resnet18", "good", r"does not fit timm's resnet18: missing \d+: bn1.bias.* not known \d+: blocks"),
        ("test_vit", "missing", r"does not fit timm's test_vit: missing 1: norm\.bias\. Name"),
        ("test_vit", "extra", r"not known 1: decoder_pred\.bias"),
        ("test_vit", "width", r"other shape 1: norm\.bias is \(7,\) instead of \(64,\)"),
        ("test_vit", "torn", "is not a whole safetensors file"),
        ("test_vit", "none", "is missing: name a file of weights"),
        ("resnet5000", "good", r"has no model 'resnet5000': did you mean 'resnet50\w*'\?"),
        ("test_vit.no_tag", "good", r"has no weights 'test_vit\.no_tag'"),
        ("test_mambaout", "good", "does not fit timm's test_mambaout"),
    ):
        with pytest.raises((CheckpointError, InputError), match=message):
            load_timm(model, tmp_path / f"{file}.safetensors", bands=3)
    with pytest.raises(
        CheckpointError, match=r"holds more than tensors, a pickle that calls \S+, and was not executed"
    ):
        load_timm("test_vit", tmp_path / "code.pth", bands=3)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="is a directory: a file of weights is needed"):
        load_timm("test_vit", tmp_path / "folder", bands=3)


def test_a_name_of_a_billion_weights_takes_no_memory_where_the_file_is_of_another(tmp_path, monkeypatch):
    save_file(network("test_vit").state_dict(), tmp_path / "small.safetensors")
    create, devices = timm.create_model, []

    def noting(name, **options):
        devices.append(torch.get_default_device().type)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", noting)
    with pytest.raises(CheckpointError, match=r"does not fit timm's vit_giant_patch14_224: missing"):
        load_timm("vit_giant_patch14_224", tmp_path / "small.safetensors", bands=3)
    assert set(devices) == {"meta"}
    assert not any(
        value.is_meta for value in load_timm("test_vit", tmp_path / "small.safetensors", bands=3)[0].parameters()
    )
