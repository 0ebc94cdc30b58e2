"""Schedule, decay groups and the moving average."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from a2mae.models import create_model
from a2mae.training.spec import OptimizerSpec
from a2mae.training.step import MovingAverage, learning_rate, make_optimizer, set_learning_rate


@given(steps=st.integers(2, 500), warmup=st.integers(0, 499), end=st.floats(0, 1e-4))
def test_the_rate_rises_then_falls_and_stays_in_bounds(steps: int, warmup: int, end: float) -> None:
    warmup = min(warmup, steps - 1)
    spec = OptimizerSpec(learning_rate=1e-3, learning_rate_end=end, steps=steps, warmup_steps=warmup)
    rates = [learning_rate(spec, step) for step in range(steps)]
    assert all(0 < rate <= 1e-3 + 1e-12 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup]) and rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert max(rates) == pytest.approx(1e-3)
    assert learning_rate(spec, steps) == pytest.approx(end)


def test_halfway_through_the_cosine_the_rate_is_half() -> None:
    spec = OptimizerSpec(learning_rate=2e-3, steps=110, warmup_steps=10)
    assert learning_rate(spec, 60) == pytest.approx(1e-3)
    assert learning_rate(spec, 4) == pytest.approx(1e-3)


def test_biases_norms_and_single_tokens_are_not_decayed() -> None:
    model = create_model("a2mae_vit_tiny_patch8", depth=1, decoder_depth=1)
    optimizer = make_optimizer(model, OptimizerSpec(learning_rate=1e-3, weight_decay=0.1))
    decayed, free = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0.0
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(names) == len(decayed["params"]) + len(free["params"])
    for parameter in free["params"]:
        name = names[id(parameter)]
        assert name.endswith(("bias", "token")) or "norm" in name, name
    assert all(names[id(parameter)].endswith("weight") for parameter in decayed["params"])
    set_learning_rate(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}


def test_the_moving_average_is_one() -> None:
    layer = torch.nn.Linear(2, 1)
    average = MovingAverage(layer, 0.75)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 4
    average.update()
    torch.testing.assert_close(average.tensors["weight"], before + 1)
    other = MovingAverage(torch.nn.Linear(2, 1), 0.75)
    other.load(average.tensors)
    assert torch.equal(other.tensors["weight"], average.tensors["weight"])
