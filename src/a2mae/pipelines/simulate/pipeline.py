"""The `simulate` stage: parameters → scenes as a provider delivers them, and the truth beside them."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.simulate.nodes import simulate


def create_pipeline() -> Pipeline:
    """The stage as a pipeline."""
    return Pipeline(
        [
            node(
                simulate,
                inputs=["params:simulate", "simulation_target"],
                outputs="simulation",
                name="simulate",
                tags="simulate",
            )
        ]
    )
