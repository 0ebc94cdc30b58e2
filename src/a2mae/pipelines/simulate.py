"""The `simulate` stage: parameters to scenes as a provider delivers them, and the truth beside them.

Nodes of the `simulate` stage.

Annotations here must resolve when Kedro reads them: a name imported only for type checking would switch the validation
of parameters off, with no more than a warning.

The `simulate` stage: parameters → scenes as a provider delivers them, and the truth beside them.
"""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from a2mae.simulate.parameters import SimulateParameters


def simulate(parameters: SimulateParameters, folder: Path) -> dict[str, object]:
    """Write the simulated Earth: scenes, catalog and truth.

    Args:
        parameters: The `simulate` group.
        folder: Where; a simulation that was cut short there is completed.

    Returns:
        The manifest.
    """
    from a2mae.simulate.run import simulate as run

    return run(parameters, folder).model_dump(mode="json")


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
