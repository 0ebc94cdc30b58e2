"""The encoder elsewhere: exported graphs equal eager to 1e-4, and decoders of smp and samples of torchgeo fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import a2mae
from a2mae.models import create_model, save_pretrained
from a2mae.models.export import ExportableEncoder, export_onnx, export_program

CASES = {
    "mae": ("mae", {}),
    "scale_mae": ("scale_mae", {}),
    "a2mae": ("a2mae", {}),
    "a2mae_own": ("a2mae", {"encoding": "own"}),
    "a2mae_wavelength": ("a2mae", {"bands": "wavelength"}),
}
SHAPES = ((2, 4, 6), (3, 8, 3), (5, 2, 12))


# Half of the cases are enough for every run: they hold all parts of the others.
SLOW = ("mae", "a2mae")


@pytest.fixture(params=[pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in CASES])
def model(request, tiny):
    method, kwargs = CASES[request.param]
    return ExportableEncoder(create_model(f"{method}_vit_tiny_patch8", **tiny, **kwargs).encoder).eval()


@torch.no_grad()
def test_torch_export(model):
    graph = export_program(model.encoder).module()
    for shape in SHAPES:
        inputs = model.example(*shape)
        assert_close(graph(*inputs), model(*inputs), atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:# The axis name")
def test_onnx(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = export_onnx(model.encoder, tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert tuple(item.name for item in session.get_inputs()) == model.input_names
    for shape in SHAPES:
        inputs = model.example(*shape)
        feed = {name: value.numpy() for name, value in zip(model.input_names, inputs, strict=True)}
        found = torch.from_numpy(session.run(["features"], feed)[0])
        assert_close(found, model(*inputs), atol=1e-4, rtol=0)


@pytest.fixture
def encoder(tiny, tmp_path):
    save_pretrained(create_model("a2mae_vit_tiny_patch8", encoding="own", **tiny), tmp_path / "model")
    return a2mae.load_encoder(tmp_path / "model")


def test_timms_vocabulary(encoder):
    images = torch.randn(2, 3, 32, 64)
    tokens = encoder.forward_features(images, gsd_m=10.0)
    assert tokens.shape == (2, 1 + 4 * 8, encoder.num_features) and encoder.patch_size == 8
    first, last = encoder.forward_intermediates(images, [0, -1], norm=True, gsd_m=10.0)
    assert first.shape == last.shape == (2, 64, 4, 8)
    torch.testing.assert_close(last.flatten(2).transpose(1, 2), tokens[:, 1:])
    assert len(encoder.forward_intermediates(images, gsd_m=10.0)) == 2
    with pytest.raises(ValueError, match="blocks of 0 to 1"):
        encoder.forward_intermediates(images, [2], gsd_m=10.0)


def test_torchgeos_samples(encoder, tmp_path):
    """Two dates of one place as GeoTIFFs, through torchgeo's RasterDataset and collation, into the encoder."""
    datasets = pytest.importorskip("torchgeo.datasets")
    rasterio = pytest.importorskip("rasterio")
    pd = pytest.importorskip("pandas")  # torchgeo brings it; an install for inference has none
    from pyproj import Transformer

    for date in ("20200105", "20200704"):
        profile = {
            "driver": "GTiff", "width": 64, "height": 64, "count": 3, "dtype": "float32", "crs": "EPSG:32633",
            "transform": rasterio.transform.from_origin(300000, 4640000, 10, 10),
        }  # fmt: skip
        with rasterio.open(tmp_path / f"scene_{date}.tif", "w", **profile) as file:
            file.write(np.random.default_rng(int(date)).normal(size=(3, 64, 64)).astype("float32"))

    class Scenes(datasets.RasterDataset):
        filename_glob = "scene_*.tif"
        filename_regex = r"scene_(?P<date>\d{8})"
        date_format = "%Y%m%d"

    scenes = Scenes(tmp_path)
    dates = [pd.Timestamp(2020, 1, 5), pd.Timestamp(2020, 7, 4)]
    hour = pd.Timedelta(hours=1)
    batch = datasets.stack_samples([scenes[300000:300640, 4639360:4640000, date : date + hour] for date in dates])
    lonlat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(300320, 4639680)
    tokens = encoder.forward_features(
        batch["image"],
        gsd_m=torch.tensor([scenes.res[0], scenes.res[0]]),
        lonlat_deg=torch.tensor([lonlat, lonlat]),
        day=torch.tensor([(date - pd.Timestamp(0)).days for date in dates]),
    )
    assert tokens.shape == (2, 65, 64) and tokens.isfinite().all()
