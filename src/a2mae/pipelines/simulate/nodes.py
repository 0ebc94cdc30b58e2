"""Nodes of the `simulate` stage.

Annotations here must resolve when Kedro reads them: a name imported only for type checking would switch the validation
of parameters off, with no more than a warning.
"""

from __future__ import annotations

from pathlib import Path

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
