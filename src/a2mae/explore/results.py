"""What a search leaves: ranked hits as GeoParquet and GeoJSON, and a contact sheet of the best beside the examples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image, ImageDraw

from a2mae.errors import plural
from a2mae.explore.archive import Archive
from a2mae.explore.parameters import SearchParameters
from a2mae.explore.query import rows_of_query
from a2mae.explore.search import Searcher
from a2mae.explore.store import EmbeddingStore, Vectors
from a2mae.files import whole_folder, write_json
from a2mae.report.pictures import display_bands, stretch
from a2mae.stssd.store.store import ImageSetStore

logger = logging.getLogger(__name__)

_TILE_PX, _MARGIN_PX, _LINE_PX = 160, 8, 14
_COLUMNS = 6
_PAPER, _INK, _EXAMPLE = (255, 255, 255), (30, 30, 36), (214, 39, 112)
_SHOWN_EXAMPLES = 6
_JSON = ("rank", "score", "id", "location_id", "sensor", "datetime", "lon", "lat")


def search_archive(
    options: SearchParameters,
    store: EmbeddingStore,
    folder: Path,
    *,
    archive: Archive | None = None,
    locations: gpd.GeoDataFrame | None = None,
) -> gpd.GeoDataFrame:
    """Search, and write `hits.parquet`, `hits.geojson`, `examples.geojson` and, with an archive, `contact_sheet.png`.

    Args:
        options: The `search` group.
        store: The store.
        folder: Where; replaced when all of it is whole.
        archive: For pictures; None: none are drawn.
        locations: Location table, for messages.

    Returns:
        The hits, best first: `rank`, `score`, then the columns of the store.

    Raises:
        InputError: If nothing fits what is searched for.
    """
    wanted, unwanted = rows_of_query(options, store, locations)
    positive, negative = store.take(options.level, wanted), store.take(options.level, unwanted)
    found = Searcher(store, options.level).similar(
        positive, negative, top=options.top, exclude_m=options.exclude_m, sensors=options.sensors
    )
    hits = _frame(store.take(options.level, found.number))
    hits.insert(0, "score", found.score)
    hits.insert(0, "rank", np.arange(1, len(hits) + 1))
    examples = _frame(positive)
    with whole_folder(folder) as partial:
        partial.mkdir(parents=True)
        hits.to_parquet(partial / "hits.parquet", index=False)
        _write_geojson(hits, partial / "hits.geojson")
        _write_geojson(examples, partial / "examples.geojson")
        write_json(partial / "search.json", {"options": options.model_dump(mode="json"), "model": store.about.model})
        if archive is not None and options.shown:
            sheet = contact_sheet(archive, options.level, examples, hits.head(options.shown))
            sheet.save(partial / "contact_sheet.png")
    best = f", the best {hits['score'].iloc[0]:.2f}" if len(hits) else ""
    logger.info("search: %s like %s%s", plural(len(hits), "hit"), plural(len(examples), "example"), best)
    return hits


def _frame(rows: Vectors) -> gpd.GeoDataFrame:
    table = rows.rows.drop(["content"]).to_pandas()
    geometry = shapely.from_wkb(table.pop("geometry").to_numpy())
    return gpd.GeoDataFrame(table, geometry=geometry, crs="EPSG:4326")


def _write_geojson(frame: gpd.GeoDataFrame, path: Path) -> None:
    columns = [name for name in _JSON if name in frame]
    shown = frame[[*columns, "geometry"]].assign(datetime=[moment.isoformat() for moment in frame["datetime"]])
    path.write_text(shown.to_json(drop_id=True), "utf-8")


def contact_sheet(archive: Archive, level: str, examples: gpd.GeoDataFrame, hits: gpd.GeoDataFrame) -> Image.Image:
    """Draw the examples, framed, and the hits in order, each in its own stretch.

    Args:
        archive: Has the pixels.
        level: `image`, or `set`: a set is shown by its first image.
        examples: As `search_archive` writes them; at most six are shown.
        hits: Likewise, with `rank` and `score`.
    """
    key = "image_id" if level == "image" else "set_id"
    first = archive.images.sort_values("image_id", kind="stable").drop_duplicates(key).set_index(key)
    shown = [(row, "example", _EXAMPLE) for row in examples.head(_SHOWN_EXAMPLES).itertuples()]
    shown += [(row, f"{row.rank}.  {row.score:.2f}", _INK) for row in hits.itertuples()]
    cell = (_TILE_PX + _MARGIN_PX, _TILE_PX + 2 * _LINE_PX + _MARGIN_PX)
    lines = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * cell[0] + _MARGIN_PX, lines * cell[1] + _MARGIN_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (row, title, colour) in enumerate(shown):
        left = _MARGIN_PX + number % _COLUMNS * cell[0]
        top = _MARGIN_PX + number // _COLUMNS * cell[1]
        known = first.loc[row.id]
        picture = Image.fromarray(_picture(archive.store, str(known["sensor"]), int(known["row"])))
        sheet.paste(picture.resize((_TILE_PX, _TILE_PX), Image.Resampling.BICUBIC), (left, top))
        if colour == _EXAMPLE:
            draw.rectangle((left, top, left + _TILE_PX - 1, top + _TILE_PX - 1), outline=colour, width=4)
        about = f"{row.datetime:%Y-%m-%d} {row.lon:.3f} {row.lat:.3f}"
        for line, text in enumerate((f"{title}  {known['sensor']}", about)):
            draw.text((left, top + _TILE_PX + line * _LINE_PX), text, fill=colour)
    return sheet


def _picture(archive: ImageSetStore, sensor: str, row: int) -> npt.NDArray[np.uint8]:
    bands: Sequence[int] = display_bands(archive.sensor(sensor))
    pixels, valid = archive.read_physical(sensor, [row], list(bands))
    return stretch(pixels[0], valid[0])
