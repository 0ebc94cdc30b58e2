"""What `embed` wrote: which raster, by how many dimensions, and what the first three look like."""

from __future__ import annotations

import json

from a2mae.reporting.blocks import Block, Gallery, Picture, Section, Strip, Table
from a2mae.reporting.inputs import ReportInputs
from a2mae.reporting.pictures import to_data_uri
from a2mae.reporting.previews import raster_picture

RASTER, ABOUT = "embeddings.tif", "embeddings.json"


def embeddings(inputs: ReportInputs) -> Section | None:
    """The embedded raster: a picture of three of its dimensions, and what the file says of itself."""
    if inputs.embeddings is None or not (inputs.embeddings / ABOUT).exists():
        return None
    about = json.loads((inputs.embeddings / ABOUT).read_text("utf-8"))
    blocks: list[Block] = []
    if (inputs.embeddings / RASTER).exists():
        uri = to_data_uri(raster_picture(inputs.embeddings / RASTER), max_px=inputs.limits.picture_px)
        alt = f"Embeddings of {about['raster']}: three of {about['dimensions']} dimensions as colours"
        strip = Strip("", (Picture(uri, alt, (str(about["raster"]), "dimensions 1, 2, 3 as red, green, blue")),))
        blocks.append(Gallery("Ground that the model finds alike has like colours.", (strip,)))
    rows = tuple((key.replace("_", " "), _words(value)) for key, value in about.items())
    blocks.append(Table("What was embedded", ("what", "value"), rows))
    return Section(
        "embeddings",
        "A raster as the encoder sees it",
        f"Each patch of {about['patch_px']} × {about['patch_px']} pixels is described by {about['dimensions']} numbers:"
        " embeddings.tif has one band per number, embeddings.parquet one row per block of patches.",
        tuple(blocks),
    )


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
