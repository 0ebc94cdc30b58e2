"""Nodes of the `coregister` stage (annotations must resolve at run time: Kedro validates parameters by them)."""

from __future__ import annotations

from a2mae.stssd.building.parameters import CoregisterParameters
from a2mae.stssd.ingesting.parameters import IngestParameters


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

    from a2mae.stssd.building.build import build
    from a2mae.stssd.scenes import sensors_from_json

    assert isinstance(scenes, gpd.GeoDataFrame)
    assert isinstance(locations, gpd.GeoDataFrame)
    described = sensors_from_json(sensors)
    tables = build(scenes, locations, described, parameters, image_sets_url, access=ingest.access())
    return tables.manifest_hash, tables.images, tables.rejected
