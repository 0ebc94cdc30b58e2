"""`a2mae export`: what is written is what others load, with the same features; and it says what it is."""

from __future__ import annotations

import json
import runpy
import shutil

import pytest
import timm
import torch
from torch.testing import assert_close

from a2mae.commands import main
from a2mae.files import file_digest
from a2mae.models import create_model, load_encoder, save_pretrained
from a2mae.provenance.check import check
from a2mae.provenance.record import write_sealed
from a2mae.sensors import BUILTIN_SENSORS

SMALL = {"embed_dim": 64, "depth": 2, "decoder_dim": 32, "decoder_depth": 1}
NAMES = {"sentinel-2-l2a": ["B02", "B03", "B04", "B08"], "my-camera": ["one", "two", "three"]}


def pretrained(folder, method="a2mae", **options):
    """A model directory as a training leaves it."""
    torch.manual_seed(0)
    model = create_model(f"{method}_vit_tiny_patch8", **SMALL, gsd_reference_m=10.0, **options)
    statistics = {sensor: {band: [0.1, 0.05] for band in bands} for sensor, bands in NAMES.items()}
    config = {"method": method, "bands": NAMES, "normalization": statistics, "image_size": 64}
    return save_pretrained(model, folder, config={**config, "data_manifest_hash": "5e" * 32})


def export(*words) -> int:
    return main(["export", *map(str, words)])


@torch.no_grad()
@pytest.mark.parametrize("encoding", ["sincos", "gsd", "own", "paper", "temporal"])
def test_plain_timm_loads_it_with_equal_features(tmp_path, capsys, encoding):
    directory = pretrained(tmp_path / "model", encoding=encoding, in_chans=4)
    assert export(directory, tmp_path / "timm", "--to", "timm", "--image-px", 48, "--gsd-m", 30) == 0
    assert "equal for normalised images of 48 px at 30 m, with place and date unknown" in capsys.readouterr().out
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    ours = load_encoder(directory)
    images = torch.randn(2, 4, 48, 48)
    assert_close(theirs.forward_features(images), ours.forward_features(images, gsd_m=30.0), atol=1e-5, rtol=0)
    assert_close(theirs(images), ours(images, gsd_m=30.0), atol=1e-5, rtol=0)


@torch.no_grad()
def test_what_timm_got_comes_back_as_a_start(tmp_path):
    """Out and in again: to the bit."""
    directory = pretrained(tmp_path / "model", "mae")
    assert export(directory, tmp_path / "timm", "--to", "timm") == 0
    assert main(["weights", "import", str(tmp_path / "timm" / "model.safetensors"), str(tmp_path / "again")]) == 0
    before, after = (load_encoder(tmp_path / name).state_dict() for name in ("model", "again"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], value) for name, value in after.items())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:# The axis name")
def test_graphs_take_any_batch_and_size(tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    directory = pretrained(tmp_path / "model", encoding="gsd")
    for form, file in (("onnx", "encoder.onnx"), ("torch-export", "encoder.pt2")):
        assert export(directory, tmp_path / file, "--to", form) == 0
        assert "batch, height and width are free" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    graph = torch.export.load(tmp_path / "encoder.pt2").module()
    ours = load_encoder(directory)
    for batch, height, width in ((2, 32, 48), (3, 64, 16)):
        images, gsd = torch.randn(batch, 3, height, width), torch.full((batch,), 20.0)
        expected = ours.forward_features(images, gsd_m=gsd)
        assert_close(graph(images, gsd), expected, atol=1e-4, rtol=0)
        found = session.run(["features"], {"images": images.numpy(), "gsd_m": gsd.numpy()})[0]
        assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{}, {"bands": "wavelength"}, {"encoding": "gsd", "in_chans": 5}])
