"""The `embed` stage: model directory and any raster → embeddings as GeoTIFF and GeoParquet."""

from __future__ import annotations

from collections.abc import Sequence

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.chained import SURVEYED, of_chain
from a2mae.pipelines.embed.nodes import embed


def create_pipeline(chain: Sequence[str] | None = None) -> Pipeline:
    """The stage as a pipeline.

    Args:
        chain: Stages of the environment; None: all.
    """
    inputs = {"options": "params:embed", "ingest": "params:ingest", "pretrained_model": "pretrained_model"}
    inputs |= {name: name for name in of_chain(SURVEYED, chain)}
    return Pipeline([node(embed, inputs=inputs, outputs="embeddings", name="embed", tags="embed")])
