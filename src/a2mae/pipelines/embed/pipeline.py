"""The `embed` stage: model directory and any raster → embeddings as GeoTIFF and GeoParquet."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.embed.nodes import embed


def create_pipeline() -> Pipeline:
    """The stage as a pipeline."""
    inputs = ["params:embed", "params:ingest", "pretrained_model", "scenes", "sensors"]
    return Pipeline([node(embed, inputs=inputs, outputs="embeddings", name="embed", tags="embed")])