def test_a_hub_takes_the_folder_and_its_example_runs(tmp_path, capsys, options):
    directory = pretrained(tmp_path / "model", **options)
    (tmp_path / "words.txt").write_text("the words of the licence")
    words = ("--to", "hub", "--licence", "cc-by-4.0", "--licence-file", tmp_path / "words.txt")
    assert export(directory, tmp_path / "hub", *words) == 0
    folder = shutil.copytree(tmp_path / "hub", tmp_path / "elsewhere")
    assert (folder / "README.md").read_text().startswith("---\nlicense: cc-by-4.0\nlibrary_name: a2mae\n")
    assert (folder / "LICENSE").read_text() == "the words of the licence"
    assert (folder / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()
    capsys.readouterr()
    found = runpy.run_path(str(folder / "example.py"))
    assert found["tokens"].shape == (1, 1 + 64, 64) and found["tokens"].isfinite().all()
    assert capsys.readouterr().out == "(1, 65, 64)\n"


def test_the_card_of_the_report_goes_along_with_its_licence(tmp_path, capsys):
    directory = pretrained(tmp_path / "model")
    card = tmp_path / "model_card.md"
    card.write_text('---\nlicense: cc-by-nc-4.0\n---\n\n# mine\n\n    encoder = load_encoder("PATH")\n')
    assert export(directory, tmp_path / "hub", "--to", "hub", "--card", card) == 0
    assert 'load_encoder(".")' in (tmp_path / "hub" / "README.md").read_text()
    item = json.loads((tmp_path / "hub" / "stac-item.json").read_text())
    assert item["properties"]["license"] == "cc-by-nc-4.0"
    saved = {name: file_digest(directory / name) for name in ("config.json", "model.safetensors")}
    write_sealed(tmp_path / "hub" / "lineage.json", {"format": 1, "files": saved})
    assert not check(tmp_path / "hub").changed, "what is put beside a model is no change of it"
    assert export(directory, tmp_path / "other", "--to", "hub", "--card", card, "--licence", "mit") == 1
    assert "the licence is stated as mit, and" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_the_stac_item_says_what_the_model_reads_and_gives(tmp_path):
    """By pystac's own reading of the MLM extension; the core of the item against STAC's schema."""
    pystac = pytest.importorskip("pystac")
    mlm = pytest.importorskip("pystac.extensions.mlm")
    directory = pretrained(tmp_path / "model", bands="wavelength", encoding="own")
    assert export(directory, tmp_path / "hub", "--to", "hub", "--licence", "other") == 0
    document = json.loads((tmp_path / "hub" / "stac-item.json").read_text())
    item = pystac.Item.from_dict(document)
    assert mlm.MLMExtension.get_schema_uri() in item.stac_extensions
    core = {**document, "stac_extensions": []}  # the extension's own schema is not on this machine
    pystac.Item.from_dict(core).validate()
    model = mlm.MLMExtension.ext(item)
    assert model.mlm_name == "a2mae_vit_tiny_patch8" and model.framework == "PyTorch"
    encoder = load_encoder(directory)
    assert model.total_parameters == sum(parameter.numel() for parameter in encoder.parameters())
    assert model.pretrained and model.pretrained_source == "5e" * 32
    second, first, *others = model.input
    assert (first.name, second.name) == tuple(NAMES) and [one.name for one in others] == [
        "gsd_m", "lonlat_deg", "day", "wavelength_nm"
    ]  # fmt: skip
    assert first.bands == [f"sentinel-2-l2a/{name}" for name in NAMES["sentinel-2-l2a"]]
    assert first.input.shape == [-1, -1, -1, -1] and first.input.dim_order[1] == "channel"
    assert [scaling["mean"] for scaling in first.properties["value_scaling"]] == [0.1] * 4
    (output,) = model.output
    assert output.result.shape == [-1, -1, 64] and output.result.data_type == "float32"
    named = {band["name"]: band for band in item.properties["bands"]}
    assert all(band in named for one in (first, second) for band in one.bands)
    sentinel2 = {band.name: band for band in BUILTIN_SENSORS["sentinel-2-l2a"].bands}
    assert named["sentinel-2-l2a/B08"]["gsd"] == sentinel2["B08"].gsd_m and "gsd" not in named["my-camera/one"]
    assert item.properties["gsd"] == 10.0
    weights = mlm.AssetGeneralMLMExtension.ext(item.assets["weights"])
    assert weights.artifact_type and "mlm:model" in item.assets["weights"].roles
    assert (tmp_path / "hub" / item.assets["weights"].href).is_file()


@pytest.mark.parametrize(
    "options", [{}, {"bands": "wavelength", "encoding": "own"}, {"encoding": "gsd", "in_chans": 5}]
)
def test_the_stac_item_validates_by_the_extensions_own_package(tmp_path, options):
    """The JSON schema lies on the network alone; the extension's authors publish the same rules as pydantic models."""
    schema = pytest.importorskip("stac_model.schema")
    directory = pretrained(tmp_path / "model", **options)
    assert export(directory, tmp_path / "hub", "--to", "hub", "--licence", "mit") == 0
    properties = json.loads((tmp_path / "hub" / "stac-item.json").read_text())["properties"]
    stated = {name: value for name, value in properties.items() if name.startswith("mlm:")}
    read = schema.MLModelProperties.model_validate(stated)
    assert read.name == "a2mae_vit_tiny_patch8" and len(read.input) == len(stated["mlm:input"])
    del stated["mlm:tasks"]
    with pytest.raises(ValueError, match="tasks"):
        schema.MLModelProperties.model_validate(stated)


def test_an_imported_model_has_no_bands_to_name(tmp_path):
    model = create_model("mae_vit_tiny_patch8", **SMALL)
    start = {"weights": "mae.pth", "kind": "MAE", "sha256": "ab" * 32, "licence": None}
    directory = save_pretrained(model, tmp_path / "model", config={"method": "mae", "start": start})
    assert export(directory, tmp_path / "hub", "--to", "hub", "--licence", "mit") == 0
    card = (tmp_path / "hub" / "README.md").read_text()
    assert f"It started from `mae.pth` (MAE), SHA-256 `{'ab' * 32}`, licence not stated." in card
    item = json.loads((tmp_path / "hub" / "stac-item.json").read_text())["properties"]
    assert "bands" not in item and item["mlm:input"][0]["name"] == "images"
    assert item["mlm:pretrained_source"] == "mae.pth"
    assert runpy.run_path(str(tmp_path / "hub" / "example.py"))["tokens"].shape == (1, 65, 64)


def test_what_cannot_be_exported_is_a_sentence_and_leaves_nothing(tmp_path, capsys):
    directory = pretrained(tmp_path / "model", bands="wavelength")
    out = tmp_path / "out"
    for words, message in (
        (("--to", "timm"), "timm's vision transformer reads a fixed number of bands by one kernel each"),
        (("--to", "hub"), "no licence is stated: name it by --licence"),
        (("--to", "hub", "--card", tmp_path / "none.md"), "none.md is missing, or no file"),
        (("--to", "onnx", "--licence", "mit"), "--licence is of --to hub, and --to is onnx"),
        (("--to", "hub", "--gsd-m", "3"), "--gsd-m is of --to timm, and --to is hub"),
    ):
        assert export(directory, out, *words) == 1
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1 and not out.exists()
    assert export(tmp_path / "none", out, "--to", "hub", "--licence", "mit") == 1
    assert "is no model directory" in capsys.readouterr().err and not out.exists()
    plain = pretrained(tmp_path / "plain")
    assert export(plain, out, "--to", "timm", "--image-px", "50") == 1
    assert "image_px must be a multiple of the patch (8 px), found 50" in capsys.readouterr().err
    assert export(plain, tmp_path / "model", "--to", "timm") == 1
    assert "is there already: name what is not, or remove it" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["hub", "timm", "torch-export"])
