"""The precision that models compute in: decided by what a device has and how fast it is, once, and said."""

from __future__ import annotations

import logging
import time

import pytest
import torch

from a2mae.models import precision as room
from a2mae.models.precision import autocast, bfloat16_gain, fit_attention, has_bfloat16, precision_of
from a2mae.models.registry import create_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def undecided():
    room._decided.cache_clear()
    yield
    room._decided.cache_clear()


def test_what_is_stated_is_not_decided(monkeypatch) -> None:
    monkeypatch.setattr(room, "has_bfloat16", lambda device_type: pytest.fail("nobody asked"))
    assert [precision_of(one, CPU) for one in ("32-true", "bf16-mixed")] == ["32-true", "bf16-mixed"]


@pytest.mark.parametrize(
    ("has", "gain", "expected"),
    [(False, 9.0, "32-true"), (True, 2.4, "bf16-mixed"), (True, 1.1, "32-true"), (True, 0.3, "32-true")],
)
def test_bfloat16_has_to_be_there_and_clearly_faster(monkeypatch, caplog, has, gain, expected) -> None:
    """Machines that this one is not: without the instructions, and with slow ones."""
    measured = []
    monkeypatch.setattr(room, "has_bfloat16", lambda device_type: has)
    monkeypatch.setattr(room, "bfloat16_gain", lambda device_type: measured.append(gain) or gain)
    with caplog.at_level(logging.INFO):
        assert {precision_of("auto", CPU) for _ in range(3)} == {expected}
    assert len(measured) == has, "it is measured once, and only where there is something to measure"
    assert caplog.text.count("precision auto") == 1 and expected in caplog.text


def test_the_measurement_is_short_and_leaves_the_threads_as_they_were() -> None:
    threads, began = torch.get_num_threads(), time.thread_time()
    assert bfloat16_gain("cpu") > 0
    assert torch.get_num_threads() == threads
    assert time.thread_time() - began < 1.5, "half a second, or three rounds of a processor that has no bfloat16"


def test_what_else_runs_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on while another program has the core; a ratio of its times was 1.3 where it is 2.1."""
    quiet = bfloat16_gain("cpu")
    clock = iter(range(10**6))
    monkeypatch.setattr(room.time, "perf_counter", lambda: float(next(clock)))  # a second at every look
    assert bfloat16_gain("cpu") == pytest.approx(quiet, rel=0.3)


def test_the_processor_says_what_it_has() -> None:
    flags = next((line for line in open("/proc/cpuinfo") if line.startswith(("flags", "Features"))), "")
    stated = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"} & set(flags.split())
    assert has_bfloat16("cpu") == bool(stated)
    assert not has_bfloat16("mps")


def test_weights_and_normalisation_stay_fp32_and_attention_is_two_products() -> None:
    encoder = create_model("mae_vit_tiny_patch8", embed_dim=32, depth=2, decoder_dim=32, decoder_depth=1).encoder.eval()
    images, seen = torch.randn(2, 3, 32, 32), {}
    fit_attention(encoder, "32-true", CPU, training=True)
    assert all(block.attn.fused_attn for block in encoder.blocks)
    with torch.no_grad():
        whole = encoder.forward_features(images)
        fit_attention(encoder, "bf16-mixed", CPU, training=True)
        assert not any(block.attn.fused_attn for block in encoder.blocks)
        encoder.blocks[0].attn.qkv.register_forward_hook(lambda module, given, out: seen.update(qkv=out.dtype))
        with autocast("bf16-mixed", "cpu"):
            half = encoder.forward_features(images).float()
    assert seen == {"qkv": torch.bfloat16}
    assert {value.dtype for value in encoder.state_dict().values()} == {torch.float32}
    assert 0 < float((half - whole).abs().max()) < 0.1
    fit_attention(encoder, "bf16-mixed", CPU, training=False)
    assert all(block.attn.fused_attn for block in encoder.blocks), "without a backward pass it is the faster one"
