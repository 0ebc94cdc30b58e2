"""The page of semantic change: the from-to matrix, and tables of groups with the worst first."""

from __future__ import annotations

import json

import numpy as np

from a2mae.report import page
from a2mae.report.inputs import Limits, ReportInputs, TaskOutputs
from a2mae.report.sections.scores import task_scores
from a2mae.report.sections.tasks import mistakes, task_pictures
from a2mae.tasks.metrics.scores import finetuned_rows, score_table
from a2mae.tasks.transitions import encode, transition_colors, transition_names

CLASSES = ("field", "wood")
NAMES = transition_names(CLASSES)


def scored(f_scd):
    flat = {"n": 40, "groups": 9, "pr_auc_per_class": {"changed": 0.4}}
    for name, value in (("f_scd", f_scd), ("sek", 0.1), ("change_miou", 0.6), ("pr_auc", 0.4), ("ece", 0.03)):
        flat |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
    return flat


def task(tmp_path):
    counts = np.zeros((5, 5), int)
    counts[0, 0], counts[2, 2], counts[2, 0], counts[3, 2] = 900, 60, 20, 20
    truth = encode(np.zeros((2, 16, 16), int), np.ones((2, 16, 16), int), 2)
    truth[:, :8] = 0
    np.savez(
        tmp_path / "pictures.npz",
        image_before=np.full((2, 16, 16, 3), 90, np.uint8),
        image_after=np.full((2, 16, 16, 3), 120, np.uint8),
        truth=truth,
        prediction=np.zeros_like(truth),
        class_names=np.array(NAMES),
        class_colours=np.array(transition_colors([(200, 0, 0), (0, 200, 0)]), np.uint8),
        sample_id=np.array(["a", "b"]),
    )
    worst = [
        {"group": "2021", "metric": "f_scd", "value": 0.2, "low": 0.1, "high": 0.3, "n": 4, "groups": 2},
        {"group": "<2019", "metric": "f_scd", "value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "groups": 3},
        {"group": "2020", "metric": "f_scd", "value": None, "low": None, "high": None, "n": 1, "groups": 1},
    ]
    metrics = {"task": "detect_transitions", "data": "mine", "gsd_m": 10.0, "by_group": {"year": worst}}
    metrics |= {"pretrained": scored(0.6), "random": scored(0.5), "gain": scored(0.1)}
    confusion = {
        "class_names": list(NAMES),
        "classes": list(CLASSES),
        "multi_label": False,
        "pretrained": counts.tolist(),
    }
    return TaskOutputs("detect_transitions", metrics, tmp_path / "pictures.npz", confusion=confusion)


def inputs(found):
    table = score_table(finetuned_rows(found.metrics, seed=0))
    limits = Limits(examples=2, picture_px=64)
    return ReportInputs("Change", ("detect_transitions",), limits=limits, tasks=(found,), scores=table)


def test_the_from_to_matrix_says_what_changed_and_what_was_found(tmp_path):
    section = mistakes(inputs(task(tmp_path)), "detect_transitions")
    assert section.lead.startswith("10.0 % of the ground has changed its class, the model says 8.0 %.")
    assert "finds 60.0 % of what changed with both classes right, and 80.0 % whatever the classes" in section.lead
    (plot,) = section.blocks
    true, predicted = json.loads(plot.figure_json)["data"]
    assert true["type"] == predicted["type"] == "heatmap" and true["x"] == list(CLASSES)
    rows = {row[0]: row[1:] for row in plot.table.rows}
    assert rows["field → wood"] == ("80", "80", "75.0 %", "75.0 %", "unchanged")
    assert rows["wood → field"] == ("20", "0", "0.0 %", "–", "field → wood") and "field stays" not in rows


def test_pictures_name_the_transitions_that_are_seen(tmp_path):
    section = task_pictures(inputs(task(tmp_path)), "detect_transitions")
    (gallery,) = section.blocks
    assert [swatch.label for swatch in gallery.legend] == ["unchanged", "field → wood"]
    assert [picture.lines for picture in gallery.strips[0].pictures] == [
        ("before",),
        ("after",),
        ("truth",),
        ("prediction",),
    ]
    assert gallery.strips[0].note.startswith("50.0 %")


def test_groups_stand_with_the_worst_first(tmp_path):
    shown = inputs(task(tmp_path))
    section = task_scores(shown, "detect_transitions")
    table = next(block for block in section.blocks if block.caption == "Scores by year, the worst first")
    assert [row[0] for row in table.rows] == ["2021", "<2019", "2020"]
    assert table.rows[0][1:] == ("0.200", "0.100 – 0.300", "4 / 2")
    html = page.build(shown)
    assert "From-to matrix" in html and "PR-AUC" in html and "&lt;2019" in html and "<2019" not in html
