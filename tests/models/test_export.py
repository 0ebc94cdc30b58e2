"""torch.export and ONNX of the encoder equal eager to 1e-4, with dynamic batch and size."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from a2mae.models import create_model
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
