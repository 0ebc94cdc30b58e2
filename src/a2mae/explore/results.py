"""What a search leaves: ranked hits as GeoParquet and GeoJSON, and a contact sheet of the best beside the examples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from a2mae.errors import InputError, plural
from a2mae.explore.archive import Archive
from a2mae.explore.chip import embed_chip
from a2mae.explore.parameters import SearchParameters
from a2mae.explore.query import rows_of_query
from a2mae.explore.search import Searcher
from a2mae.explore.similarity import write_similarity
from a2mae.explore.store import EmbeddingStore, Vectors, geometries
from a2mae.files import whole_folder, write_json
from a2mae.report.pictures import display_bands, stretch
from a2mae.report.text import position
from a2mae.stssd.store.store import ImageSetStore

logger = logging.getLogger(__name__)

_TILE_PX, _MARGIN_PX, _LINE_PX, _HEAD_PX = 240, 10, 17, 38
_COLUMNS, _FEWEST_LINES = 4, 3
_FONT, _HEAD = ImageFont.load_default(13), ImageFont.load_default(19)
_PAPER, _INK, _EXAMPLE = (255, 255, 255), (30, 30, 36), (214, 39, 112)
_JSON = ("rank", "score", "id", "location_id", "sensor", "datetime", "lon", "lat")


def search_archive(
    options: SearchParameters,
    store: EmbeddingStore,
    folder: Path,
    *,
    archive: Archive | None = None,
    locations: gpd.GeoDataFrame | None = None,
    pretrained: Path | None = None,
    embeddings: Path | None = None,
) -> gpd.GeoDataFrame:
    """Search, and write `hits.parquet`, `hits.geojson` and `examples.geojson`.

    With an archive there is `contact_sheet.png`, with an embedded raster `similarity.tif`.

    Args:
        options: The `search` group.
        store: The store.
        folder: Where; replaced when all of it is whole.
        archive: For pictures; None: none are drawn.
        locations: Location table, for messages.
        pretrained: Model directory, by which a chip is embedded.
        embeddings: Folder of an embedded raster; None: none is compared.

    Returns:
        The hits, best first: `rank`, `score`, then the columns of the store.

    Raises:
        InputError: If nothing fits what is searched for.
    """
    wanted, unwanted = rows_of_query(options, store, locations)
    positive, negative = store.take(options.level, wanted), store.take(options.level, unwanted)
    if options.chip is not None:
        positive = _with_chip(options, store, positive, pretrained)
    searcher = Searcher(store, options.level)
    found = searcher.similar(positive, negative, top=options.top, exclude_m=options.exclude_m, sensors=options.sensors)
    hits = _frame(store.take(options.level, found.number), store.folder)
    hits.insert(0, "score", found.score)
    hits.insert(0, "rank", np.arange(1, len(hits) + 1))
    examples = _frame(positive, store.folder)
    if archive is not None:
        _check_known(archive, hits, options.level, store.folder)
    with whole_folder(folder) as partial:
        partial.mkdir(parents=True)
        hits.to_parquet(partial / "hits.parquet", index=False)
        _write_geojson(hits, partial / "hits.geojson")
        _write_geojson(examples, partial / "examples.geojson")
        write_json(partial / "search.json", {"options": options.model_dump(mode="json"), "model": store.about.model})
        if embeddings is not None:
            write_similarity(partial / "similarity.tif", searcher, positive, negative, embeddings=embeddings)
        if archive is not None and options.shown:
            sheet = contact_sheet(archive, options.level, examples, hits.head(options.shown))
            sheet.save(partial / "contact_sheet.png")
    best = f", the best {hits['score'].iloc[0]:.2f}" if len(hits) else ""
    logger.info("search: %s like %s%s", plural(len(hits), "hit"), plural(len(examples), "example"), best)
    return hits


def _with_chip(options: SearchParameters, store: EmbeddingStore, positive: Vectors, pretrained: Path | None) -> Vectors:
    if pretrained is None:
        raise InputError("search.chip needs the model that the store's vectors are of: name its directory")
    if options.level != "image":
        raise InputError("search.chip is one image, and search.level is 'set': search for images")
    chip = embed_chip(pretrained, store, Path(str(options.chip)), options.chip_sensor)
    if not len(positive.rows):
        return chip
    rows = pa.concat_tables([positive.rows, chip.rows.select(positive.rows.column_names)], promote_options="permissive")
    return Vectors(rows, np.concatenate([positive.vectors, chip.vectors]))


def _check_known(archive: Archive, hits: gpd.GeoDataFrame, level: str, folder: Path) -> None:
    """Refuse vectors of images that the archive has no longer."""
    known = archive.images["image_id" if level == "image" else "set_id"]
    gone = hits.loc[~hits["id"].isin(known), "id"]
    if len(gone):
        raise InputError(
            f"{folder} has the {level} {gone.iloc[0]!r}, which the archive has not: embed the archive again (kedro run"
            " --pipelines=embed)"
        )


def _frame(rows: Vectors, folder: Path) -> gpd.GeoDataFrame:
    table = rows.rows.drop(["content", "geometry"]).to_pandas()
    geometry = geometries(rows.rows, folder)
    return gpd.GeoDataFrame(table, geometry=geometry, crs="EPSG:4326")


def _write_geojson(frame: gpd.GeoDataFrame, path: Path) -> None:
    columns = [name for name in _JSON if name in frame]
    shown = frame[[*columns, "geometry"]].assign(datetime=[_iso(moment) for moment in frame["datetime"]])
    path.write_text(shown.to_json(drop_id=True), "utf-8")


def _iso(moment: pd.Timestamp) -> str | None:
    return None if pd.isna(moment) else moment.isoformat()


def contact_sheet(archive: Archive, level: str, examples: gpd.GeoDataFrame, hits: gpd.GeoDataFrame) -> Image.Image:
    """Draw the examples, framed, on the left, and the hits in order beside them, each in its own stretch.

    Args:
        archive: Has the pixels.
        level: `image`, or `set`: a set is shown by its first image.
        examples: As `search_archive` writes them; as many are shown as there are rows of hits, or three.
        hits: Likewise, with `rank` and `score`.
    """
    key = "image_id" if level == "image" else "set_id"
    first = archive.images.sort_values("image_id", kind="stable").drop_duplicates(key).set_index(key)
    lines = max(-(-len(hits) // _COLUMNS), min(len(examples), _FEWEST_LINES), 1)
    step = (_TILE_PX + _MARGIN_PX, _TILE_PX + 2 * _LINE_PX + 2 * _MARGIN_PX)
    left_of_hits = step[0] + 3 * _MARGIN_PX
    size = (_MARGIN_PX + left_of_hits + _COLUMNS * step[0], _HEAD_PX + lines * step[1])
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN_PX, _MARGIN_PX), "Examples", fill=_EXAMPLE, font=_HEAD)
    draw.text((_MARGIN_PX + left_of_hits, _MARGIN_PX), "Looks most like them", fill=_INK, font=_HEAD)
    shown = examples[examples["id"].isin(first.index)].head(lines)
    cells = [(row, (0, line), "", _EXAMPLE) for line, row in enumerate(shown.itertuples())]
    for number, row in enumerate(hits.itertuples()):
        line, column = divmod(number, _COLUMNS)
        cells.append((row, (left_of_hits + column * step[0], line), f"{row.rank}. ({row.score:.2f})  ", _INK))
    for row, (across, line), title, colour in cells:
        left, top = _MARGIN_PX + across, _HEAD_PX + line * step[1]
        known = first.loc[row.id]
        picture = Image.fromarray(_picture(archive.store, str(known["sensor"]), int(known["row"])))
        sheet.paste(picture.resize((_TILE_PX, _TILE_PX), Image.Resampling.BICUBIC), (left, top))
        if colour == _EXAMPLE:
            draw.rectangle((left, top, left + _TILE_PX - 1, top + _TILE_PX - 1), outline=colour, width=5)
        about = f"{row.datetime:%Y-%m-%d}, {position(row.lon, row.lat)}"
        for number, text in enumerate((f"{title}{known['sensor']}", about)):
            draw.text((left, top + _TILE_PX + 3 + number * _LINE_PX), text, fill=colour, font=_FONT)
    return sheet


def _picture(archive: ImageSetStore, sensor: str, row: int) -> npt.NDArray[np.uint8]:
    bands: Sequence[int] = display_bands(archive.sensor(sensor))
    pixels, valid = archive.read_physical(sensor, [row], list(bands))
    return stretch(pixels[0], valid[0])
