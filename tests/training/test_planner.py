"""The dry run: what a run costs, and nothing touched."""

from __future__ import annotations

from pathlib import Path

import torch
from training_runs import make_spec

from a2mae.models import create_model
from a2mae.training.engine import model_options, peak_flops, step_flops
from a2mae.training.planner import plan


def test_the_plan_names_cost_and_leaves_the_run_alone(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    text = "\n".join(plan(tmp_path, spec))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    parameters = sum(p.numel() for p in create_model(spec.model.name, **model_options(spec)).parameters())
    assert f"parameters     {parameters / 1e6:.2f} M" in text
    assert "6 image sets, 4 per step, 8.0 epochs" in text
    assert "12, 48 samples, 2304 tokens" in text  # 48 samples of 3 images of 16 patches
    assert "hours" in text and "(MFU)" in text


def test_flops_are_those_of_the_matrix_products(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store)
    width, depth, narrow, patches, kept = 64, 2, 32, 48, 12
    patch_values = 8 * 8 * 3
    encoder = depth * 2 * (kept + 1) * 12 * width**2 + depth * 4 * (kept + 1) ** 2 * width
    decoder = 2 * (patches + 1) * 12 * narrow**2 + 4 * (patches + 1) ** 2 * narrow
    ends = 2 * patches * patch_values * (width + narrow) + 2 * (kept + 1) * width * narrow
    # Backward costs twice the forward pass, but no gradient flows into the pixels.
    expected = 3 * (encoder + decoder + ends) - 2 * patches * patch_values * width
    assert abs(step_flops(spec) / (4 * expected) - 1) < 0.05


def test_the_cpu_s_peak_is_measured() -> None:
    assert 1e9 < peak_flops(torch.device("cpu"), "32-true") < 1e14
