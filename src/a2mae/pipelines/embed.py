"""The `embed` stage: a model directory and any raster to embeddings as GeoTIFF and GeoParquet.

Annotations here must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from kedro.pipeline import Pipeline, node

from a2mae.pipelines.chain import SURVEYED, of_chain
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.tasks.parameters import EmbedParameters


def embed(
    options: EmbedParameters,
    ingest: IngestParameters,
    coregister: CoregisterParameters,
    pretrained_model: Path,
    *,
    scenes: object = None,
    sensors: dict[str, object] | None = None,
) -> object:
    """Say what is embedded by what; the dataset streams it window by window.

    Args:
        options: The `embed` group.
        ingest: The `ingest` group: how the scenes' files are reached.
        coregister: The `coregister` group: how their clouds are told.
        pretrained_model: Model directory.
        scenes: Scene table: the default raster is one of its scenes; None where no stage has made one.
        sensors: Sensors in use, likewise.

    Returns:
        What writes the embeddings.
    """
    import pandas as pd

    from a2mae.tasks.inference.scenes import SceneRasters
    from a2mae.tasks.inference.sources import EmbeddingSource

    rasters = SceneRasters(cast("pd.DataFrame | None", scenes), sensors or {}, ingest.access(), coregister.clouds)
    return EmbeddingSource(options, pretrained_model, rasters)


def create_pipeline(chain: Sequence[str] | None = None) -> Pipeline:
    """The stage as a pipeline.

    Args:
        chain: Stages of the environment; None: all.
    """
    inputs = {
        "options": "params:embed",
        "ingest": "params:ingest",
        "coregister": "params:coregister",
        "pretrained_model": "pretrained_model",
    }
    inputs |= {name: name for name in of_chain(SURVEYED, chain)}
    return Pipeline([node(embed, inputs=inputs, outputs="embeddings", name="embed", tags="embed")])
