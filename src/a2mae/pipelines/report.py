"""The `report` stage: the page, the map beside it, the cards of model and data set, and the curves as a picture."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.chain import SIMULATION, optional_inputs, plain_groups
from a2mae.report.inputs import ReportParameters
from a2mae.tasks.registry import Task

if TYPE_CHECKING:
    import pandas as pd

    from a2mae.report.inputs import ReportInputs

logger = logging.getLogger(__name__)

SHOWN = (
    *("scenes", "locations", "refused_scenes"),
    *("image_sets", "rejected_images", "images", "four_properties", "pruned_sets", "prune_report"),
    "pretrained_model",
    *(f"{task}.{part}" for task in Task for part in ("metrics", "pictures", "confusion")),
    *(f"{task}.map" for task in Task if task.kind.per_pixel),
    *("embeddings", "search", "scores", "deliverables"),
)
"""What the page shows, as far as the chain makes it; something of each stage, so that the report is made last."""
ARCHIVE = (["locations"], ["image_sets", "images"])
"""What the map shows of an archive; pictures have no place on it."""
MAPPED = (
    ["rejected_images"],
    *([f"{task}.map"] for task in Task if task.kind.per_pixel),
    *([f"{task}.confidence"] for task in Task if task.kind.per_pixel and not task.kind.values),
    *(["embeddings"], ["embedding_store"], ["search"]),
)
"""What else the map shows, likewise."""
CARDS = {"model_card": "pretrained_model", "dataset_card": "sets"}
"""The cards, each with what it describes."""


def create_pipeline(made: Collection[str] | None = None) -> Pipeline:
    """Create the stage's pipeline.

    Args:
        made: Datasets that the stages of the environment's chain make; None: all. What it does not make has no panel
            in the page.
    """
    inputs = {"options": "params:report", "chain": "params:chain", "configuration": "parameters"}
    inputs |= optional_inputs(made, SIMULATION, *([name] for name in SHOWN))
    sets = optional_inputs(made, ["pruned_sets"]) or optional_inputs(made, ["sets"])
    inputs |= sets
    node_of = partial(node, tags="report", namespace="report")
    nodes = []
    described = inputs
    placed = ARCHIVE if made is None or "locations" in made else ()
    if drawn := optional_inputs(made, *placed, *MAPPED):
        of_map = {"options": "params:report", "target": "map_files_target", **drawn, **sets}
        nodes.append(node_of(draw_map, inputs=of_map, outputs=["map_page", "map_files"], name="draw_map"))
        inputs = {**inputs, "map_files": "map_files"}
    nodes.append(node_of(build_report, inputs=inputs, outputs="report", name="build_report"))
    if cards := {card: card for card, of in CARDS.items() if optional_inputs(made, [of])}:
        nodes.append(node_of(write_cards, inputs=described, outputs=cards, name="write_cards"))
    if optional_inputs(made, ["pretrain_curves"]):
        nodes.append(
            node_of(
                picture_of_curves,
                inputs="pretrain_curves",
                outputs="pretrain_curves_picture",
                name="picture_of_curves",
            )
        )
    return Pipeline(nodes)


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


def draw_map(
    options: ReportParameters,
    target: Path,
    **outputs: Any,  # noqa: ANN401 (tables and paths: typed again as the fields of MapInputs)
) -> tuple[str, Path]:
    """Draw the map page from what the chain made.

    Args:
        options: Title, and how many places are shown.
        target: Folder of tiles and numbers, beside the page.
        outputs: As `build_report`.

    Returns:
        The page as HTML, and the folder.
    """
    from a2mae.explore.archive import Archive
    from a2mae.explore.map_layers import DrawnMap
    from a2mae.explore.map_page import MapInputs, write_map
    from a2mae.explore.store import open_store

    archive = None
    sets = outputs.get("pruned_sets", outputs.get("sets"))
    if "image_sets" in outputs and sets is not None:
        archive = Archive(outputs["image_sets"], outputs["images"], sets)
    maps = [
        DrawnMap(
            str(task),
            task.kind.title,
            outputs[f"{task}_map"],
            outputs.get(f"{task}_confidence"),
            task.kind.values,
            unchanged=0 if task.kind.dates > 1 else None,
        )
        for task in Task
        if f"{task}_map" in outputs
    ]
    store = outputs.get("embedding_store")
    inputs = MapInputs(
        title=options.title,
        places=options.map_places,
        locations=outputs.get("locations"),
        archive=archive,
        rejected=outputs.get("rejected_images"),
        maps=maps,
        embeddings=outputs.get("embeddings"),
        embedding_store=None if store is None else open_store(store),
        search=outputs.get("search"),
    )
    return write_map(inputs, target), target


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
    from a2mae.report.inputs import ReportInputs, TaskOutputs

    tasks = tuple(
        TaskOutputs(
            task.value,
            outputs[f"{task}_metrics"],
            outputs.get(f"{task}_pictures"),
            outputs.get(f"{task}_map"),
            outputs.get(f"{task}_confusion"),
        )
        for task in Task
        if f"{task}_metrics" in outputs
    )
    images, sets = outputs.get("images"), outputs.get("pruned_sets", outputs.get("sets"))
    pictures = None
    if "pictures" in chain and images is not None and sets is not None:
        pictures, images, sets = images.merge(sets[["set_id", "split"]], on="set_id"), None, None
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
        images=images,
        rejected_images=outputs.get("rejected_images"),
        pictures=pictures,
        sets=sets,
        four_properties=outputs.get("four_properties"),
        prune_report=outputs.get("prune_report"),
        model_dir=outputs.get("pretrained_model"),
        tasks=tasks,
        scores=_scores(outputs),
        embeddings=outputs.get("embeddings"),
        search=outputs.get("search"),
        deliverables=outputs.get("deliverables"),
        map_files=outputs.get("map_files"),
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
    found = [outputs[f"{task}_metrics"] for task in Task if f"{task}_metrics" in outputs]
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
