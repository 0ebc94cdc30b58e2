"""Nodes of the `tag` stage (annotations must resolve at run time: Kedro validates parameters by them)."""

from __future__ import annotations

from a2mae.stssd.tagging.parameters import TagParameters


def tag(
    image_sets: object, registered_images: object, locations: object, parameters: TagParameters
) -> tuple[object, object, object, dict[str, dict[str, dict[str, float]]], dict[str, dict[str, object]]]:
    """Complete the image table, make the set table and measure what was built.

    Args:
        image_sets: The image-set store.
        registered_images: Image table of the coregister stage (DataFrame).
        locations: Location table (GeoDataFrame).
        parameters: The `tag` group.

    Returns:
        Image table, set table (GeoDataFrame), image features, band statistics, four properties.
    """
    import geopandas as gpd
    import pandas as pd

    from a2mae.stssd.image_sets.store import ImageSetStore
    from a2mae.stssd.tagging.properties import four_properties
    from a2mae.stssd.tagging.tag import tag as run

    assert isinstance(image_sets, ImageSetStore)
    assert isinstance(registered_images, pd.DataFrame)
    assert isinstance(locations, gpd.GeoDataFrame)
    done = run(image_sets, registered_images, locations, parameters)
    return done.images, done.sets, done.features, done.statistics, four_properties(done.images, done.sets)
