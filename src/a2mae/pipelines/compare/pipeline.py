"""The comparison: image sets, tasks' data and a folder → scores of every contender."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.compare.nodes import compare, compare_on_folder
from a2mae.pipelines.task_template import create_task_pipeline

TASKS = ("classify", "segment", "detect_change")
OUTPUTS = ["comparison_scores", "comparison_summary"]
COMMON = {
    "options": "params:compare",
    "pretrain": "params:pretrain",
    "evaluation": "params:evaluate",
    "classification": "params:classify",
    "folder": "comparison_run",
}


def create_pipeline() -> Pipeline:
    """Contenders pretrained on the image-set store, and on a folder where one is named."""
    inputs = {
        **COMMON,
        **{name: name for name in ("images", "pruned_sets", "band_statistics", "image_sets")},
        **{f"{task}_data": f"{task}.data" for task in TASKS},
        "segmentation": "params:segment",
        "change_detection": "params:detect_change",
    }
    prepare = sum((create_task_pipeline(task, maps=False).to_outputs(f"{task}.data") for task in TASKS), Pipeline([]))
    return prepare + Pipeline([node(compare, inputs=inputs, outputs=OUTPUTS, name="compare", tags="compare")])


def create_folder_pipeline() -> Pipeline:
    """Contenders pretrained and judged on a folder of images alone."""
    return Pipeline([node(compare_on_folder, inputs=COMMON, outputs=OUTPUTS, name="compare_on_folder", tags="compare")])
