"""The comparison of pretraining methods on the same data, size, tokens and steps.

The nodes of the comparison.

Annotations here must resolve when Kedro reads them, or the parameters would not be validated.

The comparison: image sets, tasks' data and a folder → scores of every contender.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
from kedro.pipeline import Pipeline, node

from a2mae.pipelines.tasks import create_pipeline as create_task_pipeline
from a2mae.tasks.compare_parameters import CompareParameters
from a2mae.tasks.parameters import EvaluateParameters, TaskParameters
from a2mae.training.parameters import PretrainParameters

if TYPE_CHECKING:
    from a2mae.pipelines.compare_trainer import Source
    from a2mae.stssd.store.store import ImageSetStore
    from a2mae.tasks.datasets.task_data import TaskData
    from a2mae.tasks.evaluation.comparison import Comparison
    from a2mae.tasks.evaluation.judges import Judge

logger = logging.getLogger(__name__)

FIGURE = "figures/comparison_gsd.svg"
"""kNN over GSD, from the folder of the document that shows it."""


def compare(
    options: CompareParameters,
    *,
    pretrain: PretrainParameters,
    evaluation: EvaluateParameters,
    classification: TaskParameters,
    segmentation: TaskParameters,
    change_detection: TaskParameters,
    folder: Path,
    images: pd.DataFrame,
    pruned_sets: pd.DataFrame,
    band_statistics: dict[str, dict[str, dict[str, float]]],
    image_sets: object,
    classify_data: object,
    segment_data: object,
    detect_change_data: object,
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Pretrain every contender on the image-set store (and the folder), and judge all of them alike.

    Args:
        options: The group `compare`.
        pretrain: Size, data and recipe that all contenders share.
        evaluation: Protocols for frozen encoders.
        classification: Recipe for finetuning on the folder.
        segmentation: Task and recipe.
        change_detection: Task and recipe.
        folder: Where the comparison keeps its work.
        images: Image table.
        pruned_sets: Set table after pruning.
        band_statistics: Per sensor and band.
        image_sets: The open store.
        classify_data: Classification samples of the simulation.
        segment_data: Segmentation samples.
        detect_change_data: Change samples.

    Returns:
        The score table and what it rests on.
    """
    from a2mae.pipelines.compare_trainer import Source
    from a2mae.pipelines.pretrain import bands_by_sensor, build_run_index
    from a2mae.tasks.evaluation.judges import FinetuneJudge, FrozenJudge

    store = cast("ImageSetStore", image_sets)
    sensors, index = build_run_index(images, pruned_sets, bands_by_sensor(store))
    stssd = Source("", store, sensors, index, band_statistics, single_images=False)
    recipes = {"segment": (segmentation, segment_data), "detect_change": (change_detection, detect_change_data)}
    judges: list[Judge] = [FrozenJudge(cast("TaskData", classify_data), evaluation)]
    for task in options.tasks:
        recipe, data = recipes[task]
        judges.append(FinetuneJudge(cast("TaskData", data), recipe, folder / task))
    return _run(_Groups(options, pretrain, evaluation, classification), folder, [stssd], judges)


