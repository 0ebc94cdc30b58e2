"""The `coregister` stage: scene and location tables → image-set store and registered images."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.coregister.nodes import coregister


def create_pipeline() -> Pipeline:
    """The stage as a pipeline."""
    return Pipeline(
        [
            node(
                coregister,
                inputs={
                    "scenes": "scenes",
                    "locations": "locations",
                    "sensors": "sensors",
                    "parameters": "params:coregister",
                    "ingest": "params:ingest",
                    "image_sets_url": "image_sets_url",
                },
                outputs=["image_sets", "registered_images", "rejected_images"],
                name="coregister",
                tags="coregister",
            )
        ]
    )
