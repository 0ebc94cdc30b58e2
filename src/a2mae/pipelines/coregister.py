"""The `coregister` stage: scene and location tables to the image-set store and registered images.

Annotations must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters


def coregister(
    scenes: object,
    locations: object,
    sensors: dict[str, object],
    parameters: CoregisterParameters,
    ingest: IngestParameters,
    *,
    image_sets_url: str,
) -> tuple[str, object, object]:
    """Build the image-set store.

    Args:
        scenes: Scene table (GeoDataFrame).
        locations: Location table (GeoDataFrame).
        sensors: Descriptions of the sensors in use, by id.
        parameters: The `coregister` group.
        ingest: The `ingest` group: how remote files are reached.
        image_sets_url: Where the store goes.

    Returns:
        The store's manifest hash, registered images and rejections (DataFrames).
    """
    import geopandas as gpd

    from a2mae.scenes import sensors_from_json
    from a2mae.stssd.coregister.build import build

    assert isinstance(scenes, gpd.GeoDataFrame)
    assert isinstance(locations, gpd.GeoDataFrame)
    described = sensors_from_json(sensors)
    tables = build(scenes, locations, described, parameters, image_sets_url, access=ingest.access())
    return tables.manifest_hash, tables.images, tables.rejected


def create_pipeline() -> Pipeline:
    """Create the stage's pipeline."""
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
