"""The encoder as others' backbone: by their packages where installed, by their documented contract anywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from a2mae.models import create_model, load_encoder, save_pretrained
from a2mae.models.backbones import Backbone, FeatureMaps, a2mae_encoder, register_with_terratorch, torchgeo_bench_model

SMALL = {"embed_dim": 64, "depth": 4, "decoder_dim": 32, "decoder_depth": 1}


@pytest.fixture
def directory(tmp_path):
    return pretrained(tmp_path / "model")


def pretrained(folder, **options):
    torch.manual_seed(0)
    model = create_model("a2mae_vit_tiny_patch8", **SMALL, gsd_reference_m=10.0, **options)
    return save_pretrained(model, folder, config={"method": "a2mae"})


@pytest.mark.parametrize("decoder", ["UPerNetDecoder", "UnetDecoder"])
def test_segmentation_models_pytorch(decoder, directory):
    smp = pytest.importorskip("segmentation_models_pytorch")
    base = pytest.importorskip("segmentation_models_pytorch.base")
    encoder = load_encoder(directory)
    backbone = Backbone(encoder, gsd_m=10.0)

    class Segmenter(base.SegmentationModel):
        def __init__(self):
            super().__init__()
            self.encoder = backbone
            if decoder == "UPerNetDecoder":
                self.decoder = smp.decoders.upernet.decoder.UPerNetDecoder(backbone.out_channels, decoder_channels=16)
                self.segmentation_head = base.SegmentationHead(16, 4, kernel_size=1, upsampling=4)
            else:
                self.decoder = smp.decoders.unet.decoder.UnetDecoder(backbone.out_channels, (32, 16, 16, 8, 8))
                self.segmentation_head = base.SegmentationHead(8, 4)
            self.classification_head = None
            self.initialize()

    model = Segmenter()
    logits = model(torch.randn(2, 3, 64, 96))
    assert logits.shape == (2, 4, 64, 96)
    logits.mean().backward()
    assert encoder.patch_embed.proj.weight.grad.abs().sum() > 0
    with pytest.raises(RuntimeError, match="Wrong input shape height=40"):
        model(torch.randn(2, 3, 40, 96))


# -- the contract: `out_channels`, and a list of feature maps from one tensor ----------------------------------------


@torch.no_grad()
def test_maps_are_those_of_the_encoder(directory):
    encoder, images = load_encoder(directory), torch.randn(2, 3, 32, 48)
    backbone = a2mae_encoder(directory, gsd_m=20.0)
    maps = backbone(images, location_coords=torch.zeros(2, 2))  # what a data set of terratorch's may hand on
    assert backbone.out_channels == [64] * 4 and [tuple(level.shape) for level in maps] == [(2, 64, 4, 6)] * 4
    expected = encoder.forward_intermediates(images, [0, 1, 2, 3], norm=True, gsd_m=20.0)
    assert all(torch.equal(found, level) for found, level in zip(maps, expected, strict=True))
    tokens = encoder.forward_features(images, gsd_m=20.0)
    assert_close(backbone.features(images, "mean"), tokens[:, 1:].mean(1), atol=1e-6, rtol=0)
    assert torch.equal(backbone.features(images, "cls"), tokens[:, 0])


@torch.no_grad()
def test_more_bands_than_the_encoder_reads_stand_side_by_side(directory):
    images = torch.randn(1, 4, 32, 32)
    backbone = a2mae_encoder(directory, in_chans=4, gsd_m=10.0)
    assert backbone.out_channels == [128] * 4
    one = a2mae_encoder(directory, gsd_m=10.0)
    rest = torch.cat([images[:, 3:], torch.zeros(1, 2, 32, 32)], dim=1)
    for level, first, second in zip(backbone(images), one(images[:, :3]), one(rest), strict=True):
        assert torch.equal(level, torch.cat([first, second], dim=1))


@torch.no_grad()
def test_free_bands_are_told_by_their_wavelengths(tmp_path):
    directory = pretrained(tmp_path / "free", bands="wavelength")
    images, nm = torch.randn(2, 5, 32, 32), [490.0, 560.0, 665.0, 842.0, 0.0]
    (last,) = a2mae_encoder(directory, gsd_m=10.0, wavelength_nm=nm, indices=[-1])(images)
    tokens = load_encoder(directory).forward_features(images, gsd_m=10.0, wavelength_nm=torch.tensor(nm))
    assert_close(last.flatten(2).transpose(1, 2), tokens[:, 1:])


def test_what_does_not_fit_is_a_sentence(tmp_path, directory):
    free = pretrained(tmp_path / "free", bands="wavelength")
    for build, message in (
        (lambda: a2mae_encoder(directory), "reads the GSD .encoding 'paper'.: give gsd_m"),
        (lambda: a2mae_encoder(free, gsd_m=10.0), "reads any bands by their wavelength, found none"),
        (lambda: a2mae_encoder(free, gsd_m=10.0, in_chans=3, wavelength_nm=[1.0]), "found 1 for 3 bands"),
        (lambda: a2mae_encoder(directory, gsd_m=10.0, wavelength_nm=[1.0]), "leave wavelength_nm away"),
        (lambda: a2mae_encoder(directory, gsd_m=10.0)(torch.zeros(1, 4, 32, 32)), "set in_chans to their bands"),
        (lambda: Backbone(load_encoder(directory), indices=[0]), "indices must name five blocks"),
        (lambda: a2mae_encoder(tmp_path / "none", gsd_m=10.0), "none/config.json"),
    ):
        with pytest.raises(ValueError, match=message) as found:
            build()
        assert "\n" not in str(found.value)


# -- their packages ----------------------------------------------------------------------------------------------------


def test_terratorch_builds_and_trains_on_it(directory):
    """A segmentation model and a classifier by terratorch's own factory, from the backbone's name."""
    registry = pytest.importorskip("terratorch.registry")
    factories = pytest.importorskip("terratorch.models")
    register_with_terratorch()
    assert "a2mae_encoder" in registry.BACKBONE_REGISTRY
    options = {"directory": str(directory), "in_chans": 4, "gsd_m": 10.0}
    pyramid = [{"name": "LearnedInterpolateToPyramidal"}]
    for task, decoder, necks, shape in (
        ("segmentation", "UperNetDecoder", pyramid, (2, 5, 64, 64)),
        ("segmentation", "FCNDecoder", [], (2, 5, 64, 64)),
        ("classification", "IdentityDecoder", [], (2, 5)),
    ):
        model = factories.EncoderDecoderFactory().build_model(
            task, backbone="a2mae_encoder", backbone_kwargs=options, decoder=decoder, necks=necks, num_classes=5
        )
        output = model(torch.randn(2, 4, 64, 64)).output
        assert output.shape == shape
        output.mean().backward()
        assert model.encoder.encoder.patch_embed.proj.weight.grad.abs().sum() > 0
        model.freeze_encoder()
        assert not any(parameter.requires_grad for parameter in model.encoder.parameters())


def test_terratorch_finds_it_by_the_file_that_the_page_shows(tmp_path):
    pytest.importorskip("terratorch.registry")
    page = (Path(__file__).parents[2] / "docs/weights.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(# custom_modules/__init__\.py\n.*?)```", page, re.S)
    (tmp_path / "custom_modules").mkdir()
    (tmp_path / "custom_modules" / "__init__.py").write_text(code)
    asked = "from terratorch.registry import BACKBONE_REGISTRY; print('a2mae_encoder' in BACKBONE_REGISTRY)"
    done = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "True"


def _bands(names_um):
    base = pytest.importorskip("torchgeo_bench.datasets.base")
    return [
        base.BandSpec("s2", name, name.upper(), mean=1000.0, std=200.0, min=0.0, max=10000.0, wavelength_um=um)
        for name, um in names_um.items()
    ]


@torch.no_grad()
@pytest.mark.parametrize("way", ["draw3", "wavelength"])
def test_torchgeo_bench_judges_it(tmp_path, way):
    """Built by Hydra from the YAML that docs/weights.md shows; its features are the encoder's."""
    hydra = pytest.importorskip("hydra.utils")
    interface = pytest.importorskip("torchgeo_bench.models.interface")
    probe = pytest.importorskip("torchgeo_bench.segmentation_probe")
    directory = pretrained(tmp_path / "model", bands=way)
    um = {"blue": 0.49, "green": 0.56, "red": 0.665, "vv": None}
    config = {"_target_": "a2mae.models.backbones.torchgeo_bench_model", "directory": str(directory), "gsd_m": 10.0}
    model = hydra.instantiate({**config, "name": "ours"}, bands=_bands(um), normalization="bandspec_zscore")
    assert isinstance(model, interface.BenchModel) and not any(p.requires_grad for p in model.parameters())
    raw = 1000 + 200 * torch.randn(2, 4, 32, 32)
    found, images = model.eval()(raw), (raw - 1000) / 200
    encoder = load_encoder(directory)
    if way == "wavelength":
        nm = torch.tensor([490.0, 560.0, 665.0, 0.0])
        expected = encoder.forward_features(images, gsd_m=10.0, wavelength_nm=nm)[:, 1:].mean(1)
        assert_close(found, expected, atol=1e-4, rtol=0)
    else:
        first = encoder.forward_features(images[:, :3], gsd_m=10.0)[:, 1:].mean(1)
        assert found.shape == (2, 128)
        assert_close(found[:, :64], first, atol=1e-4, rtol=0)
        return  # a layer is read twice there: no probe of layers
    layers = ["encoder.blocks.3", "encoder.blocks.1"]
    logits = probe.SegmentationProbe(model, layers, num_classes=3)(raw)
    assert logits.shape == (2, 3, 32, 32)


