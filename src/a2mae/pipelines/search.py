"""The `search` stage: places of the archive that look like some examples.

Annotations must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kedro.pipeline import Pipeline, node

from a2mae.explore.parameters import SearchParameters
from a2mae.pipelines.chain import optional_inputs

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from a2mae.stssd.store.store import ImageSetStore


def search(
    options: SearchParameters,
    embedding_store: Path,
    pretrained_model: Path,
    target: Path,
    *,
    image_sets: object = None,
    images: object = None,
    sets: object = None,
    locations: object = None,
    embeddings: Path | None = None,
) -> Path:
    """Search the embedding store.

    Args:
        options: The `search` group.
        embedding_store: Folder of the store.
        pretrained_model: Model directory: the store must hold its vectors.
        target: Folder of the results.
        image_sets: The open image-set store, for pictures; None where the chain builds none.
        images: Image table, likewise.
        sets: Set table, likewise.
        locations: Location table, for messages.
        embeddings: Folder of the embedded raster, which is compared with the examples.

    Returns:
        The folder.
    """
    from a2mae.explore.archive import Archive
    from a2mae.explore.results import search_archive
    from a2mae.explore.store import open_store
    from a2mae.models.sources import weights_digest

    archive = None
    if image_sets is not None:
        archive = Archive(
            cast("ImageSetStore", image_sets), cast("pd.DataFrame", images), cast("gpd.GeoDataFrame", sets)
        )
    search_archive(
        options,
        open_store(embedding_store, weights_digest(pretrained_model)),
        target,
        archive=archive,
        locations=cast("gpd.GeoDataFrame | None", locations),
        pretrained=pretrained_model,
        embeddings=embeddings,
    )
    return target


def create_pipeline(made: Collection[str] | None = None) -> Pipeline:
    """Create the stage's pipeline.

    Args:
        made: Datasets that the stages of the environment's chain make; None: all.
    """
    inputs = {
        "options": "params:search",
        "embedding_store": "embedding_store",
        "pretrained_model": "pretrained_model",
        "target": "search_target",
        **optional_inputs(made, ("image_sets", "images", "sets", "locations"), ("embeddings",)),
    }
    return Pipeline([node(search, inputs=inputs, outputs="search", name="search", tags="search")])
