"""The `prune` stage: set table and image features → which sets stay."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.prune.nodes import prune


def create_pipeline() -> Pipeline:
    """The stage as a pipeline."""
    return Pipeline(
        [
            node(
                prune,
                inputs=["sets", "images", "image_features", "sensors", "params:prune"],
                outputs=["pruned_sets", "prune_report"],
                name="prune",
                tags="prune",
            )
        ]
    )
