"""The `report` stage: the page, the cards of model and data set, and the curves as a picture.

The report's nodes: hand the chain's outputs to `a2mae.report`.

The report pipeline: the page, the cards of model and data set, and the curves as a picture.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.chain import plain_groups
from a2mae.report.inputs import ReportParameters

if TYPE_CHECKING:
    import pandas as pd

    from a2mae.report.inputs import ReportInputs

logger = logging.getLogger(__name__)

TASKS = ("classify", "segment", "detect_change")


def build_report(
    options: ReportParameters,
    chain: list[str],
    configuration: Mapping[str, object],
    **outputs: Any,  # noqa: ANN401 (tables, JSON and paths: typed again as the fields of ReportInputs)
) -> str:
    """Build the page from what the chain made.

    Args:
        options: Title and limits.
        chain: The stages of the run.
        configuration: Every parameter group, shown at the end of the page.
        outputs: What the stages wrote, by the dataset's name with `_` for `.`; stages that are not in the chain give
            nothing.

    Returns:
        The page as HTML.
    """
    from a2mae.report import page

    html = page.build(_inputs(options, chain, configuration, outputs))
    logger.info("report: %d sections, %.1f MB", html.count('class="chapter"'), len(html.encode("utf-8")) / 1e6)
    return html


def write_cards(
    options: ReportParameters,
    chain: list[str],
    configuration: Mapping[str, object],
    **outputs: Any,  # noqa: ANN401 (as above)
) -> dict[str, str]:
    """Describe in Markdown what the chain made; arguments as `build_report`.

    Returns:
        `model_card` and `dataset_card`, each where the chain makes what it describes.
    """
    from a2mae.report.cards import dataset_card, model_card

    inputs = _inputs(options, chain, configuration, outputs)
    cards = {"model_card": model_card(inputs, options.card), "dataset_card": dataset_card(inputs, options.card)}
    return {name: card for name, card in cards.items() if card is not None}


def _inputs(
    options: ReportParameters, chain: list[str], configuration: Mapping[str, object], outputs: Mapping[str, Any]
) -> ReportInputs:
    from a2mae.report.inputs import ReportInputs, TaskInputs

    tasks = tuple(
        TaskInputs(
            task,
            outputs[f"{task}_metrics"],
            outputs.get(f"{task}_pictures"),
            outputs.get(f"{task}_map"),
            outputs.get(f"{task}_confusion"),
        )
        for task in TASKS
        if f"{task}_metrics" in outputs
    )
    return ReportInputs(
        title=options.title,
        stages=tuple(chain),
        configuration=plain_groups(configuration, chain),
        limits=options,
        simulation=outputs.get("simulation"),
        true_shifts=_true_shifts(outputs.get("simulation"), outputs.get("simulation_folder")),
        scenes=outputs.get("scenes"),
        refused_scenes=outputs.get("refused_scenes"),
        locations=outputs.get("locations"),
        store=outputs.get("image_sets"),
        images=outputs.get("images"),
        rejected_images=outputs.get("rejected_images"),
        sets=outputs.get("pruned_sets", outputs.get("sets")),
        four_properties=outputs.get("four_properties"),
        prune_report=outputs.get("prune_report"),
        model_dir=outputs.get("pretrained_model"),
        tasks=tasks,
        scores=_scores(outputs),
        embeddings=outputs.get("embeddings"),
    )


def picture_of_curves(pretrain_curves: object) -> bytes:
    """Draw the training's curves.

    Args:
        pretrain_curves: One row per log interval (DataFrame).

    Returns:
        A PNG.
    """
    import pandas as pd

    from a2mae.report.previews import draw_curves

    assert isinstance(pretrain_curves, pd.DataFrame)
    return draw_curves(pretrain_curves)


def _scores(outputs: Mapping[str, Any]) -> pd.DataFrame | None:
    """The score table; of the finetuned tasks alone where the chain has no `evaluate`."""
    found = [outputs[f"{task}_metrics"] for task in TASKS if f"{task}_metrics" in outputs]
    if "scores" in outputs or not found:
        return outputs.get("scores")
    from a2mae.tasks.metrics.scores import finetuned_rows, score_table

    return score_table([row for metrics in found for row in finetuned_rows(metrics, seed=0)])


def _true_shifts(manifest: Mapping[str, Any] | None, folder: Path | None) -> pd.DataFrame | None:
    """The truth beside the simulated scenes; None where nothing was simulated."""
    if not manifest or folder is None:
        return None
    import pandas as pd

    return pd.read_parquet(folder / manifest["truth_scenes"])


OUTPUTS_SHOWN: Mapping[str, tuple[str, ...]] = {
    "simulate": ("simulation",),
    "ingest": ("scenes", "locations", "refused_scenes"),
    "coregister": ("image_sets", "rejected_images"),
    "tag": ("images", "four_properties"),
    "prune": ("pruned_sets", "prune_report"),
    "pretrain": ("pretrained_model",),
    "classify": ("classify.metrics", "classify.pictures", "classify.confusion"),
    "segment": ("segment.metrics", "segment.pictures", "segment.map", "segment.confusion"),
    "detect_change": (
        "detect_change.metrics",
        "detect_change.pictures",
        "detect_change.map",
        "detect_change.confusion",
    ),
    "embed": ("embeddings",),
    "evaluate": ("scores",),
}
"""Which outputs of a stage the page shows; at least one of each, so that the report is made last."""
UNPRUNED = "sets"
"""What the page shows of the image sets where the chain does not prune them."""
FOLDERS: Mapping[str, tuple[str, ...]] = {"simulate": ("simulation_folder",)}
"""Where a stage's files lie that are no datasets of their own."""

CARDS: Mapping[str, str] = {"model_card": "pretrain", "dataset_card": "tag"}
"""The cards, each with the stage that makes what it describes."""


def create_pipeline(chain: Sequence[str] = tuple(OUTPUTS_SHOWN)) -> Pipeline:
    """Build the pipeline for a chain.

    Args:
        chain: Stages whose outputs exist; the others have no panel in the page.
    """
    shown = [name for stage in chain for name in (*OUTPUTS_SHOWN.get(stage, ()), *FOLDERS.get(stage, ()))]
    if "tag" in chain and "prune" not in chain:
        shown.append(UNPRUNED)
    inputs = {"options": "params:report", "chain": "params:chain", "configuration": "parameters"}
    inputs |= {name.replace(".", "_"): name for name in shown}
    nodes = [
        node(build_report, inputs=inputs, outputs="report", name="build_report", tags="report", namespace="report")
    ]
    cards = {card: card for card, stage in CARDS.items() if stage in chain}
    if cards:
        nodes.append(
            node(write_cards, inputs=inputs, outputs=cards, name="write_cards", tags="report", namespace="report")
        )
    if "pretrain" in chain:
        nodes.append(
            node(
                picture_of_curves,
                inputs="pretrain_curves",
                outputs="pretrain_curves_picture",
                name="picture_of_curves",
                tags="report",
                namespace="report",
            )
        )
    return Pipeline(nodes)
