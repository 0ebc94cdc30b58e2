"""The `tag` stage: registered images and store → image table, set table, statistics, four properties."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.tag.nodes import tag


def create_pipeline() -> Pipeline:
    """The stage as a pipeline."""
    return Pipeline(
        [
            node(
                tag,
                inputs=["image_sets", "registered_images", "locations", "params:tag"],
                outputs=["images", "sets", "image_features", "band_statistics", "four_properties"],
                name="tag",
                tags="tag",
            )
        ]
    )
