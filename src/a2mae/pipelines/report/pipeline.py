"""The report pipeline: the page, the cards of model and data set, and the curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.report.nodes import (
    build_report,
    picture_of_curves,
    write_cards,
)

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
