"""The `tag` stage: registered images and store to image table, set table, statistics and properties.

Annotations must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.stssd.parameters import TagParameters


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

    from a2mae.stssd.store.store import ImageSetStore
    from a2mae.stssd.tag.properties import four_properties
    from a2mae.stssd.tag.tag import tag as run

    assert isinstance(image_sets, ImageSetStore)
    assert isinstance(registered_images, pd.DataFrame)
    assert isinstance(locations, gpd.GeoDataFrame)
    done = run(image_sets, registered_images, locations, parameters)
    return done.images, done.sets, done.features, done.statistics, four_properties(done.images, done.sets)


def create_pipeline() -> Pipeline:
    """Create the stage's pipeline."""
    return Pipeline(
        [
            node(
                tag,
                inputs=["image_sets", "registered_images", "locations", "params:tag"],
                outputs=["images", "sets", "image_features", "band_statistics", "four_properties"],
                name="tag",
                tags="tag",
            )
        ]
    )
