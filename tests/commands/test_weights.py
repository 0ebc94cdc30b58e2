"""`a2mae weights`: what a file is, and a model directory of it that loads."""

from __future__ import annotations

import hashlib
import json

import pytest
import timm
import torch

from a2mae.commands import main
from a2mae.models import create_model, from_pretrained

SMALL = {"embed_dim": 64, "depth": 2, "decoder_dim": 32, "decoder_depth": 1}


@pytest.fixture
def published(tmp_path):
    torch.manual_seed(1)
    model = create_model("mae_vit_tiny_patch8", **SMALL)
    torch.save({"model": model.released_state_dict(), "epoch": 1}, tmp_path / "mae.pth")
    return model


def test_show_says_what_a_file_is(tmp_path, published, capsys):
    assert main(["weights", "show", str(tmp_path / "mae.pth")]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:8])
    assert said == {
        "file": str(tmp_path / "mae.pth"),
        "sha256": hashlib.sha256((tmp_path / "mae.pth").read_bytes()).hexdigest(),
        "is": "MAE",
        "model": "mae_vit_base_patch8",
        "encoder": "width 64, depth 2, 1 heads",
        "patch": "8 pixels",
        "bands": "3, taken for red, green, blue",
        "decoder": "width 32, depth 1",
    }


def test_import_writes_a_model_directory(tmp_path, published, capsys):
    target = tmp_path / "imported"
    command = ["weights", "import", str(tmp_path / "mae.pth"), str(target), "--licence", "CC-BY-NC-4.0"]
    assert main(command) == 0
    assert "decoder                 taken" in capsys.readouterr().out
    model = from_pretrained(target)
    assert all(torch.equal(value, published.state_dict()[name]) for name, value in model.state_dict().items())
    config = json.loads((target / "config.json").read_text())
    assert config["method"] == "mae" and config["start"]["licence"] == "CC-BY-NC-4.0"
    assert config["start"]["weights"] == "mae.pth" and config["start"]["kind"] == "MAE"
    assert main(["weights", "show", str(target)]) == 0
    assert main(command) == 1
    assert "is there already: name a directory that is not" in capsys.readouterr().err


def test_an_encoder_alone_gets_the_same_fresh_decoder_in_every_import(tmp_path, published):
    own = ("cls_token", "patch_embed.", "blocks.", "norm.")
    encoder = {name: value for name, value in published.released_state_dict().items() if name.startswith(own)}
    torch.save(encoder, tmp_path / "vit.pth")
    for name in ("one", "two"):
        assert (
            main(["weights", "import", str(tmp_path / "vit.pth"), str(tmp_path / name), "--method", "scale_mae"]) == 0
        )
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    model = from_pretrained(tmp_path / "one")
    assert model.config.encoding == "gsd" and torch.equal(model.encoder.norm.bias, published.encoder.norm.bias)


@pytest.mark.parametrize(
    ("model", "family"),
    [("resnet18", "ResNet"), ("swin_tiny_patch4_window7_224", "Swin"), ("convnext_atto", "ConvNeXt")],
)
def test_show_says_which_pyramid_a_file_is(tmp_path, capsys, model, family):
    """And what does not start from it says so: its name is what `<task>.start.model` takes (test_timm_encoder)."""
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": timm.create_model(model, in_chans=13, num_classes=19).state_dict()}, file)
    assert main(["weights", "show", str(file)]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["is"] == family and said["model"] == f"timm's {model}" and said["bands"] == "13"
    assert said["starts"].startswith("no training; a task") and said["sha256"]
    assert main(["weights", "import", str(file), str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert f"is a {family}, and what is trained here is a vision transformer" in told and told.count("\n") == 1


def test_show_names_a_pyramid_that_timm_does_not_have(tmp_path, capsys):
    tensors = timm.create_model("resnet18").state_dict()
    torch.save({name: value for name, value in tensors.items() if not name.startswith("layer4.")}, tmp_path / "cut.pth")
    assert main(["weights", "show", str(tmp_path / "cut.pth")]) == 0
    assert "model    none of timm's by that family's name" in capsys.readouterr().out


def test_names_of_a_pyramid_without_a_kernel_are_refused_at_once(tmp_path, capsys):
    torch.save({"layer1.0.conv1.weight": torch.zeros(3)}, tmp_path / "names.pth")
    assert main(["weights", "show", str(tmp_path / "names.pth")]) == 1
    assert "has names of a ResNet, and no kernel" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["x" * 300, "mae.pth/below"])
def test_a_path_that_the_system_refuses_is_named(tmp_path, published, capsys, place):
    for arguments in (["show", str(tmp_path / place)], ["import", str(tmp_path / "mae.pth"), str(tmp_path / place)]):
        assert main(["weights", *arguments]) == 1
        said = capsys.readouterr().err
        assert said.startswith("a2mae: ") and str(tmp_path) in said and said.count("\n") == 1, said


def test_what_cannot_be_read_is_a_sentence_and_leaves_nothing(tmp_path, published, capsys):
    (tmp_path / "page.pth").write_text("<html>")
    assert main(["weights", "import", str(tmp_path / "page.pth"), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("a2mae: ") and "is no whole file of torch.save" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main(["weights", "import", str(tmp_path), str(tmp_path / "out")]) == 1
    assert main(["weights", "show", str(tmp_path / "mae.pth"), "--method", "scale_mae"]) == 1
    assert "is of MAE, with its decoder: it cannot be read as scale_mae" in capsys.readouterr().err


ADDRESS = "https://user:PASS@host/x.pth?sig=TOKEN"


@pytest.mark.parametrize(
    "words",
    [
        ["weights", "show", ADDRESS],
        ["weights", "import", ADDRESS, "out"],
        ["weights", "show", ADDRESS.replace("//", "/")],
        ["labels", ADDRESS],
        ["export", "onnx", ADDRESS, "out"],
    ],
)
def test_an_address_is_no_file_and_its_secrets_are_not_shown(words, capsys):
    assert main(words) == 1
    told = capsys.readouterr()
    assert "host/x.pth is an address, and a file or folder of this machine is needed: download it first" in told.err
    assert not any(secret in told.err + told.out for secret in ("user", "PASS", "TOKEN"))