def compare_on_folder(
    options: CompareParameters,
    *,
    pretrain: PretrainParameters,
    evaluation: EvaluateParameters,
    classification: TaskParameters,
    folder: Path,
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Pretrain the folder's contenders on its training images and judge them there; no image sets are needed.

    Args:
        options: The group `compare`; its `folder` must be set.
        pretrain: Size, data and recipe that all contenders share.
        evaluation: Protocols for frozen encoders.
        classification: Recipe for finetuning.
        folder: Where the comparison keeps its work.

    Returns:
        The score table and what it rests on.
    """
    from a2mae.tasks.datasets.task_data import TaskDataError

    if options.folder is None or not options.folder_contenders:
        raise TaskDataError("compare_folder needs compare.folder and compare.folder_contenders, see conf/eurosat")
    return _run(_Groups(options, pretrain, evaluation, classification), folder, [], [])


@dataclass(frozen=True)
class _Groups:
    """The parameter groups that both pipelines read."""

    options: CompareParameters
    pretrain: PretrainParameters
    evaluation: EvaluateParameters
    classification: TaskParameters


def _run(
    groups: _Groups, folder: Path, sources: list[Source], judges: list[Judge]
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Add the folder's source and judges where one is named, and do what is missing."""
    from a2mae.files import write_bytes
    from a2mae.pipelines.compare_trainer import Source, Trainer
    from a2mae.provenance.code import code_digest
    from a2mae.report.curves import draw_scale_curves
    from a2mae.tasks.datasets.image_store import image_sets_of
    from a2mae.tasks.evaluation.comparison import Budget, comparison_markdown, run_comparison, write_between_marks
    from a2mae.tasks.evaluation.evaluate import Units
    from a2mae.tasks.evaluation.judges import Contender, FinetuneJudge, FrozenJudge

    options = groups.options
    budget = Budget(folder / "budget.json", options.budget_h)
    with budget.spending():
        if options.folder is not None:
            data = _folder_data(options, folder)
            sets = image_sets_of(data, folder / "data" / f"{data.spec.source}.zarr")
            single = Source(
                f" ({data.spec.source})", sets.store, sets.sensors, sets.index, sets.statistics, single_images=True
            )
            sources = [*sources, single]
            judges = [*judges[:1], FrozenJudge(data, groups.evaluation), *judges[1:]]
            if options.finetune_folder:
                judges.append(FinetuneJudge(data, groups.classification, folder / "classify"))
        trainer = Trainer(options, groups.pretrain, sources, folder)
    kept = Units(folder / "units", code_digest("a2mae.pipelines.compare"))
    names = [name for name, _, _ in trainer.entries]
    contenders = []
    for number, seed in enumerate(options.seeds):  # all of them at one seed before the next: a stop leaves whole rows
        contenders += [trainer.contender(name, seed) for name in names]
        contenders.append(Contender("random", "random", seed, trainer.architecture))
        if number == 0:
            contenders += [Contender(name, name, seed) for name in options.baselines]
    found = run_comparison(kept, contenders, judges, trainer.train, budget)
    order = list(dict.fromkeys(contender.name for contender in contenders))
    facts = [f"{trainer.described()} The budget was {options.budget_h:g} h."]
    curves = draw_scale_curves(found.table, order) if len(found.table) else None
    markdown = comparison_markdown(found, order, facts, curves=FIGURE if curves else None)
    write_bytes(folder / "comparison.md", markdown.encode())
    if curves is not None:
        write_bytes(folder / FIGURE, curves)
    if options.document is not None:
        if curves is not None:
            write_bytes(Path(options.document).parent / FIGURE, curves)
        write_between_marks(Path(options.document), markdown)
    logger.info("comparison: %d of %d judgements, %.2f h spent", found.done, found.planned, found.spent_h)
    return found.table, _summary(found, trainer.steps, options)


def _folder_data(options: CompareParameters, folder: Path) -> TaskData:
    """The folder's samples as task data, written once."""
    from a2mae.tasks.datasets.class_folders import class_folder
    from a2mae.tasks.datasets.formats import layout_named
    from a2mae.tasks.datasets.task_data import TaskData
    from a2mae.tasks.datasets.writer import write_source

    source = class_folder(
        Path(str(options.folder)), layout_named(options.format, group="compare"), max_files=options.folder_samples
    )
    path = folder / "data" / f"{source.spec.source}-{options.folder_samples or 'all'}"
    if not (path / "task.json").is_file():
        write_source(path, source)
    return TaskData(path)


def _summary(found: Comparison, steps: int, options: CompareParameters) -> dict[str, Any]:
    from a2mae.tasks.evaluation.evaluate import summarise

    scores: Mapping[str, object] = summarise(found.table) if len(found.table) else {}
    return {
        "judgements": found.done,
        "judgements_planned": found.planned,
        "steps": steps,
        "seeds": list(options.seeds),
        "scores": scores,
    }


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
