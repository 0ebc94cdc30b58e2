"""The node of the `embed` stage.

Annotations here must resolve when Kedro reads them, or the parameters would not be validated.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from a2mae.stssd.ingesting.parameters import IngestParameters
from a2mae.tasks.parameters import EmbedParameters


def embed(
    options: EmbedParameters,
    ingest: IngestParameters,
    pretrained_model: Path,
    scenes: object = None,
    sensors: dict[str, object] | None = None,
) -> object:
    """Say what is embedded by what; the dataset streams it window by window.

    Args:
        options: The `embed` group.
        ingest: The `ingest` group: how the scenes' files are reached.
        pretrained_model: Model directory.
        scenes: Scene table: the default raster is one of its scenes; None where no stage has made one.
        sensors: Sensors in use, likewise.

    Returns:
        What writes the embeddings.
    """
    import pandas as pd

    from a2mae.tasks.maps.survey import EmbeddingSource

    return EmbeddingSource(
        options, pretrained_model, cast("pd.DataFrame | None", scenes), sensors or {}, ingest.access()
    )
