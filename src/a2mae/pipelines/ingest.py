"""The `ingest` stage: find the scenes of a source and lay out the locations.

Annotations must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from a2mae.stssd.ingest.parameters import IngestParameters


def ingest(
    parameters: IngestParameters, simulation: dict[str, object], simulation_folder: Path
) -> tuple[object, object, object, dict[str, object], dict[str, object]]:
    """Find the scenes of the source and lay out the locations.

    Args:
        parameters: The `ingest` group.
        simulation: Manifest of the simulated Earth, empty in environments that do not simulate.
        simulation_folder: Where the manifest lies; its paths start there.

    Returns:
        Scene table (GeoDataFrame), location table (GeoDataFrame), rejected scenes (DataFrame), sensors in use by id,
        STAC items that an API gave.
    """
    from a2mae.stssd.ingest.ingest import ingest as run

    catalog = simulation_folder / str(simulation["catalog"]) if simulation else None
    done = run(parameters, simulated_catalog=catalog)
    return done.scenes, done.locations, done.rejected, done.sensors, done.stac_items


def create_pipeline() -> Pipeline:
    """Create the stage's pipeline."""
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