def test_nothing_is_written_into_what_is_read(tmp_path, capsys, to):
    directory = pretrained(tmp_path / "model")
    before = sorted(path.name for path in directory.rglob("*"))
    for inside in ("in", "in/deep", "in/../x"):
        assert export(directory, directory / inside, "--to", to) == 1
        assert "which is read: name a place beside it" in capsys.readouterr().err
    assert sorted(path.name for path in directory.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--to", "timm", "--gsd-m=nan"), "gsd_m is metres per pixel"),
        (("--to", "timm", "--gsd-m=inf"), "gsd_m is metres per pixel"),
        (("--to", "timm", "--gsd-m=0"), "gsd_m is metres per pixel"),
        (("--to", "timm", "--gsd-m=-1"), "gsd_m is metres per pixel"),
        (("--to", "timm", "--gsd-m=1e308"), "gsd_m is metres per pixel"),
        (("--to", "timm", "--image-px", "0"), "multiple of the patch"),
        (("--to", "timm", "--image-px", "1000000"), "a table of 125000 x 125000 positions"),
        (("--to", "hub", "--licence", ""), "no line of 1 to 200 letters"),
        (("--to", "hub", "--licence", "mit\nother: x"), "no line of 1 to 200 letters"),
        (("--to", "hub", "--licence", "\udc80"), "no line of 1 to 200 letters"),
        (("--to", "hub", "--licence", "x" * 201), "no line of 1 to 200 letters"),
    ],
)
def test_a_number_or_word_that_cannot_be_is_a_sentence_and_leaves_nothing(tmp_path, capsys, words, sentence):
    directory = pretrained(tmp_path / "model")
    assert export(directory, tmp_path / "out", *words) == 1
    assert sentence in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_card_that_is_no_text_is_named(tmp_path, capsys):
    (tmp_path / "card.md").write_bytes(b"license: mit\n\xff\xfe")
    assert export(pretrained(tmp_path / "model"), tmp_path / "out", "--to", "hub", "--card", tmp_path / "card.md") == 1
    assert "card.md is no text of UTF-8" in capsys.readouterr().err and not (tmp_path / "out").exists()
