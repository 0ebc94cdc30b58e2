"""The page of a task that estimates values: pairs, residuals, errors with their units."""

from __future__ import annotations

import json

import numpy as np
import pytest

from a2mae.report import page
from a2mae.report.inputs import Limits, ReportInputs, TaskOutputs
from a2mae.report.pictures import INVALID_RGB, Ramp
from a2mae.report.previews import task_pictures as preview
from a2mae.report.sections.scores import task_scores
from a2mae.report.sections.tasks import mistakes, task_pictures
from a2mae.tasks.metrics.scores import finetuned_rows, score_table


def scored(r2=0.7):
    flat = {"n": 40, "groups": 9}
    for name, value in (("r2", r2), ("rmse", 3.25), ("mae", 2.0), ("bias", -0.5)):
        flat |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
    return flat


@pytest.fixture
def task(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 20, (3, 16, 16)).astype(np.float32)
    truth[:, :2] = np.nan
    np.savez(
        tmp_path / "pictures.npz",
        image=rng.integers(0, 255, (3, 16, 16, 3), np.uint8),
        truth=truth,
        prediction=truth + 1,
        quantity=np.array(["tree <b>height", "m"]),
        sample_id=np.array(["a", "b", "c"]),
    )
    values = rng.uniform(0, 20, 400)
    pairs = {"truth": values.tolist(), "prediction": (0.5 * values + 5).tolist()}
    pairs |= {"quantity": "tree height", "units": "m", "labels": 9_000}
    metrics = {"task": "estimate", "data": "mine", "gsd_m": 10.0, "quantity": "tree height", "units": "m"}
    metrics |= {"pretrained": scored(), "random": scored(-0.4), "gain": scored(1.1)}
    return TaskOutputs("estimate", metrics, tmp_path / "pictures.npz", confusion=pairs)


def inputs(task):
    table = score_table(finetuned_rows(task.metrics, seed=0))
    return ReportInputs("Values", ("estimate",), limits=Limits(examples=2, picture_px=64), tasks=(task,), scores=table)


def test_the_scatter_plot_says_how_far_estimates_are_off(task):
    section = mistakes(inputs(task), "estimate")
    assert section.lead == "R² 0.700; the usual error (RMSE) is 3.25 m, the mean error (bias) -0.5 m."
    (plot,) = section.blocks
    points, line = json.loads(plot.figure_json)["data"]
    assert points["mode"] == "markers" and line["x"] == line["y"]
    assert "400 of 9,000 are drawn" in plot.caption
    biases = [float(row[3]) for row in plot.table.rows]
    assert len(biases) == 5 and sum(int(row[1]) for row in plot.table.rows) == 400
    assert biases == sorted(biases, reverse=True) and biases[0] > 3 > -3 > biases[-1], "estimates keep to the middle"


def test_residuals_are_drawn_beside_truth_and_estimate(task):
    section = task_pictures(inputs(task), "estimate")
    (gallery,) = section.blocks
    assert [strip.note for strip in gallery.strips] == ["RMSE 1.00 m", "RMSE 1.00 m"]
    assert [picture.lines[0] for picture in gallery.strips[0].pictures] == ["image", "truth", "estimate", "residual"]
    labels = [swatch.label for swatch in gallery.legend]
    assert len(labels) == 10 and labels[7] == "residual +0.00 m" and labels[9] == "residual +1.00 m"


def test_values_of_images_stand_under_them(task, tmp_path):
    with np.load(task.pictures) as arrays:
        kept = dict(arrays)
    kept |= {"truth": np.array([3.0, 4.0, 5.0], np.float32), "prediction": np.array([2.5, 4.5, 5.25], np.float32)}
    np.savez(tmp_path / "images.npz", **kept)
    of_images = TaskOutputs("estimate", task.metrics, tmp_path / "images.npz")
    (gallery,) = task_pictures(inputs(of_images), "estimate").blocks
    assert [p.lines for p in gallery.strips[0].pictures] == [
        ("true 3.00 m", "estimated 2.50 m"), ("true 4.00 m", "estimated 4.50 m")
    ]  # fmt: skip
    assert preview(tmp_path / "images.npz", cell_px=32).shape[2] == 3


def test_errors_have_units_and_a_score_below_zero_is_on_the_chart(task):
    table = task_scores(inputs(task), "estimate").blocks[0]
    assert {row[2] for row in table.rows} == {"R²", "RMSE, m", "MAE, m", "bias, m"}
    html = page.build(inputs(task))
    assert "tree &lt;b&gt;height" in html and "<b>height" not in html
    assert '"range":[-0.5,1]' in html.replace("\\", "")


def test_a_ramp_shows_what_is_unknown_in_grey():
    values = np.array([[0.0, 5.0, np.nan], [10.0, 20.0, -3.0]])
    colours = Ramp(0.0, 10.0).colours(values)
    assert tuple(colours[0, 2]) == INVALID_RGB
    assert (colours[1, 0] == colours[1, 1]).all() and (colours[0, 0] == colours[1, 2]).all()
    assert [swatch.label for swatch in Ramp(0.0, 10.0).legend("t/ha")][::2] == ["0.0 t/ha", "5.0 t/ha", "10.0 t/ha"]
    zero = Ramp.around_zero(np.array([-2.0, 1.0, np.nan]))
    assert zero.low == -zero.high and len(Ramp.of(np.full(3, np.nan)).legend("")) == 5
