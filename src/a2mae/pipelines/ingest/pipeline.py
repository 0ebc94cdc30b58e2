"""The `ingest` stage: a source of scenes → scene table and location table."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.ingest.nodes import ingest


def create_pipeline() -> Pipeline:
    """The stage as a pipeline."""
    return Pipeline(
        [
            node(
                ingest,
                inputs=["params:ingest", "simulation", "simulation_folder"],
                outputs=["scenes", "locations", "refused_scenes", "sensors", "stac_items"],
                name="ingest",
                tags="ingest",
            )
        ]
    )
