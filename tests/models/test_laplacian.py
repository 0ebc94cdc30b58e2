"""Matrix products that stand for convolutions: the values and gradients of the torch layers they derive from."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from a2mae.models.laplacian import GroupSums, Pointwise, Upsample

LAYERS = {
    "pointwise": Pointwise(6, 4),
    "pointwise-no-bias": Pointwise(6, 4, bias=False),
    "upsample-4": Upsample(6, 3, 4),
    "upsample-no-bias": Upsample(6, 5, 2, bias=False),
    "groups-of-2": GroupSums(6, 3),
    "groups-of-3": GroupSums(6, 2, bias=False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_equal_to_the_layer_it_derives_from(name: str) -> None:
    layer = LAYERS[name].double()
    base = type(layer).__base__
    assert base in (nn.Conv2d, nn.ConvTranspose2d)
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    found, expected = [], []
    for results, forward in (
        (found, lambda maps: type(layer).forward(layer, maps.movedim(1, -1)).movedim(-1, 1)),
        (expected, lambda maps: base.forward(layer, maps)),
    ):
        source = x.clone().requires_grad_()
        layer.zero_grad()
        out = forward(source)
        (out * torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)).sum().backward()
        results += [out, source.grad, *(parameter.grad.clone() for parameter in layer.parameters())]
    assert_close(found, expected)


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_with_the_next_layer_equals_one_after_the_other(bias: bool) -> None:
    enlarge, then = Upsample(6, 5, 2, bias=bias).double(), Pointwise(5, 4).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    results = []
    for forward in (lambda maps: enlarge(maps, then=then), lambda maps: then(enlarge(maps))):
        enlarge.zero_grad()
        then.zero_grad()
        out = forward(x)
        (out**2).sum().backward()
        results.append([out, *(p.grad.clone() for p in (*enlarge.parameters(), *then.parameters()))])
    assert_close(*results)