# -- and where they are not installed: the same calls by what their documentation says ---------------------------------


@pytest.fixture
def as_documented(monkeypatch):
    """`register` keeps a constructor by its name; `BenchModel` normalises before it asks for features."""
    registered = {}

    class BenchModel(nn.Module):
        def __init__(self, bands, normalization="bandspec_zscore", **_):
            super().__init__()
            self.bands, self.normalization = bands, normalization

        def forward(self, images):
            return self._forward_patch_features(images - 1)

    registry = SimpleNamespace(register=lambda build: registered.setdefault(build.__name__, build))
    for name, content in (
        ("terratorch", {}),
        ("terratorch.registry", {"TERRATORCH_BACKBONE_REGISTRY": registry}),
        ("torchgeo_bench", {}),
        ("torchgeo_bench.models", {}),
        ("torchgeo_bench.models.interface", {"BenchModel": BenchModel}),
    ):
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return registered


@torch.no_grad()
def test_the_documented_contracts(directory, as_documented):
    register_with_terratorch()
    backbone = as_documented["a2mae_encoder"](directory=str(directory), gsd_m=10.0)
    assert isinstance(backbone, FeatureMaps) and len(backbone.out_channels) == len(backbone(torch.zeros(1, 3, 16, 16)))
    bands = [SimpleNamespace(name=name, wavelength_um=None) for name in ("red", "green", "blue")]
    model = torchgeo_bench_model(
        bands, directory=directory, gsd_m=10.0, pool="cls", name="ours", normalization="identity"
    )
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images), load_encoder(directory).forward_features(images - 1, gsd_m=10.0)[:, 0])
    assert model.normalization == "identity"
    with pytest.raises(ValueError, match="unknown pool 'max'"):
        torchgeo_bench_model(bands, directory=directory, gsd_m=10.0, pool="max")
