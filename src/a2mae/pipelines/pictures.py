"""The `pictures` stage: a folder of pictures to what `pretrain` reads, in place of the stages from `ingest` to `prune`.

Annotations must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from a2mae.tasks.data_parameters import PicturesParameters


def pictures(
    parameters: PicturesParameters, image_sets_url: str
) -> tuple[str, object, object, dict[str, dict[str, dict[str, float]]]]:
    """Store pictures as image sets of one image.

    Args:
        parameters: The `pictures` group.
        image_sets_url: Where the store goes.

    Returns:
        The store's manifest hash, image table (DataFrame), set table (GeoDataFrame), band statistics.
    """
    from a2mae.tasks.datasets.picture_sets import build_pictures

    done = build_pictures(parameters, image_sets_url)
    return done.manifest_hash, done.images, done.sets, done.statistics


def create_pipeline() -> Pipeline:
    """Create the stage's pipeline."""
    return Pipeline(
        [
            node(
                pictures,
                inputs=["params:pictures", "image_sets_url"],
                outputs=["image_sets", "images", "pruned_sets", "band_statistics"],
                name="pictures",
                tags="pictures",
            )
        ]
    )
