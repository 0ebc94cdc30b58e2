"""The `simulate` stage: parameters to scenes as a provider delivers them, and the truth beside them.

Annotations must resolve when Kedro reads them, or the parameters would not be validated.
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
    """Create the stage's pipeline."""
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
