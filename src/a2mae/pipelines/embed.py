"""The `embed` stage: a raster to embeddings as GeoTIFF and GeoParquet, and the archive to a store that is searched.

Annotations here must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import cast

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.chain import SCENES, optional_inputs
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.tasks.parameters import EmbedParameters

ARCHIVE = ("image_sets", "images", "sets")
"""What is embedded of an archive."""


def embed(
    options: EmbedParameters,
    ingest: IngestParameters,
    coregister: CoregisterParameters,
    pretrained_model: Path,
    target: Path,
    *,
    scenes: object = None,
    sensors: dict[str, object] | None = None,
) -> Path:
    """Embed a raster, window by window.

    Args:
        options: The `embed` group.
        ingest: The `ingest` group: how the scenes' files are reached.
        coregister: The `coregister` group: how their clouds are told.
        pretrained_model: Model directory.
        target: Folder of the embeddings.
        scenes: Scene table: the default raster is one of its scenes; None where no stage has made one.
        sensors: Sensors in use, likewise.

    Returns:
        The folder.
    """
    import pandas as pd

    from a2mae.tasks.inference.scenes import SceneRasters
    from a2mae.tasks.inference.sources import EmbeddingSource

    table = cast("pd.DataFrame | None", scenes)
    rasters = SceneRasters(table, sensors or {}, ingest.access(), coregister.clouds)
    EmbeddingSource(options, pretrained_model, rasters).write(target)
    return target


def embed_archive(
    options: EmbedParameters,
    pretrained_model: Path,
    target: Path,
    *,
    image_sets: object,
    images: object,
    sets: object,
) -> Path:
    """Embed every image and set of the archive; what was embedded before stays.

    Args:
        options: The `embed` group.
        pretrained_model: Model directory.
        target: Folder of the embedding store.
        image_sets: The open image-set store.
        images: Image table.
        sets: Set table: footprints and splits.

    Returns:
        The folder.
    """
    import geopandas as gpd
    import pandas as pd

    from a2mae.explore.archive import Archive, embed_archive
    from a2mae.stssd.store.store import ImageSetStore

    archive = Archive(cast(ImageSetStore, image_sets), cast(pd.DataFrame, images), cast(gpd.GeoDataFrame, sets))
    embed_archive(options, pretrained_model, archive, target)
    return target


def create_pipeline(made: Collection[str] | None = None) -> Pipeline:
    """Create the stage's pipeline.

    Args:
        made: Datasets that the stages of the environment's chain make; None: all.
    """
    inputs = {
        "options": "params:embed",
        "ingest": "params:ingest",
        "coregister": "params:coregister",
        "pretrained_model": "pretrained_model",
        "target": "embeddings_target",
        **optional_inputs(made, SCENES),
    }
    node_of = partial(node, tags="embed", namespace="embed")
    nodes = [node_of(embed, inputs=inputs, outputs="embeddings", name="raster")]
    if archive := optional_inputs(made, ARCHIVE):
        of_archive = {key: inputs[key] for key in ("options", "pretrained_model")}
        of_archive |= {"target": "embedding_store_target", **archive}
        nodes.append(node_of(embed_archive, inputs=of_archive, outputs="embedding_store", name="archive"))
    return Pipeline(nodes)
