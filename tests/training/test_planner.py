"""The dry run: what a run costs, and nothing touched."""

from __future__ import annotations

from pathlib import Path

from training_runs import make_spec

from a2mae.models import create_model
from a2mae.training.planner import plan


def test_the_plan_names_cost_and_leaves_the_run_alone(tmp_path: Path, store) -> None:
    spec = make_spec(tmp_path, store)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    text = "\n".join(plan(tmp_path, spec))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    parameters = sum(p.numel() for p in create_model(spec.model.name, **spec.model_options).parameters())
    assert f"parameters     {parameters / 1e6:.2f} M" in text
    assert "6 image sets, 4 per step, 8.0 epochs" in text
    assert "12, 48 samples, 2304 tokens" in text  # 48 samples of 3 images of 16 patches
    assert "hours" in text and "(MFU)" in text
