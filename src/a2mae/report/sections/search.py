"""What a search has found: the contact sheet and the best hits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.blocks import Gallery, Picture, Section, Strip, Table
from a2mae.report.inputs import ReportInputs
from a2mae.report.pictures import to_data_uri

_SHEET, _HITS, _EXAMPLES = "contact_sheet.png", "hits.geojson", "examples.geojson"
_ROWS = 12
_SHEET_PX = 1100


def _features(inputs: ReportInputs, name: str) -> list[Mapping[str, Any]]:
    if inputs.search is None or not (inputs.search / name).is_file():
        return []
    found: list[Mapping[str, Any]] = json.loads((inputs.search / name).read_text("utf-8"))["features"]
    return [feature["properties"] for feature in found]


def searched(inputs: ReportInputs) -> str:
    """Say how many places were found like which."""
    examples, hits = _features(inputs, _EXAMPLES), _features(inputs, _HITS)
    if not examples:
        return "What this stage wrote."
    return f"{plural(len(hits), 'place')} like {plural(len(examples), 'example')}."


def search(inputs: ReportInputs) -> Section | None:
    """Show the contact sheet and the best hits; None where nothing was searched for."""
    hits = _features(inputs, _HITS)
    if not hits or inputs.search is None:
        return None
    rows = tuple(
        (
            str(hit["rank"]),
            text.number(hit["score"], 3),
            str(hit["sensor"]),
            str(hit["datetime"])[:10],
            text.position(hit["lon"], hit["lat"]),
        )
        for hit in hits[:_ROWS]
    )
    table = Table("The best hits", ("rank", "score", "sensor", "date", "place"), rows, numeric=(0, 1))
    pictures: tuple[Gallery, ...] = ()
    if (inputs.search / _SHEET).is_file():
        with Image.open(inputs.search / _SHEET) as sheet:
            uri = to_data_uri(np.asarray(sheet.convert("RGB")), max_px=_SHEET_PX)
        picture = Picture(uri, "The examples, framed, and the best hits in order, each with its score")
        pictures = (
            Gallery("The examples are framed; then the best hits in order.", (Strip("", (picture,)),), large=True),
        )
    return Section(
        "search",
        "Places like these",
        "Images whose embeddings point the way that the examples' do; 1 is the same direction. hits.parquet and"
        " hits.geojson hold all of them; name what to look for in search.point, search.examples or search.ids.",
        (*pictures, table),
    )
