"""torch.export and ONNX of the encoder equal eager to 1e-4, with dynamic batch and size."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim
from torch.testing import assert_close

from a2mae.models import create_model

PATCH = 8
CASES = {
    "mae": (),
    "scale_mae": ("gsd_m",),
    "a2mae": ("gsd_m", "lonlat_deg"),
    "a2mae_own": ("gsd_m", "lonlat_deg", "day"),
}


def encoder_of(case: str, tiny):
    method, _, encoding = case.partition("_own")
    kwargs = {"encoding": "own"} if case.endswith("_own") else {}
    return create_model(f"{method}_vit_tiny_patch{PATCH}", **tiny, **kwargs).encoder.eval(), encoding


def inputs(names, batch, height, width):
    values = {
        "gsd_m": torch.linspace(1, 30, batch),
        "lonlat_deg": torch.stack([torch.linspace(-70, 12.5, batch), torch.linspace(-33, 41.9, batch)], dim=1),
        "day": torch.linspace(18000, 19000, batch),
    }
    return (torch.randn(batch, 3, height, width),), {name: values[name] for name in names}


class Features(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images, **place):
        return self.encoder.forward_features(images, **place)


def dynamic(names):
    batch, height, width = Dim("batch", min=2, max=64), Dim("h", min=2, max=64), Dim("w", min=2, max=64)
    shapes = {"images": {0: batch, 2: PATCH * height, 3: PATCH * width}}
    return shapes | {"place": {name: {0: batch} for name in names}} if names else shapes | {"place": {}}


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_torch_export(case, tiny):
    names = CASES[case]
    model = Features(encoder_of(case, tiny)[0])
    args, kwargs = inputs(names, 2, 32, 48)
    program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic(names))
    for shape in ((2, 32, 48), (3, 64, 24), (5, 16, 96)):
        args, kwargs = inputs(names, *shape)
        assert_close(program.module()(*args, **kwargs), model(*args, **kwargs), atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_onnx(case, tiny, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    names = CASES[case]
    model = Features(encoder_of(case, tiny)[0])
    args, kwargs = inputs(names, 2, 32, 48)
    path = tmp_path / "encoder.onnx"
    program = torch.onnx.export(model, args, kwargs=kwargs, dynamo=True, dynamic_shapes=dynamic(names), verbose=False)
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for shape in ((2, 32, 48), (3, 64, 24), (5, 16, 96)):
        args, kwargs = inputs(names, *shape)
        feed = {"images": args[0].numpy()} | {name: value.numpy() for name, value in kwargs.items()}
        feed = {item.name: feed[item.name] for item in session.get_inputs()}
        found = torch.from_numpy(session.run(None, feed)[0])
        assert_close(found, model(*args, **kwargs), atol=1e-4, rtol=0)
