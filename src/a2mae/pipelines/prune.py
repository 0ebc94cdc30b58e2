"""The `prune` stage: set table and image features to the sets that stay.

Annotations must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.stssd.parameters import PruneParameters


def prune(
    sets: object, images: object, image_features: object, sensors: dict[str, object], parameters: PruneParameters
) -> tuple[object, dict[str, object]]:
    """Choose which sets stay.

    Args:
        sets: Set table (GeoDataFrame).
        images: Image table (DataFrame).
        image_features: Features per image (DataFrame).
        sensors: Descriptions of the sensors in use, by id.
        parameters: The `prune` group.

    Returns:
        Set table with `cluster`, `kept` and `keep_reason`; before/after report.
    """
    import geopandas as gpd
    import pandas as pd

    from a2mae.scenes import sensors_from_json
    from a2mae.stssd.prune import prune as run

    assert isinstance(sets, gpd.GeoDataFrame)
    assert isinstance(images, pd.DataFrame)
    assert isinstance(image_features, pd.DataFrame)
    done = run(sets, images, image_features, sensors_from_json(sensors), parameters)
    return done.sets, done.report


def create_pipeline() -> Pipeline:
    """Create the stage's pipeline."""
    return Pipeline(
        [
            node(
                prune,
                inputs=["sets", "images", "image_features", "sensors", "params:prune"],
                outputs=["pruned_sets", "prune_report"],
                name="prune",
                tags="prune",
            )
        ]
    )
