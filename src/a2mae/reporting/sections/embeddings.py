"""What `embed` wrote: which raster, by how many dimensions, and what varies most in them."""

from __future__ import annotations

import json
from pathlib import Path

import rasterio
from odc.geo.geobox import GeoBox

from a2mae.reporting.blocks import Block, Gallery, Picture, Section, Strip, Table
from a2mae.reporting.inputs import ReportInputs
from a2mae.reporting.pictures import to_data_uri
from a2mae.reporting.previews import raster_picture
from a2mae.reporting.scene_pictures import LARGEST_PX, scene_picture

RASTER, ABOUT = "embeddings.tif", "embeddings.json"


def embeddings(inputs: ReportInputs) -> Section | None:
    """The embedded raster: what varies most in it as colours, its scene, and what the file says of itself."""
    if inputs.embeddings is None or not (inputs.embeddings / ABOUT).exists():
        return None
    about = json.loads((inputs.embeddings / ABOUT).read_text("utf-8"))
    blocks: list[Block] = []
    if (inputs.embeddings / RASTER).exists():
        blocks.append(_pictures(inputs, inputs.embeddings / RASTER, str(about["raster"]), int(about["dimensions"])))
    rows = tuple((key.replace("_", " "), _words(value)) for key, value in about.items())
    blocks.append(Table("What was embedded", ("what", "value"), rows))
    return Section(
        "embeddings",
        "A raster as the encoder sees it",
        f"Each patch of {about['patch_px']} × {about['patch_px']} pixels is described by {about['dimensions']} numbers:"
        " embeddings.tif has one band per number, embeddings.parquet one row per block of patches.",
        tuple(blocks),
    )


def _pictures(inputs: ReportInputs, path: Path, name: str, dimensions: int) -> Gallery:
    colours = raster_picture(path, max_px=LARGEST_PX)
    scene = None
    with rasterio.open(path) as source:
        if source.crs is not None:
            grid = GeoBox(source.shape, source.transform, source.crs.to_wkt())
            share = LARGEST_PX / max(source.shape)
            scene = scene_picture(
                inputs, name, grid.zoom_to((round(source.height * share), round(source.width * share)))
            )
    answer = Picture(
        to_data_uri(colours, max_px=LARGEST_PX, exact=True),
        f"Embeddings of {name}: three directions of {dimensions} dimensions as colours",
        ("embeddings",),
    )
    return Gallery(
        "Ground that the model finds alike has like colours: red, green and blue are the three directions in which the"
        " embeddings vary most (their principal components); grey was not seen.",
        (Strip("", (*([scene] if scene is not None else []), answer)),),
        large=True,
    )


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
